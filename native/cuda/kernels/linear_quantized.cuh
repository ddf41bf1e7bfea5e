// Products of block-quantized weights with 8-bit activations. The one definition of an output, whatever kernel computes it:
//
//   group     e = exact integer sum of (code - zero) * activation over 32 columns (halves: over each 16)
//             t = e * s rounded; acc = fma(t, a, acc)
//             then, where the format has minima,   acc = fma(m, a * (sum of activations), acc)
//   chunk     four neighbouring groups, a chain from 0 in ascending order
//   segment   the chunks are cut into eight runs of as many (the last may have fewer): 0 + chunk + chunk + ... ascending
//   output    segment 0 + segment 1 + ... + segment 7 ascending, then + bias, then (where asked for) y + it
//
// The integers are exact, so the order of columns inside a group is each kernel's own business.
#pragma once

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/weight_formats.cuh"

namespace kv::cuda {

inline constexpr int kChunkPairs = kChunkColumns / 64;
inline constexpr int kSegments = 8;

struct ChunkRange {
  int begin, end;
};
__host__ __device__ inline int chunks_of_pairs(int pairs) { return (pairs + kChunkPairs - 1) / kChunkPairs; }
__host__ __device__ inline int segment_length(int pairs) { return (chunks_of_pairs(pairs) + kSegments - 1) / kSegments; }
// Segments that have chunks; the others' sums are 0, which change no sum.
__host__ __device__ inline int used_segments(int pairs) {
  return (chunks_of_pairs(pairs) + segment_length(pairs) - 1) / segment_length(pairs);
}
__device__ inline ChunkRange segment_chunks(int pairs, int segment) {
  const int chunks = chunks_of_pairs(pairs), each = segment_length(pairs);
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

// An exact integer sum is kept as sum + kMagicBits: read as a float that is 1.5 * 2^23 + the sum, exact while |sum| < 2^22.
// One fma makes t of it: scales have at most 19 significant bits, so that 1.5 * 2^23 * s is exact.
inline constexpr int kMagicBits = 0x4B400000;
__device__ inline float magic_offset(float s) { return s * -12582912.0f; }
__device__ inline float scaled_sum(int bits, float s, float offset) { return __fmaf_rn(__int_as_float(bits), s, offset); }

template <typename Format>
__device__ inline float add_group(float acc, int bits, float s, float m, float a, float a_sum) {
  acc = __fmaf_rn(scaled_sum(bits, s, magic_offset(s)), a, acc);
  if constexpr (Format::kKind == ScaleKind::minimum) acc = __fmaf_rn(m, a_sum, acc);
  return acc;
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
