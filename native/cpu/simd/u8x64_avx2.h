// u8x64 on AVX2: two ymm, bytes 0-31 and 32-63.
#pragma once

#include "cpu/simd/f32x16.h"

namespace kv::cpu::KV_PATH {

struct u8x64 {
  __m256i lo, hi;
};

static inline __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

static inline u8x64 load32x2(const void* a, const void* b) { return {load_256(a), load_256(b)}; }
static inline u8x64 load64(const void* p) { return load32x2(p, static_cast<const std::uint8_t*>(p) + 32); }
static inline u8x64 load32_twice(const void* p) {
  const __m256i x = load_256(p);
  return {x, x};
}
static inline void store64(void* p, u8x64 x) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), x.lo);
  _mm256_storeu_si256(static_cast<__m256i*>(p) + 1, x.hi);
}

static inline u8x64 splat_u8(int value) {
  const __m256i x = _mm256_set1_epi8(static_cast<char>(value));
  return {x, x};
}
static inline u8x64 operator&(u8x64 a, u8x64 b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
static inline u8x64 operator|(u8x64 a, u8x64 b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }

template <int lo, int hi>
static inline u8x64 shift_right_halves(u8x64 x) {
  return {_mm256_srli_epi16(x.lo, lo), _mm256_srli_epi16(x.hi, hi)};
}
template <int n>
static inline u8x64 shift_left(u8x64 x) {
  return {_mm256_slli_epi16(x.lo, n), _mm256_slli_epi16(x.hi, n)};
}
static inline __m256i nibbles16(const void* p) {
  const __m128i x = _mm_loadu_si128(static_cast<const __m128i*>(p));
  const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(x), _mm_srli_epi16(x, 4), 1);
  return _mm256_and_si256(both, _mm256_set1_epi8(15));
}
static inline u8x64 nibbles16x2(const void* a, const void* b) { return {nibbles16(a), nibbles16(b)}; }
static inline __m256i bytes_of_bits32(std::uint32_t bits, int value) {
  const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3,
                                          3, 3, 3, 3, 3);
  const __m256i select = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)), spread);
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, select), select);
  return _mm256_and_si256(set, _mm256_set1_epi8(static_cast<char>(value)));
}
static inline u8x64 bytes_of_bits(std::uint64_t bits, int value) {
  return {bytes_of_bits32(static_cast<std::uint32_t>(bits), value),
          bytes_of_bits32(static_cast<std::uint32_t>(bits >> 32), value)};
}
static inline u8x64 load16x4(const void* a, const void* b, const void* c, const void* d) {
  return {_mm256_loadu2_m128i(static_cast<const __m128i*>(b), static_cast<const __m128i*>(a)),
          _mm256_loadu2_m128i(static_cast<const __m128i*>(d), static_cast<const __m128i*>(c))};
}
static inline u8x64 load16_four_times(const void* p) { return load16x4(p, p, p, p); }
template <int j, bool upper>
static inline u8x64 add_row_bits(u8x64 x, i32x16 h, int value) {
  constexpr int first = 4 * j + (upper ? 2 : 0);
  const __m256i spread = _mm256_broadcastsi128_si256(
      _mm_set_epi64x(0x0101010101010101ll * (first + 1), 0x0101010101010101ll * first));
  const __m256i select = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
  const __m256i bit = _mm256_set1_epi8(static_cast<char>(value));
  const auto bits_of = [&](__m256i words) {
    const __m256i bytes = _mm256_and_si256(_mm256_shuffle_epi8(words, spread), select);
    return _mm256_and_si256(_mm256_cmpeq_epi8(bytes, select), bit);
  };
  return {_mm256_or_si256(x.lo, bits_of(h.lo)), _mm256_or_si256(x.hi, bits_of(h.hi))};
}
static inline u8x64 lookup(const std::int8_t* table, u8x64 x) {
  const __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  return {_mm256_shuffle_epi8(t, x.lo), _mm256_shuffle_epi8(t, x.hi)};
}

static inline u8x64 quad(std::int32_t word) {
  const __m256i x = _mm256_set1_epi32(word);
  return {x, x};
}

