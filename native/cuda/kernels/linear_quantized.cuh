// Products of block-quantized weights with 8-bit activations. The one definition of an output, whatever kernel computes it:
//
//   group     e = exact integer sum of (code - zero) * activation over 32 columns (halves: over each 16)
//             acc = fma(e, s * a, acc)   then, where the format has minima,   acc = fma(m, a * (sum of activations), acc)
//   class     pairs p = c, c+4 of a slice of 8 pairs (512 columns), c = 0..3, each a chain from 0 in ascending order
//   slice     (class 0 + class 1) + (class 2 + class 3)
//   output    0 + slice 0 + slice 1 + ... in ascending order, then + bias, then (where asked for) y + it
//
// The integers are exact, so the order of columns inside a group is each kernel's own business.
#pragma once

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/weight_formats.cuh"

namespace kv::cuda {

inline constexpr int kSlicePairs = kSliceColumns / 64;
inline constexpr int kProductWarps = 8;

// The parts of a launch and where each begins in the grid's x.
struct ProductParts {
  LinearPart part[kMaxLinearParts];
  int tile_end[kMaxLinearParts];
  int n_parts;
};

__device__ inline int find_part(const ProductParts& parts, int& tile) {
  int i = 0;
  while (i + 1 < parts.n_parts && tile >= parts.tile_end[i]) ++i;
  if (i > 0) tile -= parts.tile_end[i - 1];
  return i;
}

template <typename Format>
__device__ inline float add_group(float acc, int products, float s, float m, const GroupInfo& a) {
  const int exact = Format::kZero == 0 ? products : products - a.sum * Format::kZero;
  acc = __fmaf_rn(static_cast<float>(exact), s * a.scale, acc);
  if constexpr (Format::kKind == ScaleKind::minimum) acc = __fmaf_rn(m, a.scaled_sum, acc);
  return acc;
}

// Of a format with a scale per 16 columns.
template <typename Format>
__device__ inline float add_halves(float acc, int first, int second, float s0, float s1, const GroupInfo& a) {
  acc = __fmaf_rn(static_cast<float>(first - a.half_sum * Format::kZero), s0 * a.scale, acc);
  return __fmaf_rn(static_cast<float>(second - (a.sum - a.half_sum) * Format::kZero), s1 * a.scale, acc);
}

__device__ inline void store_product(const LinearPart& part, std::int64_t token, std::int64_t row, float sum) {
  if (part.bias != nullptr) sum = sum + part.bias[row];
  float* y = part.y + token * part.ldy + row;
  *y = part.add != 0 ? *y + sum : sum;
}

// linear_vector.cu and linear_tiles.cu; `parts` have one dtype and one width.
void linear_vector(const LinearPart* parts, int n_parts, const QuantizedInput& x, int tokens, cudaStream_t stream);
void linear_tiles(const LinearPart* parts, int n_parts, const QuantizedInput& x, int tokens, cudaStream_t stream);
// Whether linear_tiles has room for the slices of rows this wide.
bool tiles_hold(std::int64_t cols);
void linear_float(const LinearPart* parts, int n_parts, const float* x, std::int64_t ldx, int tokens,
                  cudaStream_t stream);

}  // namespace kv::cuda
