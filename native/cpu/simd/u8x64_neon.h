// u8x64 on AArch64 NEON: four q registers. The neon_dotprod path multiplies with SDOT, the neon path with SMULL + SADALP.
#pragma once

#include "cpu/simd/f32x16.h"

namespace kv::cpu::KV_PATH {

struct u8x64 {
  uint8x16_t q[4];
};

template <typename Quarter>
static inline u8x64 each_u8(Quarter quarter) {
  return {{quarter(0), quarter(1), quarter(2), quarter(3)}};
}
static inline uint8x16_t load_16(const void* p, int i) { return vld1q_u8(static_cast<const std::uint8_t*>(p) + 16 * i); }

static inline u8x64 load32x2(const void* a, const void* b) {
  return {{load_16(a, 0), load_16(a, 1), load_16(b, 0), load_16(b, 1)}};
}
static inline u8x64 load64(const void* p) {
  return each_u8([=](int i) { return load_16(p, i); });
}
static inline u8x64 load32_twice(const void* p) { return load32x2(p, p); }
static inline void store64(void* p, u8x64 x) {
  for (int i = 0; i < 4; ++i) vst1q_u8(static_cast<std::uint8_t*>(p) + 16 * i, x.q[i]);
}

static inline u8x64 splat_u8(int value) {
  return each_u8([=](int) { return vdupq_n_u8(static_cast<std::uint8_t>(value)); });
}
static inline u8x64 operator&(u8x64 a, u8x64 b) {
  return each_u8([&](int i) { return vandq_u8(a.q[i], b.q[i]); });
}
static inline u8x64 operator|(u8x64 a, u8x64 b) {
  return each_u8([&](int i) { return vorrq_u8(a.q[i], b.q[i]); });
}
template <int lo, int hi>
static inline u8x64 shift_right_halves(u8x64 x) {
  return each_u8([&](int i) { return vshlq_u8(x.q[i], vdupq_n_s8(i < 2 ? -lo : -hi)); });
}
template <int n>
static inline u8x64 shift_left(u8x64 x) {
  return each_u8([&](int i) { return vshlq_n_u8(x.q[i], n); });
}
static inline u8x64 nibbles16x2(const void* a, const void* b) {
  const uint8x16_t qa = load_16(a, 0), qb = load_16(b, 0), mask = vdupq_n_u8(15);
  return {{vandq_u8(qa, mask), vshrq_n_u8(qa, 4), vandq_u8(qb, mask), vshrq_n_u8(qb, 4)}};
}
static inline u8x64 bytes_of_bits(std::uint64_t bits, int value) {
  const std::uint8_t weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t select = vld1q_u8(weights);
  return each_u8([&](int i) {
    const std::uint16_t word = static_cast<std::uint16_t>(bits >> (16 * i));
    const uint8x16_t bytes = vcombine_u8(vdup_n_u8(static_cast<std::uint8_t>(word)), vdup_n_u8(static_cast<std::uint8_t>(word >> 8)));
    return vandq_u8(vtstq_u8(bytes, select), vdupq_n_u8(static_cast<std::uint8_t>(value)));
  });
}
static inline u8x64 load16x4(const void* a, const void* b, const void* c, const void* d) {
  return {{load_16(a, 0), load_16(b, 0), load_16(c, 0), load_16(d, 0)}};
}
static inline u8x64 load16_four_times(const void* p) { return load16x4(p, p, p, p); }
template <int j, bool upper>
static inline u8x64 add_row_bits(u8x64 x, i32x16 h, int value) {
  constexpr std::uint8_t first = 4 * j + (upper ? 2 : 0);
  const std::uint8_t weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t select = vld1q_u8(weights), bit = vdupq_n_u8(static_cast<std::uint8_t>(value));
  return each_u8([&](int i) {
    const uint8x16_t words = vreinterpretq_u8_s32(h.q[i]);
    const uint8x16_t bytes = vcombine_u8(vdup_laneq_u8(words, first), vdup_laneq_u8(words, first + 1));
    return vorrq_u8(x.q[i], vandq_u8(vtstq_u8(bytes, select), bit));
  });
}
static inline u8x64 lookup(const std::int8_t* table, u8x64 x) {
  const uint8x16_t t = vreinterpretq_u8_s8(vld1q_s8(table));
  return each_u8([&](int i) { return vqtbl1q_u8(t, x.q[i]); });
}

static inline u8x64 quad(std::int32_t word) {
  return each_u8([=](int) { return vreinterpretq_u8_s32(vdupq_n_s32(word)); });
}

static inline int32x4_t dot_quarter(int32x4_t acc, uint8x16_t w, uint8x16_t a) {
  const int8x16_t sw = vreinterpretq_s8_u8(w), sa = vreinterpretq_s8_u8(a);
#if defined(KV_PATH_NEON_DOTPROD)
  return vdotq_s32(acc, sw, sa);
#else
  const int16x8_t lo = vmull_s8(vget_low_s8(sw), vget_low_s8(sa)), hi = vmull_high_s8(sw, sa);
  return vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi)));
