// f32x16 on AArch64 NEON: four q registers, lanes 4i to 4i+3 in register i.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "cpu/simd/partial_copy.h"

namespace kv::cpu::KV_PATH {

struct f32x16 {
  float32x4_t q[4];
};
struct i32x16 {
  int32x4_t q[4];
};
struct mask16 {
  uint32x4_t q[4];
};

template <typename Quarter>
static inline f32x16 each_f32(Quarter quarter) {
  return {{quarter(0), quarter(1), quarter(2), quarter(3)}};
}
template <typename Quarter>
static inline i32x16 each_i32(Quarter quarter) {
  return {{quarter(0), quarter(1), quarter(2), quarter(3)}};
}

static inline mask16 first_lanes(int n) {
  const std::int32_t start[4] = {0, 1, 2, 3};
  const int32x4_t lanes = vld1q_s32(start);
  mask16 r;
  for (int i = 0; i < 4; ++i) r.q[i] = vcltq_s32(vaddq_s32(lanes, vdupq_n_s32(4 * i)), vdupq_n_s32(n));
  return r;
}

static inline float32x4_t load_quarter(const void* p, int i) {
  return vreinterpretq_f32_u8(vld1q_u8(static_cast<const std::uint8_t*>(p) + 16 * i));
}

static inline f32x16 splat(float x) {
  return each_f32([=](int) { return vdupq_n_f32(x); });
}
static inline f32x16 zero() { return splat(0.0f); }
static inline f32x16 load(const void* p) {
  return each_f32([=](int i) { return load_quarter(p, i); });
}
static inline f32x16 load_first(const void* p, int n) {
  float f[16] = {};
  copy_bytes(f, p, 4L * n);
  return load(f);
}
static inline void store(void* p, f32x16 a) {
  for (int i = 0; i < 4; ++i) vst1q_u8(static_cast<std::uint8_t*>(p) + 16 * i, vreinterpretq_u8_f32(a.q[i]));
}
static inline void store_first(void* p, f32x16 a, int n) {
  float f[16];
  store(f, a);
  copy_bytes(p, f, 4L * n);
}

static inline f32x16 operator+(f32x16 a, f32x16 b) {
  return each_f32([&](int i) { return vaddq_f32(a.q[i], b.q[i]); });
}
static inline f32x16 operator-(f32x16 a, f32x16 b) {
  return each_f32([&](int i) { return vsubq_f32(a.q[i], b.q[i]); });
}
static inline f32x16 operator*(f32x16 a, f32x16 b) {
  return each_f32([&](int i) { return vmulq_f32(a.q[i], b.q[i]); });
}
static inline f32x16 operator/(f32x16 a, f32x16 b) {
  return each_f32([&](int i) { return vdivq_f32(a.q[i], b.q[i]); });
}
static inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
  return each_f32([&](int i) { return vfmaq_f32(c.q[i], a.q[i], b.q[i]); });
}
// By comparison, because FMAX and FMIN treat NaN and signed zeros differently from the other paths.
static inline f32x16 max(f32x16 a, f32x16 b) {
  return each_f32([&](int i) { return vbslq_f32(vcgtq_f32(a.q[i], b.q[i]), a.q[i], b.q[i]); });
}
static inline f32x16 min(f32x16 a, f32x16 b) {
  return each_f32([&](int i) { return vbslq_f32(vcltq_f32(a.q[i], b.q[i]), a.q[i], b.q[i]); });
}
static inline f32x16 sqrt(f32x16 a) {
  return each_f32([&](int i) { return vsqrtq_f32(a.q[i]); });
}
static inline f32x16 abs(f32x16 a) {
  return each_f32([&](int i) { return vabsq_f32(a.q[i]); });
}
static inline f32x16 round_even(f32x16 a) {
  return each_f32([&](int i) { return vrndnq_f32(a.q[i]); });
}

static inline mask16 lt(f32x16 a, f32x16 b) {
  mask16 r;
  for (int i = 0; i < 4; ++i) r.q[i] = vcltq_f32(a.q[i], b.q[i]);
  return r;
}
static inline f32x16 select(mask16 m, f32x16 a, f32x16 b) {
  return each_f32([&](int i) { return vbslq_f32(m.q[i], a.q[i], b.q[i]); });
}

