// What all forms of attention share. A query row's context is cut at multiples of a span; a span's state (m, l, o) is
// computed by itself and states are merged in ascending order, so that a row has the same bits whichever kernel computes
// it, beside whichever others. Two definitions of a span, chosen by the pool and the head alone:
//
//   attention_rows.cu: float32 throughout, any head, any pool; 64 tokens
//   attention_span.cuh: sums on the matrix units; 16-bit and quantized pools, heads of 64 and 128; 128 tokens
//
//   merge from m = -inf, l = o = 0:
//     m' = max(m, ms), a = e^(m - m'), b = e^(ms - m'), l' = fma(l, a, ls * b), o' = fma(o, a, os * b)
//   a sink is one more span with l = 1 and o = 0; output o / l
#pragma once

#include "cuda/kernels/half_input.cuh"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"
#include "host/block_tokens.h"
#include "host/kv_format.h"

namespace kv::cuda {

inline constexpr float kLowest = -INFINITY;

struct RowRange {
  int begin, end;  // visible tokens of the sequence
};

__device__ inline RowRange visible(const AttentionArgs& args, int position) {
  return {args.window > 0 ? max(0, position - args.window + 1) : 0, position + 1};
}

// Tokens any row of an item sees: positions ascend with rows.
__device__ inline RowRange visible(const AttentionArgs& args, const AttentionItem& item) {
  return {visible(args, item.low_position).begin, visible(args, item.high_position).end};
}

__device__ inline RowRange visible_row(const AttentionArgs& args, const AttentionItem& item, int r) {
  const int group = args.n_heads / args.n_kv_heads;
  return visible(args, args.positions[item.first_token + (item.first_row + r) / group]);
}

// What a merge needs of its two sides.
__device__ inline void merge_weights(float m, float mb, float& most, float& a, float& b) {
  most = m > mb ? m : mb;
  a = exponential(m - most);
  b = exponential(mb - most);
}

__device__ inline std::int64_t output_row(const AttentionArgs& args, const AttentionItem& item, int r) {
  const int group = args.n_heads / args.n_kv_heads, row = item.first_row + r;
  return std::int64_t{item.first_token + row / group} * args.n_heads + item.kv_head * group + row % group;
}

// Head of the query row, for its sink.
__device__ inline int query_head(const AttentionArgs& args, const AttentionItem& item, int r) {
  const int group = args.n_heads / args.n_kv_heads;
  return item.kv_head * group + (item.first_row + r) % group;
}

__device__ inline std::int32_t block_of(const AttentionArgs& args, const AttentionItem& item, int token) {
  return args.block_tables[std::int64_t{item.sequence} * args.table_width + token / kBlockTokens];
}

// The item's record of K of token `token` in block `id`, of `record_bytes`; V lies value_offset behind.
__device__ inline const std::uint8_t* find_record(const AttentionArgs& args, const AttentionItem& item, std::int32_t id,
                                                  int token, int record_bytes) {
  return args.pool + id * args.block_bytes +
         (std::int64_t{item.kv_head} * kBlockTokens + token % kBlockTokens) * record_bytes;
}

// Where the state of an item's row over one span lies: m, l, and from the fourth float on D values of o.
__device__ inline float* state_of(const AttentionArgs& args, const AttentionItem& item, int span, int r) {
  const std::int64_t row = std::int64_t{item.state_rows} * args.n_splits + std::int64_t{span} * item.n_rows + r;
  return args.states + row * state_floats(args.head_dim);
}

// One value of a row's output.
__device__ inline void write_output(const AttentionArgs& args, const AttentionItem& item, int r, int d, float value) {
  args.out[output_row(args, item, r) * args.head_dim + d] = value;
}

// Launchers of one form each; attention() in attention_merge.cu chooses.
void row_attention(const AttentionArgs& args, cudaStream_t stream);         // attention_rows.cu
void split_span_attention(const AttentionArgs& args, cudaStream_t stream);  // attention_split.cu
void walk_span_attention(const AttentionArgs& args, cudaStream_t stream);   // attention_walk.cu

}  // namespace kv::cuda