#endif
}
static inline i32x16 dot(i32x16 acc, u8x64 w, u8x64 a) {
  return each_i32([&](int i) { return dot_quarter(acc.q[i], w.q[i], a.q[i]); });
}

inline constexpr int kQ8Zero = 0;
static inline u8x64 q8_codes(u8x64 signed_codes) { return signed_codes; }
static inline i32x16 dot_q8(i32x16 acc, u8x64 w, u8x64 a) { return dot(acc, w, a); }

static inline i32x16 gather_words(const std::uint8_t* base, std::int64_t stride) {
  std::int32_t words[16];
  for (int r = 0; r < 16; ++r) copy_bytes(&words[r], base + r * stride, 4);
  return load_i32(words);
}
static inline f32x16 f16_lanes(i32x16 low_halves) {
  return each_f32([&](int i) { return vcvt_f32_f16(vreinterpret_f16_s16(vmovn_s32(low_halves.q[i]))); });
}

static inline i32x16 quarter_sums4(const i32x16* d) {
  return each_i32([&](int q) {
    return vpaddq_s32(vpaddq_s32(d[0].q[q], d[1].q[q]), vpaddq_s32(d[2].q[q], d[3].q[q]));
  });
}
static inline void row_sums16(const i32x16* d, i32x16* out) {
  for (int s = 0; s < 4; ++s) {
    for (int i = 0; i < 4; ++i) {
      const i32x16* r = d + 4 * i;
      out[s].q[i] = vpaddq_s32(vpaddq_s32(r[0].q[s], r[1].q[s]), vpaddq_s32(r[2].q[s], r[3].q[s]));
    }
  }
}
static inline void row_sums32(const i32x16* d, i32x16* out) {
  i32x16 quarters[4];
  row_sums16(d, quarters);
  out[0] = quarters[0] + quarters[1];
  out[1] = quarters[2] + quarters[3];
}

static inline void transpose16(u8x64* rows) {
  u8x64 columns[16];
  for (int i = 0; i < 4; ++i) {    // rows 4i..4i+3
    for (int c = 0; c < 4; ++c) {  // words 4c..4c+3
      const uint32x4_t r0 = vreinterpretq_u32_u8(rows[4 * i].q[c]), r1 = vreinterpretq_u32_u8(rows[4 * i + 1].q[c]);
      const uint32x4_t r2 = vreinterpretq_u32_u8(rows[4 * i + 2].q[c]), r3 = vreinterpretq_u32_u8(rows[4 * i + 3].q[c]);
      const uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(r0, r1)), b = vreinterpretq_u64_u32(vtrn2q_u32(r0, r1));
      const uint64x2_t e = vreinterpretq_u64_u32(vtrn1q_u32(r2, r3)), f = vreinterpretq_u64_u32(vtrn2q_u32(r2, r3));
      columns[4 * c].q[i] = vreinterpretq_u8_u64(vtrn1q_u64(a, e));
      columns[4 * c + 1].q[i] = vreinterpretq_u8_u64(vtrn1q_u64(b, f));
      columns[4 * c + 2].q[i] = vreinterpretq_u8_u64(vtrn2q_u64(a, e));
      columns[4 * c + 3].q[i] = vreinterpretq_u8_u64(vtrn2q_u64(b, f));
    }
  }
  for (int c = 0; c < 16; ++c) rows[c] = columns[c];
}
static inline void transpose16(i32x16* rows) {
  u8x64 bytes[16];
  for (int r = 0; r < 16; ++r) bytes[r] = each_u8([&](int i) { return vreinterpretq_u8_s32(rows[r].q[i]); });
  transpose16(bytes);
  for (int r = 0; r < 16; ++r) rows[r] = each_i32([&](int i) { return vreinterpretq_s32_u8(bytes[r].q[i]); });
}

}  // namespace kv::cpu::KV_PATH