static inline i32x16 splat_i32(std::int32_t x) {
  return each_i32([=](int) { return vdupq_n_s32(x); });
}
static inline f32x16 bits_to_f32(i32x16 a) {
  return each_f32([&](int i) { return vreinterpretq_f32_s32(a.q[i]); });
}
static inline i32x16 bits_to_i32(f32x16 a) {
  return each_i32([&](int i) { return vreinterpretq_s32_f32(a.q[i]); });
}
static inline i32x16 load_i32(const void* p) { return bits_to_i32(load(p)); }
static inline i32x16 load_first_i32(const void* p, int n) { return bits_to_i32(load_first(p, n)); }
static inline void store_i32(void* p, i32x16 a) { store(p, bits_to_f32(a)); }
static inline i32x16 operator+(i32x16 a, i32x16 b) {
  return each_i32([&](int i) { return vaddq_s32(a.q[i], b.q[i]); });
}
static inline i32x16 operator-(i32x16 a, i32x16 b) {
  return each_i32([&](int i) { return vsubq_s32(a.q[i], b.q[i]); });
}
static inline i32x16 operator*(i32x16 a, i32x16 b) {
  return each_i32([&](int i) { return vmulq_s32(a.q[i], b.q[i]); });
}
static inline i32x16 max(i32x16 a, i32x16 b) {
  return each_i32([&](int i) { return vmaxq_s32(a.q[i], b.q[i]); });
}
template <int n>
static inline i32x16 shift_left(i32x16 a) {
  return each_i32([&](int i) { return vshlq_n_s32(a.q[i], n); });
}
static inline i32x16 operator&(i32x16 a, i32x16 b) {
  return each_i32([&](int i) { return vandq_s32(a.q[i], b.q[i]); });
}
static inline i32x16 operator|(i32x16 a, i32x16 b) {
  return each_i32([&](int i) { return vorrq_s32(a.q[i], b.q[i]); });
}
template <int n>
static inline i32x16 shift_right(i32x16 a) {
  return each_i32([&](int i) {
    if constexpr (n == 0) return a.q[i];
    else return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.q[i]), n == 0 ? 1 : n));
  });
}
template <int n>
static inline i32x16 shift_right_arithmetic(i32x16 a) {
  return each_i32([&](int i) { return vshrq_n_s32(a.q[i], n); });
}
static inline f32x16 to_f32(i32x16 a) {
  return each_f32([&](int i) { return vcvtq_f32_s32(a.q[i]); });
}
static inline i32x16 to_i32(f32x16 a) {
  return each_i32([&](int i) { return vcvtnq_s32_f32(a.q[i]); });
}

static inline void store_i8(void* p, i32x16 a) {
  const int16x8_t lo = vcombine_s16(vmovn_s32(a.q[0]), vmovn_s32(a.q[1]));
  const int16x8_t hi = vcombine_s16(vmovn_s32(a.q[2]), vmovn_s32(a.q[3]));
  vst1q_s8(static_cast<std::int8_t*>(p), vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
}
static inline i32x16 load_i8(const void* p) {
  const int8x16_t bytes = vld1q_s8(static_cast<const std::int8_t*>(p));
  const int16x8_t lo = vmovl_s8(vget_low_s8(bytes)), hi = vmovl_s8(vget_high_s8(bytes));
  return {{vmovl_s16(vget_low_s16(lo)), vmovl_s16(vget_high_s16(lo)), vmovl_s16(vget_low_s16(hi)),
           vmovl_s16(vget_high_s16(hi))}};
}
static inline i32x16 load_u8(const void* p) {
  const uint8x16_t bytes = vld1q_u8(static_cast<const std::uint8_t*>(p));
  const uint16x8_t lo = vmovl_u8(vget_low_u8(bytes)), hi = vmovl_u8(vget_high_u8(bytes));
  return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(lo))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(lo))),
           vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(hi))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(hi)))}};
}
static inline std::int32_t sum_lanes(i32x16 a) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(a.q[0], a.q[1]), vaddq_s32(a.q[2], a.q[3])));
}

static inline f32x16 load_f16(const void* p) {
  return each_f32([=](int i) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(static_cast<const std::uint8_t*>(p) + 8 * i)));
  });
}
static inline f32x16 load_first_f16(const void* p, int n) {
  std::uint16_t h[16] = {};
  copy_bytes(h, p, 2L * n);
  return load_f16(h);
}
static inline void store_f16(void* p, f32x16 a) {
  for (int i = 0; i < 4; ++i) {
    vst1_u8(static_cast<std::uint8_t*>(p) + 8 * i, vreinterpret_u8_f16(vcvt_f16_f32(a.q[i])));
  }
}
static inline void store_first_f16(void* p, f32x16 a, int n) {
  std::uint16_t h[16];
  store_f16(h, a);
  copy_bytes(p, h, 2L * n);
}

static inline f32x16 load_bf16(const void* p) {
  return each_f32([=](int i) {
    const uint16x4_t h = vreinterpret_u16_u8(vld1_u8(static_cast<const std::uint8_t*>(p) + 8 * i));
    return vreinterpretq_f32_u32(vshll_n_u16(h, 16));
  });
}
static inline f32x16 load_first_bf16(const void* p, int n) {
  std::uint16_t h[16] = {};
  copy_bytes(h, p, 2L * n);
  return load_bf16(h);
}
static inline void store_bf16(void* p, f32x16 a) {
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t u = vreinterpretq_u32_f32(a.q[i]);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    const uint32x4_t quiet = vorrq_u32(u, vdupq_n_u32(0x400000));
    const uint32x4_t number = vceqq_f32(a.q[i], a.q[i]);
    const uint16x4_t h = vshrn_n_u32(vbslq_u32(number, rounded, quiet), 16);
    vst1_u8(static_cast<std::uint8_t*>(p) + 8 * i, vreinterpret_u8_u16(h));
  }
}
static inline void store_first_bf16(void* p, f32x16 a, int n) {
  std::uint16_t h[16];
  store_bf16(h, a);
  copy_bytes(p, h, 2L * n);
}

static inline float sum_tree(f32x16 a) {
  const float32x4_t s8_lo = vaddq_f32(a.q[0], a.q[2]);  // lanes l + (l+8), l in 0..3
  const float32x4_t s8_hi = vaddq_f32(a.q[1], a.q[3]);
  const float32x4_t s4 = vaddq_f32(s8_lo, s8_hi);
  const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
  return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}
static inline float max_lanes(f32x16 a) {
  float f[16];
  store(f, a);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) f[i] = f[i] > f[i + half] ? f[i] : f[i + half];
  }
  return f[0];
}

static inline void store_sums4(float* to, const f32x16* a) {
  for (int i = 0; i < 4; ++i) to[i] = sum_tree(a[i]);
}

}  // namespace kv::cpu::KV_PATH
