// Activations in f16 for products: x = code * scale, one power of two for a token's columns in a segment, chosen so that f16
// holds them up to 2^75; where a segment's largest is below 2^-84 all of it becomes zeros:
//   scale_below(bound)   brings magnitudes below `bound` below 2^15
// Norms know a bound by their weights, attention by its pool, gated activations by looking. Codes are rounded half to even.
#pragma once

#include "cuda/kernels/arithmetic.cuh"
#include "cuda/kernels/device_matrix.h"
#include "cuda/kernels/matrix_units.cuh"

namespace kv::cuda {

struct InputScale {
  float scale, inverse;
};
// bound: not negative. Past 2^75, or not a number, codes may become infinite or NaN, and small ones beside them zero.
__device__ inline InputScale scale_below(float bound) {
  const int power = static_cast<int>(__float_as_uint(bound) >> 23) - 127;
  const int e = bound == 0.0f ? 0 : max(-60, min(60, power - 14));
  return {__uint_as_float(static_cast<std::uint32_t>(127 + e) << 23),
          __uint_as_float(static_cast<std::uint32_t>(127 - e) << 23)};
}

__device__ inline std::uint32_t code_pair(float first, float second, float inverse) {
  return pack_rounded<false>(first * inverse, second * inverse);
}
// Two neighbouring columns, the first even.
__device__ inline std::uint32_t* input_code(const HalfInput& input, std::int64_t token, int pairs, int column) {
  const int n = static_cast<int>(token % kTileTokens);
  return reinterpret_cast<std::uint32_t*>(
      input.codes + ((token / kTileTokens * pairs + column / kPairColumns) * kTileTokens + n) * kPairColumns +
      input_place(n, column % kPairColumns));
}
// Columns column .. + 3, a multiple of four.
__device__ inline void put_codes(const HalfInput& input, std::int64_t token, int pairs, int column, const float* x,
                                 float inverse) {
  *input_code(input, token, pairs, column) = code_pair(x[0], x[1], inverse);
  *input_code(input, token, pairs, column + 2) = code_pair(x[2], x[3], inverse);
}
__device__ inline float* input_scale(const HalfInput& input, std::int64_t token, int segment) {
  return input.scales + (token / kTileTokens * kSegments + segment) * kTileTokens + token % kTileTokens;
}

}  // namespace kv::cuda
