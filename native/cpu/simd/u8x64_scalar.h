// u8x64 in plain C++.
#pragma once

#include "cpu/simd/f32x16.h"

namespace kv::cpu::KV_PATH {

struct u8x64 {
  std::uint8_t b[64];
};

template <typename Byte>
static inline u8x64 each_u8(Byte byte) {
  u8x64 r;
  for (int i = 0; i < 64; ++i) r.b[i] = static_cast<std::uint8_t>(byte(i));
  return r;
}

static inline u8x64 load32x2(const void* a, const void* b) {
  u8x64 r;
  copy_bytes(r.b, a, 32);
  copy_bytes(r.b + 32, b, 32);
  return r;
}
static inline u8x64 load64(const void* p) { return load32x2(p, static_cast<const std::uint8_t*>(p) + 32); }
static inline u8x64 load32_twice(const void* p) { return load32x2(p, p); }
static inline void store64(void* p, const u8x64& x) { copy_bytes(p, x.b, 64); }

static inline u8x64 splat_u8(int value) {
  return each_u8([=](int) { return value; });
}
static inline u8x64 operator&(const u8x64& a, const u8x64& b) {
  return each_u8([&](int i) { return a.b[i] & b.b[i]; });
}
static inline u8x64 operator|(const u8x64& a, const u8x64& b) {
  return each_u8([&](int i) { return a.b[i] | b.b[i]; });
}
template <int lo, int hi>
static inline u8x64 shift_right_halves(const u8x64& x) {
  return each_u8([&](int i) { return x.b[i] >> (i < 32 ? lo : hi); });
}
template <int n>
static inline u8x64 shift_left(const u8x64& x) {
  return each_u8([&](int i) { return x.b[i] << n; });
}
static inline u8x64 nibbles16x2(const void* a, const void* b) {
  std::uint8_t q[32];
  copy_bytes(q, a, 16);
  copy_bytes(q + 16, b, 16);
  return each_u8([&](int i) { return (q[i / 32 * 16 + i % 16] >> (i / 16 % 2 * 4)) & 15; });
}
static inline u8x64 bytes_of_bits(std::uint64_t bits, int value) {
  return each_u8([=](int i) { return ((bits >> i) & 1u) != 0 ? value : 0; });
}
static inline u8x64 load16x4(const void* a, const void* b, const void* c, const void* d) {
  const void* quarters[4] = {a, b, c, d};
  u8x64 r;
  for (int i = 0; i < 4; ++i) copy_bytes(r.b + 16 * i, quarters[i], 16);
  return r;
}
static inline u8x64 load16_four_times(const void* p) { return load16x4(p, p, p, p); }
template <int j, bool upper>
static inline u8x64 add_row_bits(const u8x64& x, const i32x16& h, int value) {
  return each_u8([&](int i) {
    const std::uint32_t bits = unsigned_of(h.v[i / 16 * 4 + j]) >> (upper ? 16 : 0);
    return x.b[i] + (((bits >> (i % 16)) & 1u) != 0 ? value : 0);
  });
}
static inline u8x64 lookup(const std::int8_t* table, const u8x64& x) {
  return each_u8([&](int i) { return table[x.b[i]]; });
}

static inline u8x64 quad(std::int32_t word) {
  return each_u8([=](int i) { return unsigned_of(word) >> (8 * (i % 4)); });
}

static inline i32x16 dot(const i32x16& acc, const u8x64& w, const u8x64& a) {
  i32x16 r = acc;
  for (int i = 0; i < 64; ++i) r.v[i / 4] += w.b[i] * static_cast<std::int8_t>(a.b[i]);
  return r;
}

inline constexpr int kQ8Zero = 0;
static inline u8x64 q8_codes(const u8x64& signed_codes) { return signed_codes; }
static inline i32x16 dot_q8(const i32x16& acc, const u8x64& w, const u8x64& a) {
  i32x16 r = acc;
  for (int i = 0; i < 64; ++i) r.v[i / 4] += static_cast<std::int8_t>(w.b[i]) * static_cast<std::int8_t>(a.b[i]);
  return r;
}

static inline i32x16 gather_words(const std::uint8_t* base, std::int64_t stride) {
  i32x16 r;
  for (int i = 0; i < 16; ++i) copy_bytes(&r.v[i], base + i * stride, 4);
  return r;
}
static inline f32x16 f16_lanes(const i32x16& low_halves) {
  return each_f32([&](int i) { return f16_to_f32(static_cast<std::uint16_t>(unsigned_of(low_halves.v[i]) & 0xffffu)); });
}

static inline i32x16 quarter_sums4(const i32x16* d) {
  return each_i32([&](int i) {
    const std::int32_t* quarter = d[i % 4].v + i / 4 * 4;
    return quarter[0] + quarter[1] + quarter[2] + quarter[3];
  });
}
template <int n_sums>
static inline void row_sums(const i32x16* d, i32x16* out) {
  constexpr int width = 16 / n_sums;
  for (int s = 0; s < n_sums; ++s) {
    for (int r = 0; r < 16; ++r) {
      std::int32_t sum = 0;
      for (int i = 0; i < width; ++i) sum += d[r].v[width * s + i];
      out[s].v[r] = sum;
    }
  }
}
static inline void row_sums32(const i32x16* d, i32x16* out) { row_sums<2>(d, out); }
static inline void row_sums16(const i32x16* d, i32x16* out) { row_sums<4>(d, out); }

template <typename Words>
static inline void transpose16(Words* rows) {
  std::int32_t words[16][16];
  for (int r = 0; r < 16; ++r) copy_bytes(words[r], &rows[r], 64);
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < r; ++c) {
      const std::int32_t word = words[r][c];
      words[r][c] = words[c][r];
      words[c][r] = word;
    }
  }
  for (int r = 0; r < 16; ++r) copy_bytes(&rows[r], words[r], 64);
}

}  // namespace kv::cpu::KV_PATH
