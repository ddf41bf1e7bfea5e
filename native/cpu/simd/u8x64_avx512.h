// u8x64 on AVX-512 with VNNI: one zmm.
#pragma once

#include "cpu/simd/f32x16.h"

namespace kv::cpu::KV_PATH {

struct u8x64 {
  __m512i v;
};

static inline __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

static inline u8x64 load64(const void* p) { return {_mm512_loadu_si512(p)}; }
static inline u8x64 load32x2(const void* a, const void* b) {
  return {_mm512_inserti64x4(_mm512_castsi256_si512(load_256(a)), load_256(b), 1)};
}
static inline u8x64 load32_twice(const void* p) { return {_mm512_broadcast_i64x4(load_256(p))}; }
static inline void store64(void* p, u8x64 x) { _mm512_storeu_si512(p, x.v); }

static inline u8x64 splat_u8(int value) { return {_mm512_set1_epi8(static_cast<char>(value))}; }
static inline u8x64 operator&(u8x64 a, u8x64 b) { return {_mm512_and_si512(a.v, b.v)}; }
static inline u8x64 operator|(u8x64 a, u8x64 b) { return {_mm512_or_si512(a.v, b.v)}; }

template <int lo, int hi>
static inline u8x64 shift_right_halves(u8x64 x) {
  if constexpr (lo == hi) {
    return {_mm512_srli_epi32(x.v, lo)};
  } else {
    const __m512i counts = _mm512_setr_epi64(lo, lo, lo, lo, hi, hi, hi, hi);
    return {_mm512_srlv_epi64(x.v, counts)};
  }
}
template <int n>
static inline u8x64 shift_left(u8x64 x) {
  return {_mm512_slli_epi32(x.v, n)};
}
static inline u8x64 nibbles16x2(const void* a, const void* b) {
  const __m256i aa = _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(a)));
  const __m256i bb = _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(b)));
  const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(aa), bb, 1);
  const __m512i counts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
  return {_mm512_and_si512(_mm512_srlv_epi64(both, counts), _mm512_set1_epi8(15))};
}
static inline u8x64 load16x4(const void* a, const void* b, const void* c, const void* d) {
  __m512i x = _mm512_castsi128_si512(_mm_loadu_si128(static_cast<const __m128i*>(a)));
  x = _mm512_inserti32x4(x, _mm_loadu_si128(static_cast<const __m128i*>(b)), 1);
  x = _mm512_inserti32x4(x, _mm_loadu_si128(static_cast<const __m128i*>(c)), 2);
  return {_mm512_inserti32x4(x, _mm_loadu_si128(static_cast<const __m128i*>(d)), 3)};
}
static inline u8x64 load16_four_times(const void* p) {
  return {_mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(p)))};
}
template <int j, bool upper>
static inline u8x64 add_row_bits(u8x64 x, i32x16 h, int value) {
  constexpr int first = 4 * j + (upper ? 2 : 0);
  const __m128i spread = _mm_set_epi64x(0x0101010101010101ll * (first + 1), 0x0101010101010101ll * first);
  const __m512i bytes = _mm512_shuffle_epi8(h.v, _mm512_broadcast_i32x4(spread));
  const __mmask64 set =
      _mm512_test_epi8_mask(bytes, _mm512_set1_epi64(static_cast<long long>(0x8040201008040201ull)));
  return {_mm512_mask_add_epi8(x.v, set, x.v, _mm512_set1_epi8(static_cast<char>(value)))};
}
static inline u8x64 bytes_of_bits(std::uint64_t bits, int value) {
  return {_mm512_maskz_set1_epi8(bits, static_cast<char>(value))};
}
static inline u8x64 lookup(const std::int8_t* table, u8x64 x) {
  const __m128i t = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(t), x.v)};
}

static inline u8x64 quad(std::int32_t word) { return {_mm512_set1_epi32(word)}; }

static inline i32x16 dot(i32x16 acc, u8x64 w, u8x64 a) { return {_mm512_dpbusd_epi32(acc.v, w.v, a.v)}; }

inline constexpr int kQ8Zero = 128;
static inline u8x64 q8_codes(u8x64 signed_codes) {
  return {_mm512_xor_si512(signed_codes.v, _mm512_set1_epi8(static_cast<char>(0x80)))};
}
static inline i32x16 dot_q8(i32x16 acc, u8x64 w, u8x64 a) { return dot(acc, w, a); }