// Pairs of products stay within 16 bits: 2 * 127 * 127.
static inline __m256i dot_half(__m256i acc, __m256i w, __m256i a) {
  const __m256i pairs = _mm256_maddubs_epi16(w, a);
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
static inline i32x16 dot(i32x16 acc, u8x64 w, u8x64 a) {
  return {dot_half(acc.lo, w.lo, a.lo), dot_half(acc.hi, w.hi, a.hi)};
}

inline constexpr int kQ8Zero = 0;
static inline u8x64 q8_codes(u8x64 signed_codes) { return signed_codes; }
// |w| * (a with w's sign): pairs reach 2 * 128 * 127 = 32512 and do not saturate.
static inline i32x16 dot_q8(i32x16 acc, u8x64 w, u8x64 a) {
  return {dot_half(acc.lo, _mm256_abs_epi8(w.lo), _mm256_sign_epi8(a.lo, w.lo)),
          dot_half(acc.hi, _mm256_abs_epi8(w.hi), _mm256_sign_epi8(a.hi, w.hi))};
}

static inline i32x16 gather_words(const std::uint8_t* base, std::int64_t stride) {
  std::int32_t words[16];
  for (int r = 0; r < 16; ++r) copy_bytes(&words[r], base + r * stride, 4);
  return load_i32(words);
}
static inline f32x16 f16_lanes(i32x16 low_halves) {
  const __m256i mask = _mm256_set1_epi32(0xffff);
  const __m256i packed = _mm256_packus_epi32(_mm256_and_si256(low_halves.lo, mask), _mm256_and_si256(low_halves.hi, mask));
  const __m256i ordered = _mm256_permute4x64_epi64(packed, 0xd8);
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(ordered)), _mm256_cvtph_ps(_mm256_extracti128_si256(ordered, 1))};
}

static inline i32x16 quarter_sums4(const i32x16* d) {
  return {_mm256_hadd_epi32(_mm256_hadd_epi32(d[0].lo, d[1].lo), _mm256_hadd_epi32(d[2].lo, d[3].lo)),
          _mm256_hadd_epi32(_mm256_hadd_epi32(d[0].hi, d[1].hi), _mm256_hadd_epi32(d[2].hi, d[3].hi))};
}

// Of rows 8i..8i+7 (d points at row 8i): lane r of `low` is the sum of words 0-3 of half `upper` of row r, of `high` that
// of words 4-7.
static inline void quarter_sums(const i32x16* d, bool upper, __m256i* low, __m256i* high) {
  __m256i half[8];
  for (int r = 0; r < 8; ++r) half[r] = upper ? d[r].hi : d[r].lo;
  const __m256i a = _mm256_hadd_epi32(_mm256_hadd_epi32(half[0], half[1]), _mm256_hadd_epi32(half[2], half[3]));
  const __m256i b = _mm256_hadd_epi32(_mm256_hadd_epi32(half[4], half[5]), _mm256_hadd_epi32(half[6], half[7]));
  *low = _mm256_permute2x128_si256(a, b, 0x20);
  *high = _mm256_permute2x128_si256(a, b, 0x31);
}
static inline void row_sums16(const i32x16* d, i32x16* out) {
  quarter_sums(d, false, &out[0].lo, &out[1].lo);
  quarter_sums(d, true, &out[2].lo, &out[3].lo);
  quarter_sums(d + 8, false, &out[0].hi, &out[1].hi);
  quarter_sums(d + 8, true, &out[2].hi, &out[3].hi);
}
static inline void row_sums32(const i32x16* d, i32x16* out) {
  i32x16 quarters[4];
  row_sums16(d, quarters);
  out[0] = quarters[0] + quarters[1];
  out[1] = quarters[2] + quarters[3];
}

// 8x8 words in place.
static inline void transpose8(__m256i* r) {
  __m256i t[8], s[8];
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    s[4 * i] = _mm256_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    s[4 * i + 1] = _mm256_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    s[4 * i + 2] = _mm256_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    s[4 * i + 3] = _mm256_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int j = 0; j < 4; ++j) {
    r[j] = _mm256_permute2x128_si256(s[j], s[4 + j], 0x20);
    r[4 + j] = _mm256_permute2x128_si256(s[j], s[4 + j], 0x31);
  }
}
template <typename Words>
static inline void transpose16(Words* rows) {
  __m256i a[8], b[8], c[8], d[8];
  for (int i = 0; i < 8; ++i) {
    a[i] = rows[i].lo;
    b[i] = rows[i].hi;
    c[i] = rows[8 + i].lo;
    d[i] = rows[8 + i].hi;
  }
  transpose8(a);
  transpose8(b);
  transpose8(c);
  transpose8(d);
  for (int i = 0; i < 8; ++i) {
    rows[i] = {a[i], c[i]};
    rows[8 + i] = {b[i], d[i]};
  }
}

}  // namespace kv::cpu::KV_PATH
