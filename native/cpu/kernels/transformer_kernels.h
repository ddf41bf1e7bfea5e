// Arguments of the kernels around the matrix products: norms, position encoding, KV writes, attention, activation and
// what sampling needs of the logits. Declared per path in transformer_path_kernels.h, reached through KernelTable.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi/kvasir_abi.h"

namespace kv::cpu {

// y = (x * 1/sqrt(mean(x^2) + epsilon)) * weight over n values; y may be x.
struct RmsNormArgs {
  const float* x;       // (n)
  const float* weight;  // (n)
  float* y;             // (n)
  std::int64_t n;
  float epsilon;
};

// Rotates pairs of one head in place: (a, b) -> (a*cos - b*sin, b*cos + a*sin).
struct RopeArgs {
  float* head;             // (>= rotary_dim)
  const float* cosines;    // (rotary_dim / 2), attention factor included
  const float* sines;      // (rotary_dim / 2)
  std::int32_t rotary_dim;
  kv_rope_style style;
};

// Rounds K and V of tokens token_begin <= t < token_end to the pool's dtype and stores them at their slots.
struct KvWriteArgs {
  const float* keys;          // (T, Hkv * D)
  const float* values;        // (T, Hkv * D)
  const std::int32_t* slots;  // (T) block * Bk + offset, -1: skip
  std::byte* layer;           // block 0 of the layer: K of all heads, then V of all heads per block
  std::int64_t block_bytes;
  std::int64_t head_bytes;
  std::int32_t n_kv_heads;
  std::int32_t head_dim;
  std::int32_t block_tokens;
  kv_dtype dtype;
};

// Query rows one attention call takes at most: rows of one KV head, of several query heads, tokens or both.
inline constexpr std::int32_t kAttentionRows = 6;
// Tokens of a block; the row stride of AttentionBlockArgs.scores.
inline constexpr std::int32_t kAttentionBlockTokens = 256;
// Floats of AttentionBlockArgs.scores: products, and the weights of a quantized block's values.
inline constexpr std::int32_t kAttentionScoreFloats = 2 * kAttentionRows * kAttentionBlockTokens;
// Head dimensions go up to this.
inline constexpr std::int32_t kMaxHeadDim = 512;

// Floats between the outputs of two rows for head dimension D.
inline constexpr std::int64_t attention_output_stride(std::int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// Softmax state of rows over some context: maximum m, sum l of exp(s - m), and o = sum of exp(s - m) * v.
struct AttentionState {
  float* maxima;   // (rows)
  float* sums;     // (rows)
  float* outputs;  // (rows, attention_output_stride(D))
};

// One KV block of one KV head against up to kAttentionRows query rows. Row r attends to begins[r] <= t < ends[r], a
// range that may be empty; what `out` holds for such a row is then undefined.
struct AttentionBlockArgs {
  const std::byte* keys;        // (D, Bk); quantized: kv_layout.h
  const std::byte* values;      // (Bk, D)
  const float* const* queries;  // (rows) of (D)
  const std::int32_t* begins;   // (rows)
  const std::int32_t* ends;     // (rows)
  float* scores;                // scratch (kAttentionScoreFloats)
  AttentionState out;
  kv_dtype dtype;
  std::int32_t head_dim;
  std::int32_t rows;
  float scale;
  float softcap;  // 0: none
  // Keys of the block that will be attended to next, fetched towards the cache meanwhile; nullptr: none, or they are
  // there already. The values of this block are fetched ahead with them.
  const std::byte* next_keys;
};

// Folds block state `from` of one row into the running state `into` of the same row.
struct AttentionMergeArgs {
  float* into_maximum;
  float* into_sum;
  float* into_output;  // (D)
  float from_maximum;
  float from_sum;
  const float* from_output;  // (D), or nullptr: zeros
  std::int32_t head_dim;
};

// out = act(gate) combined with up, as kv_activation defines it; out may be gate.
struct ActivationArgs {
  const float* gate;  // (n)
  const float* up;    // (n)
  float* out;         // (n)
  std::int64_t n;
  kv_activation kind;
};

// Values per chunk of the reductions over logits.
inline constexpr std::int64_t kLogitChunk = 128;

}  // namespace kv::cpu
