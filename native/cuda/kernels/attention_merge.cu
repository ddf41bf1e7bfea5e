// attention: chooses the form, and merges the states of spans that were shared out over the device. The order of the merge
// is attention.cuh's.
#include <algorithm>

#include "cuda/kernels/attention_span.cuh"

namespace kv::cuda {

namespace {

constexpr int kThreads = 128;  // spans at a time
constexpr int kWarps = kThreads / 32;
constexpr int kDims = 32;

// Merges the spans of one row of one item for 32 dimensions. The weights depend on maxima alone, which a scan finds for 128
// spans at once; then a warp goes through the spans for its dimensions, whose values every warp sent for beforehand: as
// many as n_ahead spans at a time, which is all of them but in very long contexts.
__global__ void __launch_bounds__(kThreads) merge_kernel(AttentionArgs args, int span_tokens, int n_ahead) {
  extern __shared__ float staged[];  // (n_ahead, 32)
  __shared__ float weights[3][kThreads];  // a, b, l
  __shared__ float warp_most[kWarps];
  let_next_begin();
  const AttentionItem item = args.items[blockIdx.x];
  const int r = blockIdx.y, D = args.head_dim, t = threadIdx.x, lane = t % 32, warp = t / 32;
  const int d = static_cast<int>(blockIdx.z) * kDims + lane;
  if (r >= item.n_rows) return;
  const RowRange range = visible_row(args, item, r);
  const int begin = range.begin / span_tokens, end = (range.end + span_tokens - 1) / span_tokens;
  const std::int64_t stride = std::int64_t{item.n_rows} * (D + 2);
  const float* const states = state_of(args, item, 0, r);
  wait_for_previous();
  float o = 0.0f, l = 0.0f, m = kLowest;
  for (int first = begin; first < end; first += n_ahead) {
    const int stop = min(first + n_ahead, end);
    __syncthreads();
    if (d < D) {
#pragma unroll 8
      for (int span = first + warp; span < stop; span += kWarps) {
        copy_word_async(shared_address(staged + (span - first) * kDims + lane), states + span * stride + 2 + d);
      }
    }
    commit_copies();
    for (int done = first; done < stop; done += kThreads) {
      const int count = min(kThreads, stop - done);
      const float own = t < count ? states[(done + t) * stride] : kLowest;
      const float own_l = t < count ? states[(done + t) * stride + 1] : 0.0f;
      float upto = own;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const float other = __shfl_up_sync(0xffffffffu, upto, step);
        if (lane >= step) upto = fmaxf(upto, other);
      }
      __syncthreads();
      if (lane == 31) warp_most[warp] = upto;
      __syncthreads();
      float before = m;
      for (int i = 0; i < warp; ++i) before = fmaxf(before, warp_most[i]);
      const float neighbour = __shfl_up_sync(0xffffffffu, upto, 1);
      const float previous = lane == 0 ? before : fmaxf(before, neighbour), most = fmaxf(before, upto);
      weights[0][t] = exponential(previous - most);
      weights[1][t] = exponential(own - most);
      weights[2][t] = own_l;
      for (int i = 0; i < kWarps; ++i) m = fmaxf(m, warp_most[i]);
      wait_for_copies<0>();
      __syncthreads();
      if (warp != 0) continue;
      const float* from = staged + (done - first) * kDims + lane;
#pragma unroll 8
      for (int i = 0; i < count; ++i) {
        const float a = weights[0][i], b = weights[1][i];
        l = __fmaf_rn(l, a, weights[2][i] * b);
        o = __fmaf_rn(o, a, from[i * kDims] * b);
      }
    }
  }
  if (warp != 0) return;
  if (args.sinks != nullptr) {
    float most, a, b;
    merge_weights(m, args.sinks[query_head(args, item, r)], most, a, b);
    l = __fmaf_rn(l, a, 1.0f * b);
    o = __fmaf_rn(o, a, 0.0f * b);
  }
  if (d < D) write_output(args, item, r, d, o / l);
}

}  // namespace

bool attention_merges_at_once(std::int32_t head_dim, std::int32_t dtype, std::int32_t n_splits, std::int32_t rows) {
  return attention_on_matrix_units(head_dim, dtype) && n_splits <= kSpansAtOnce && rows <= kTileRows;
}

bool attention_on_matrix_units(std::int32_t head_dim, std::int32_t dtype) {
  return (head_dim == 64 || head_dim == 128) && dtype != KV_F32;
}

AttentionTiles attention_tiles(std::int32_t head_dim, std::int32_t dtype) {
  if (attention_on_matrix_units(head_dim, dtype)) return {kMatrixSpan, kSplitRows, kWalkRows};
  return {kRowSpan, kRowItemRows, kRowItemRows};
}

void attention(const AttentionArgs& args, cudaStream_t stream) {
  const bool on_matrix_units = attention_on_matrix_units(args.head_dim, args.dtype);
  if (args.n_splits == 0) return on_matrix_units ? walk_span_attention(args, stream) : row_attention(args, stream);
  on_matrix_units ? split_span_attention(args, stream) : row_attention(args, stream);
  if (args.arrivals != nullptr) return;  // the last span of each item has merged
  const int n_ahead = std::min(args.n_splits, 8 * kThreads);
  const std::size_t bytes = sizeof(float) * kDims * static_cast<std::size_t>(n_ahead);
  allow_shared(merge_kernel, bytes);
  const dim3 grid(static_cast<unsigned>(args.n_items), static_cast<unsigned>(args.rows_per_item),
                  ceil_div(args.head_dim, kDims));
  launch_after("attention merge", merge_kernel, grid, kThreads, bytes, stream, args,
               attention_tiles(args.head_dim, args.dtype).span_tokens, n_ahead);
}

}  // namespace kv::cuda
