// 16-bit operands of the fast mode: f16, or bf16 where the weight is bf16. Values past f16's range are held at its ends.
#pragma once

#include "cuda/kernels/arithmetic.cuh"

namespace kv::cuda {

inline constexpr float kMaxHalf = 65504.0f;

// A NaN stays one.
__device__ inline float within_half(float x) { return x > kMaxHalf ? kMaxHalf : x < -kMaxHalf ? -kMaxHalf : x; }

template <bool kBf16>
__device__ inline std::uint32_t pack_two(float first, float second) {
  if constexpr (kBf16) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    return *reinterpret_cast<const std::uint32_t*>(&pair);
  } else {
    const __half2 pair = __floats2half2_rn(within_half(first), within_half(second));
    return *reinterpret_cast<const std::uint32_t*>(&pair);
  }
}

template <bool kBf16>
__device__ inline uint4 pack_eight(const float* x) {
  return {pack_two<kBf16>(x[0], x[1]), pack_two<kBf16>(x[2], x[3]), pack_two<kBf16>(x[4], x[5]),
          pack_two<kBf16>(x[6], x[7])};
}

}  // namespace kv::cuda
