// Products of f16 operands on the matrix units. The one definition of an output, whatever kernel computes it:
//
//   step      16 columns: acc = mma(weights, codes, acc), the unit's own m16n8k16 with float32 sums; a pair's four steps take
//             columns 16q + 4t .. + 3 for q = 0 .. 3, step by step t ascending
//   segment   its pairs in ascending order: acc from 0, then acc * the token's scale
//   output    sum of the segments, ascending; then * 2^kExponent / the row's factor, then + bias, then (where asked for) y + it
//
// Operands: operand_formats.cuh and half_input.cuh. The unit's sum over 16 columns is the hardware's, the same for every
// place in a tile and whatever the tile's other tokens hold.
#pragma once

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/matrix_units.cuh"
#include "cuda/kernels/operand_formats.cuh"

namespace kv::cuda {

// The parts of a launch and where each begins in the grid's tiles.
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
// Returns the tiles of all parts.
inline int place_parts(ProductParts& to, const LinearPart* parts, int n_parts, int tile_rows) {
  to.n_parts = n_parts;
  int tiles = 0;
  for (int i = 0; i < n_parts; ++i) {
    to.part[i] = parts[i];
    tiles += (parts[i].weight.rows + tile_rows - 1) / tile_rows;
    to.tile_end[i] = tiles;
  }
  return tiles;
}

// Four 8 x 8 matrices of 16-bit values, each lane naming a row of 16 bytes in shared memory. No other access is kept from
// passing it but barriers and waits for copies.
__device__ inline void load_operands(std::uint32_t* to, std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address));
}
// What multiplies the row's scales, of rows padded to whole strips; 1 where the format needs none.
template <typename Operand>
__device__ inline float row_factor(const DeviceMatrix& w, std::int64_t row) {
  if constexpr (!Operand::kHasFactors) return 1.0f;
  return __ldg(w.factors + row);
}
// What the row's sum is multiplied by.
template <typename Operand>
__device__ inline float undo_factor(const DeviceMatrix& w, std::int64_t row) {
  if constexpr (!Operand::kHasFactors) return 1.0f;
  return inverse_power(__ldg(w.factors + row)) * static_cast<float>(1u << Operand::kExponent);
}
__device__ inline void store_product(const LinearPart& part, std::int64_t token, std::int64_t row, float sum) {
  if (part.bias != nullptr) sum = sum + part.bias[row];
  float* y = part.y + token * part.ldy + row;
  *y = part.add != 0 ? *y + sum : sum;
}

// linear_strips.cu and linear_tiles.cu; `parts` have one dtype and one width.
bool strips_take(int tokens, int pairs);
void linear_strips(const LinearPart* parts, int n_parts, const HalfInput& x, int tokens, cudaStream_t stream);
void linear_tiles(const LinearPart* parts, int n_parts, const HalfInput& x, int tokens, cudaStream_t stream);
void linear_float(const LinearPart* parts, int n_parts, const float* x, std::int64_t ldx, int tokens,
                  cudaStream_t stream);

}  // namespace kv::cuda
