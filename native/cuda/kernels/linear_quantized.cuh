// Products of block-quantized weights with 8-bit activations. The one definition of an output, whatever kernel computes it:
//
//   group     e = exact integer sum of (code - zero) * activation over 32 columns (halves: over each 16)
//             acc = fma(e, s * a, acc)   then, where the format has minima,   acc = fma(m, a * (sum of activations), acc)
//   chunk     the four groups of pairs c and c + 4 of every eight, c = 0..3, a chain from 0 in ascending order
//   segment   the chunks are cut into four runs of as many (the last may have fewer): 0 + chunk + chunk + ... ascending
//   output    (segment 0 + segment 1) + (segment 2 + segment 3), then + bias, then (where asked for) y + it
//
// The integers are exact, so the order of columns inside a group is each kernel's own business.
#pragma once

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/weight_formats.cuh"

namespace kv::cuda {

inline constexpr int kChunkPairs = kChunkColumns / 64;
inline constexpr int kSegments = 4;

struct ChunkRange {
  int begin, end;
};
inline constexpr int kChunksOfEight = 8 / kChunkPairs;
__host__ __device__ inline int chunks_of_pairs(int pairs) { return (pairs + 7) / 8 * kChunksOfEight; }
// Pair k of a chunk; beyond the row in its last eight.
__device__ inline int pair_of(int chunk, int k) {
  return chunk / kChunksOfEight * 8 + chunk % kChunksOfEight + kChunksOfEight * k;
}
__device__ inline ChunkRange segment_chunks(int pairs, int segment) {
  const int chunks = chunks_of_pairs(pairs), each = (chunks + kSegments - 1) / kSegments;
  return {min(segment * each, chunks), min((segment + 1) * each, chunks)};
}

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
void linear_float(const LinearPart* parts, int n_parts, const float* x, std::int64_t ldx, int tokens,
                  cudaStream_t stream);

}  // namespace kv::cuda
