// attention: chooses the form, and merges the states of spans that were shared out over the device. The order of the merge
// is attention.cuh's.
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/matrix_units.cuh"

namespace kv::cuda {

namespace {

constexpr int kThreads = 128;  // dimensions, and spans at a time
constexpr int kWarps = kThreads / 32;

// Merges the spans of one row of one item for 128 dimensions. The weights depend on maxima alone, which a scan finds for
// 128 spans at once; then every thread goes through the spans for its dimension, whose values were on their way meanwhile,
// those of the next 128 too. n_stages: of 128 spans' values in shared memory, 1 where no context is longer.
__global__ void __launch_bounds__(kThreads) merge_kernel(AttentionArgs args, int span_tokens, int n_stages) {
  extern __shared__ float staged[];  // (n_stages, spans, 128)
  __shared__ float4 weights[kThreads];  // a, b, l * b
  __shared__ float warp_most[kWarps];
  let_next_begin();
  const AttentionItem item = args.items[blockIdx.x];
  const int r = blockIdx.y, D = args.head_dim, t = threadIdx.x, lane = t % 32, warp = t / 32;
  const int d = static_cast<int>(blockIdx.z) * kThreads + t;
  if (r >= item.n_rows) return;
  const RowRange range = visible_row(args, item, r);
  const int begin = range.begin / span_tokens, end = (range.end + span_tokens - 1) / span_tokens;
  const std::int64_t stride = std::int64_t{item.n_rows} * state_floats(D);
  const float* const states = state_of(args, item, 0, r);
  const auto stage_of = [&](int first) {
    return staged + (n_stages == 1 ? 0 : (first - begin) / kThreads % 2 * kThreads * kThreads);
  };
  // A warp a span, four dimensions a lane.
  const auto fetch = [&](int first) {
    const int of_lane = static_cast<int>(blockIdx.z) * kThreads + 4 * lane;
    if (of_lane < D) {
      const std::uint32_t to = shared_address(stage_of(first) + 4 * lane);
      const float* from = states + first * stride + 4 + of_lane;
      const int count = min(kThreads, end - first);
#pragma unroll 4
      for (int i = warp; i < count; i += kWarps) {
        copy_async(to + static_cast<std::uint32_t>(sizeof(float)) * kThreads * i, from + i * stride);
      }
    }
    commit_copies();
  };
  const auto own_of = [&](int first) {
    return first + t < end ? *reinterpret_cast<const float2*>(states + (first + t) * stride) : float2{kLowest, 0.0f};
  };
  wait_for_previous();
  float o = 0.0f, l = 0.0f, m = kLowest;
  float2 own = own_of(begin);
  fetch(begin);
  for (int done = begin; done < end; done += kThreads) {
    const int count = min(kThreads, end - done);
    const float2 next = own_of(done + kThreads);
    __syncthreads();  // the other stage has been read
    fetch(done + kThreads);
    float upto = own.x;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const float other = __shfl_up_sync(0xffffffffu, upto, step);
      if (lane >= step) upto = fmaxf(upto, other);
    }
    if (lane == 31) warp_most[warp] = upto;
    __syncthreads();
    float before = m;
    for (int i = 0; i < warp; ++i) before = fmaxf(before, warp_most[i]);
    const float neighbour = __shfl_up_sync(0xffffffffu, upto, 1);
    const float previous = lane == 0 ? before : fmaxf(before, neighbour), most = fmaxf(before, upto);
    const float b = exponential(own.x - most);
    weights[t] = {exponential(previous - most), b, own.y * b, 0.0f};
    for (int i = 0; i < kWarps; ++i) m = fmaxf(m, warp_most[i]);
    own = next;
    wait_for_copies<1>();
    __syncthreads();
    const float* from = stage_of(done) + t;
#pragma unroll 8
    for (int i = 0; i < count; ++i) {
      const float4 w = weights[i];
      l = __fmaf_rn(l, w.x, w.z);
      o = __fmaf_rn(o, w.x, from[i * kThreads] * w.y);
    }
  }
  if (args.sinks != nullptr) {
    float most, a, b;
    merge_weights(m, args.sinks[query_head(args, item, r)], most, a, b);
    l = __fmaf_rn(l, a, 1.0f * b);
    o = __fmaf_rn(o, a, 0.0f * b);
  }
  const float value = o / l;
  if (args.halves.codes == nullptr) {
    if (d < D) write_output(args, item, r, d, value);
    return;
  }
  // What a 16-bit pool holds, and so its means, f16 holds unscaled.
  const std::int64_t row = output_row(args, item, r), token = row / args.n_heads;
  const int head = static_cast<int>(row % args.n_heads), pairs = pairs_of(args.n_heads * D);
  const float next = __shfl_down_sync(0xffffffffu, value, 1);
  if (d < D && lane % 2 == 0) *input_code(args.halves, token, pairs, head * D + d) = code_pair(value, next, 1.0f);
  if (head == 0 && blockIdx.z == 0 && t < segments_of(pairs)) *input_scale(args.halves, token, t) = 1.0f;
}

}  // namespace

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
  const int n_stages = args.n_splits > kThreads ? 2 : 1;
  const auto spans = static_cast<std::size_t>(n_stages == 2 ? 2 * kThreads : args.n_splits);
  const std::size_t bytes = sizeof(float) * kThreads * spans;
  allow_shared(merge_kernel, bytes, "attention");
  const dim3 grid(static_cast<unsigned>(args.n_items), static_cast<unsigned>(args.rows_per_item),
                  ceil_div(args.head_dim, kThreads));
  launch_after("attention merge", merge_kernel, grid, kThreads, bytes, stream, args,
               attention_tiles(args.head_dim, args.dtype).span_tokens, n_stages);
}

}  // namespace kv::cuda