// Four words whose rows are `stride` apart. Merging loads put each word straight into its lane: the instruction set's own
// gather takes several times as long where the microcode guards it against data sampling.
static inline __m128i gather_4(const std::uint8_t* p, std::int64_t stride) {
  __m128i words = _mm_maskz_loadu_epi32(1, p);
  words = _mm_mask_loadu_epi32(words, 2, p + stride - 4);
  words = _mm_mask_loadu_epi32(words, 4, p + 2 * stride - 8);
  return _mm_mask_loadu_epi32(words, 8, p + 3 * stride - 12);
}
static inline i32x16 gather_words(const std::uint8_t* base, std::int64_t stride) {
  const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(gather_4(base, stride)),
                                              gather_4(base + 4 * stride, stride), 1);
  const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(gather_4(base + 8 * stride, stride)),
                                               gather_4(base + 12 * stride, stride), 1);
  return {_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1)};
}
static inline f32x16 f16_lanes(i32x16 low_halves) { return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(low_halves.v))}; }

// Sums of adjacent word pairs: lanes (0,1) and (2,3) of each quarter of a, then of b.
static inline __m512i add_pairs(__m512i a, __m512i b) {
  const __m512 fa = _mm512_castsi512_ps(a), fb = _mm512_castsi512_ps(b);
  const __m512i even = _mm512_castps_si512(_mm512_shuffle_ps(fa, fb, 0x88));
  const __m512i odd = _mm512_castps_si512(_mm512_shuffle_ps(fa, fb, 0xdd));
  return _mm512_add_epi32(even, odd);
}
// Four rows a..d -> lane r of each quarter holds the sum of that quarter of row r.
static inline __m512i add_quads(const i32x16* d) {
  return add_pairs(add_pairs(d[0].v, d[1].v), add_pairs(d[2].v, d[3].v));
}

static inline i32x16 quarter_sums4(const i32x16* d) { return {add_quads(d)}; }

static inline void row_sums32(const i32x16* d, i32x16* out) {
  const __m512i r0 = add_quads(d), r4 = add_quads(d + 4), r8 = add_quads(d + 8), r12 = add_quads(d + 12);
  const __m512i x =
      _mm512_add_epi32(_mm512_shuffle_i32x4(r0, r4, 0x88), _mm512_shuffle_i32x4(r0, r4, 0xdd));  // A0 B0 A4 B4
  const __m512i y = _mm512_add_epi32(_mm512_shuffle_i32x4(r8, r12, 0x88), _mm512_shuffle_i32x4(r8, r12, 0xdd));
  out[0].v = _mm512_shuffle_i32x4(x, y, 0x88);
  out[1].v = _mm512_shuffle_i32x4(x, y, 0xdd);
}

static inline void row_sums16(const i32x16* d, i32x16* out) {
  const __m512i r0 = add_quads(d), r4 = add_quads(d + 4), r8 = add_quads(d + 8), r12 = add_quads(d + 12);
  const __m512i a = _mm512_shuffle_i32x4(r0, r4, 0x88), b = _mm512_shuffle_i32x4(r8, r12, 0x88);  // quarters 0 and 2
  const __m512i c = _mm512_shuffle_i32x4(r0, r4, 0xdd), e = _mm512_shuffle_i32x4(r8, r12, 0xdd);  // quarters 1 and 3
  out[0].v = _mm512_shuffle_i32x4(a, b, 0x88);
  out[1].v = _mm512_shuffle_i32x4(c, e, 0x88);
  out[2].v = _mm512_shuffle_i32x4(a, b, 0xdd);
  out[3].v = _mm512_shuffle_i32x4(c, e, 0xdd);
}

template <typename Words>
static inline void transpose16(Words* rows) {
  __m512i t[16], s[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i].v, rows[2 * i + 1].v);
    t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i].v, rows[2 * i + 1].v);
  }
  for (int i = 0; i < 4; ++i) {  // s[4i+j]: in quarter q, word 4q+j of rows 4i..4i+3
    s[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    s[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    s[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    s[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_shuffle_i32x4(s[j], s[4 + j], 0x88), b = _mm512_shuffle_i32x4(s[8 + j], s[12 + j], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(s[j], s[4 + j], 0xdd), d = _mm512_shuffle_i32x4(s[8 + j], s[12 + j], 0xdd);
    rows[j].v = _mm512_shuffle_i32x4(a, b, 0x88);
    rows[4 + j].v = _mm512_shuffle_i32x4(c, d, 0x88);
    rows[8 + j].v = _mm512_shuffle_i32x4(a, b, 0xdd);
    rows[12 + j].v = _mm512_shuffle_i32x4(c, d, 0xdd);
  }
}

}  // namespace kv::cpu::KV_PATH
