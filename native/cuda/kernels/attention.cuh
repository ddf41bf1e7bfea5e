// What both forms of attention share (attention.cu: an item walks its blocks, attention_split.cu: its spans are shared out
// over the device and merged afterwards). The one definition, whichever computes it; a span is 64 tokens at a multiple of 64:
//
//   s(r,t) = (fma over d ascending, from 0, of q(r,d) * k(t,d)) * scale        softcap: c * tanh(s / c)
//   m(r) = max of s over the row's tokens of the span, p = e^(s - m)
//   l(r) = lane j of 32 adds p(j) and p(j + 32) to 0, then the warp's butterfly
//   o(r,d) = fma over t ascending from 0 of p(r,t) * v(t,d)
//   merge of spans in ascending order from m = -inf, l = o = 0:
//     m' = max(m, ms), a = e^(m - m'), b = e^(ms - m'), l' = fma(l, a, ls * b), o' = fma(o, a, os * b)
//   a sink is one more span with l = 1 and o = 0; output o / l
// Tokens outside a row's range are never multiplied into its output, since stale slots may hold anything.
#pragma once

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"
#include "cuda/kernels/quantize.cuh"
#include "host/block_tokens.h"

namespace kv::cuda {

inline constexpr int kAttentionThreads = 256;
inline constexpr int kSpansPerBlock = kBlockTokens / kSpanTokens;
inline constexpr float kLowest = -INFINITY;
inline constexpr float kUnseen = -1.0f;  // in place of a weight p: the row does not see this token

template <typename Pool, bool kAligned>
struct PoolReader {
  using Value = typename Pool::Type;
  // Eight dimensions from a multiple of 8.
  __device__ static void eight(const Value* p, float* out) {
    uint4 raw[sizeof(Value) / 2];
#pragma unroll
    for (unsigned i = 0; i < sizeof(Value) / 2; ++i) raw[i] = __ldg(reinterpret_cast<const uint4*>(p) + i);
    const Value* values = reinterpret_cast<const Value*>(raw);
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = Pool::to_float(values[i]);
  }
  __device__ static float2 two(const Value* p, bool second) {
    if constexpr (kAligned) {
      if constexpr (sizeof(Value) == 2) {
        const std::uint32_t raw = __ldg(reinterpret_cast<const std::uint32_t*>(p));
        return {Pool::to_float(static_cast<Value>(raw)), Pool::to_float(static_cast<Value>(raw >> 16))};
      } else {
        return __ldg(reinterpret_cast<const float2*>(p));
      }
    }
    return {Pool::to_float(p[0]), second ? Pool::to_float(p[1]) : 0.0f};
  }
};

struct RowRange {
  int begin, end;  // visible tokens of the sequence
};

__device__ inline RowRange visible(const AttentionArgs& args, int position) {
  return {args.window > 0 ? max(0, position - args.window + 1) : 0, position + 1};
}

// What a merge needs of its two sides.
__device__ inline void merge_weights(float m, float mb, float& most, float& a, float& b) {
  most = m > mb ? m : mb;
  a = exponential(m - most);
  b = exponential(mb - most);
}

__device__ inline std::int64_t output_row(const AttentionArgs& args, const AttentionItem& item, int r) {
  const int group = args.n_heads / args.n_kv_heads, row = item.first_row + r;
  return std::int64_t{args.cu_seqlens[item.sequence] + row / group} * args.n_heads + item.kv_head * group + row % group;
}

template <typename Pool>
struct BlockPointers {
  const typename Pool::Type *keys, *values;
};
template <typename Pool>
__device__ inline BlockPointers<Pool> find_block(const AttentionArgs& args, const AttentionItem& item, int block) {
  const std::int32_t id = args.block_tables[std::int64_t{item.sequence} * args.table_width + block];
  const std::uint8_t* base = args.pool + id * args.block_bytes;
  const std::int64_t head = std::int64_t{item.kv_head} * kBlockTokens * args.head_dim;
  return {reinterpret_cast<const typename Pool::Type*>(base) + head,
          reinterpret_cast<const typename Pool::Type*>(base + args.value_offset) + head};
}

// One value of a row's output, or its 8-bit form: the caller's warp holds 32 neighbouring ones, whole groups.
__device__ inline void write_output(const AttentionArgs& args, const AttentionItem& item, int r, int d, float value) {
  const std::int64_t at = output_row(args, item, r) * args.head_dim + d;
  if (args.out != nullptr) args.out[at] = value;
  if (args.codes != nullptr) quantize_group(value, args.codes + at / 32 * 32, args.groups + at / 32);
}

// Raises the limit of a kernel's shared memory where it needs more than every kernel may have.
template <typename Kernel>
void allow_shared(Kernel kernel, std::size_t bytes) {
  if (bytes <= 48 * 1024) return;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
             "attention");
}

// attention_split.cu
void split_attention(const AttentionArgs& args, cudaStream_t stream);

}  // namespace kv::cuda
