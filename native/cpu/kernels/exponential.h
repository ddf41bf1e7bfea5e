// exp16: e^x in 16 lanes, the only exponential of the kernels, and soft_cap made of it. Per path: see simd/f32x16.h.
//
// x = n ln2 + r with |r| <= ln2/2, e^r by its Taylor polynomial of degree 7 (error below 0.1 ulp before rounding), then
// scaled by 2^n in two exact steps. Within 2 ulp of e^x; 0 below -87.336, infinity above 88.722, NaN stays NaN.
#pragma once

#include "cpu/simd/f32x16.h"

namespace kv::cpu::KV_PATH {

static inline f32x16 exp16(f32x16 x) {
  // Adding 1.5 * 2^23 leaves the rounded integer in the low bits of the sum.
  const f32x16 magic = splat(0x1.8p23f);
  const f32x16 shifted = fma(x, splat(0x1.715476p0f), magic);
  const f32x16 n = shifted - magic;
  f32x16 r = fma(n, splat(-0x1.62e43p-1f), x);
  r = fma(n, splat(0x1.05c61p-29f), r);
  f32x16 p = splat(1.0f / 5040.0f);
  p = fma(p, r, splat(1.0f / 720.0f));
  p = fma(p, r, splat(1.0f / 120.0f));
  p = fma(p, r, splat(1.0f / 24.0f));
  p = fma(p, r, splat(1.0f / 6.0f));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
  const i32x16 exponent = bits_to_i32(shifted) - bits_to_i32(magic);
  const i32x16 first = shift_right_arithmetic<1>(exponent);
  const i32x16 second = exponent - first;
  const i32x16 bias = splat_i32(127);
  const f32x16 scaled =
      (p * bits_to_f32(shift_left<23>(first + bias))) * bits_to_f32(shift_left<23>(second + bias));
  const f32x16 low = select(lt(x, splat(-87.336f)), zero(), scaled);
  return select(lt(splat(88.722f), x), splat(__builtin_inff()), low);
}

// cap * tanh(x / cap), as cap - 2 cap / (e^(2 x / cap) + 1): absolute error a few ulp of cap.
[[maybe_unused]] static inline f32x16 soft_cap(f32x16 x, float cap) {
  const f32x16 e = exp16(x * splat(2.0f / cap));
  return splat(cap) - splat(2.0f * cap) / (e + splat(1.0f));
}

}  // namespace kv::cpu::KV_PATH
