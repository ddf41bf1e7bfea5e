// One group of 32 activations, one in each lane of a warp, to 8 bits. The CPU backend's definition:
//   scale = amax / 127, code = round_half_even(x * (127 / amax)), zeros where amax < 2^-100; a group that holds a NaN or an
//   infinity gets codes 0 and scale NaN, so that every product with it is NaN.
#pragma once

#include "cuda/kernels/arithmetic.cuh"
#include "cuda/kernels/device_matrix.h"

namespace kv::cuda {

__device__ inline void quantize_group(float x, std::int8_t* codes, GroupInfo* info) {
  const int lane = threadIdx.x % 32;
  // Magnitudes compare as integers in the same order, with infinity and NaN above all numbers.
  unsigned bits = __float_as_uint(x) & 0x7fffffffu;
  bits = __reduce_max_sync(0xffffffffu, bits);
  const float amax = __uint_as_float(bits);
  const bool finite = bits < 0x7f800000u;
  const float scale = finite ? amax / 127.0f : __uint_as_float(0x7fc00000u);
  const float inverse = !finite || amax < 0x1p-100f ? 0.0f : 127.0f / amax;
  const int code = finite ? __float2int_rn(x * inverse) : 0;
  codes[lane] = static_cast<std::int8_t>(code);
  const int sum = __reduce_add_sync(0xffffffffu, code);
  const int half_sum = __reduce_add_sync(0xffffffffu, lane < 16 ? code : 0);
  if (lane == 0) *info = {scale, scale * static_cast<float>(sum), sum, half_sum};
}

}  // namespace kv::cuda
