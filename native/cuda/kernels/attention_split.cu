// Attention of few query rows: every span of an item is a block of threads that takes all its rows. Their states are merged
// by the last of them where there are few, else by a second kernel (attention_merge.cu). The definition is in
// attention_span.cuh.
//
// A span's keys and values are on their way to shared memory together before anything waits: a few blocks of threads on a
// multiprocessor keep enough bytes on their way to use the memory's bandwidth. For each tile of 8 rows the four warps share
// out the tokens for the scores and the dimensions for the output; the weights change hands in shared memory.
#include "cuda/kernels/attention_span.cuh"

namespace kv::cuda {

namespace {

// Weights (kGroups, 8 rows of each term, 128 tokens) behind the stage.
constexpr int kWeightStride = 2 * kMatrixSpan + 16;
template <int kDtype, int D>
constexpr int kWeightBytes = SpanShape<kDtype, D>::kGroups * SpanShape<kDtype, D>::kTerms * kTileRows * kWeightStride;

// Whether this block of threads is the item's last to have written its states, which it then sees all of.
__device__ inline bool is_last_of(const AttentionArgs& args, const RowRange& range) {
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const int spans = (range.end + kMatrixSpan - 1) / kMatrixSpan - range.begin / kMatrixSpan;
    is_last = atomicAdd(args.arrivals + blockIdx.x, 1) == spans - 1;
    if (is_last) args.arrivals[blockIdx.x] = 0;
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

// A warp merges the spans of a row, at most kSpansAtOnce, and writes its output: the merge of attention_merge.cu.
template <int D>
__device__ inline void merge_row(const AttentionArgs& args, const AttentionItem& item, int r) {
  constexpr int kEach = D / 32;
  const int lane = threadIdx.x % 32;
  const RowRange range = visible_row(args, item, r);
  const int begin = range.begin / kMatrixSpan, end = (range.end + kMatrixSpan - 1) / kMatrixSpan;
  float o[kEach] = {}, l = 0.0f, m = kLowest;
#pragma unroll 4
  for (int span = begin; span < end; ++span) {
    const float* state = state_of(args, item, span, r);
    const float ms = __ldcg(state), ls = __ldcg(state + 1);
    float values[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) values[i] = __ldcg(state + 2 + 32 * i + lane);
    float most, a, b;
    merge_weights(m, ms, most, a, b);
    m = most;
    l = __fmaf_rn(l, a, ls * b);
#pragma unroll
    for (int i = 0; i < kEach; ++i) o[i] = __fmaf_rn(o[i], a, values[i] * b);
  }
  if (args.sinks != nullptr) {
    float most, a, b;
    merge_weights(m, args.sinks[query_head(args, item, r)], most, a, b);
    l = __fmaf_rn(l, a, 1.0f * b);
#pragma unroll
    for (int i = 0; i < kEach; ++i) o[i] = __fmaf_rn(o[i], a, 0.0f * b);
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) write_output(args, item, r, 32 * i + lane, o[i] / l);
}

template <int kDtype, int D>
__global__ void __launch_bounds__(kSpanThreads, SpanShape<kDtype, D>::kQuantized ? 2 : 3) split_kernel(AttentionArgs args) {
  using Shape = SpanShape<kDtype, D>;
  extern __shared__ __align__(16) std::uint8_t memory[];
  __shared__ float maxima[kSpanWarps][kTileRows], sums[kSpanWarps][kTileRows];
  __shared__ float minimum_sums[Shape::kFourBits ? Shape::kGroups : 1][kSpanWarps][kTileRows];
  let_next_begin();
  const AttentionItem item = args.items[blockIdx.x];
  const int origin = static_cast<int>(blockIdx.y) * kMatrixSpan;
  const RowRange range = visible(args, item);
  const int low = max(range.begin - origin, 0), high = min(range.end - origin, kMatrixSpan);
  if (low >= high) return;
  const SpanStage<kDtype, D> stage{memory};
  const std::uint8_t* keys = find_record(args, item, origin, Shape::kRecord);
  const std::uint8_t* values = keys + args.value_offset;
  // What earlier steps wrote does not wait for this one's keys and values.
  const int before = item.first_position - origin;
  const int known = before >= kMatrixSpan ? kMatrixSpan : max(before, 0);
  stage.fetch(false, keys, 0, known, low, high);
  if (known == kMatrixSpan) {
    commit_copies();
    stage.fetch(true, values, 0, known, low, high);
    wait_for_previous();
  } else {
    stage.fetch(true, values, 0, known, low, high);
    wait_for_previous();
    stage.fetch(false, keys, known, kMatrixSpan, low, high);
    commit_copies();
    stage.fetch(true, values, known, kMatrixSpan, low, high);
  }
  commit_copies();

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row_in_tile = lane / 4;
  constexpr int kWarpDims = D / kSpanWarps, kTermBytes = kTileRows * kWeightStride;
  std::uint8_t* const weights = memory + Shape::kBytes;
  bool is_first = true;
  for (int tile = 0; tile < item.n_rows; tile += kTileRows) {
    const int r = tile + row_in_tile;
    const bool is_row = r < item.n_rows;
    QueryTile<kDtype, D> q;
    q.load(is_row ? args.q + output_row(args, item, r) * D : nullptr);
    const RowRange seen_range = is_row ? visible_row(args, item, r) : RowRange{0, 0};
    const int begin = seen_range.begin - origin, end = seen_range.end - origin;
    if (is_first) {
      if constexpr (Shape::kQuantized) {
        wait_for_copies<0>();
        __syncthreads();
        stage.widen();
      } else {
        wait_for_copies<1>();
        __syncthreads();
      }
    }

    float p[2][4], most = kLowest;
    bool seen[2][4];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      q.scores(args, stage, warp * kPart + 16 * h, p[h]);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = warp * kPart + 16 * h + 8 * (i / 2) + lane % 4 * 2 + i % 2;
        seen[h][i] = token >= begin && token < end;
        most = seen[h][i] ? fmaxf(most, p[h][i]) : most;
      }
    }
    most = quad_max(most);
    if (lane % 4 == 0) maxima[warp][row_in_tile] = most;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kSpanWarps; ++w) most = fmaxf(most, maxima[w][row_in_tile]);
    float sum = 0.0f;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        p[h][i] = seen[h][i] ? exponential(p[h][i] - most) : 0.0f;
        sum = sum + p[h][i];
      }
    }
    sum = quad_sum(sum);
    if (lane % 4 == 0) sums[warp][row_in_tile] = sum;
#pragma unroll
    for (int g = 0; g < Shape::kGroups; ++g) {
      float minimum_sum = 0.0f;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float w[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int token = warp * kPart + 16 * h + 8 * (i / 2) + lane % 4 * 2 + i % 2;
          w[i] = value_weight(stage, g, token, p[h][i], seen[h][i]);
          if constexpr (Shape::kFourBits) {
            minimum_sum = minimum_sum + (seen[h][i] ? p[h][i] * stage.minima(true, g)[token] : 0.0f);
          }
        }
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          Terms<kDtype> two;
          two.split(w[2 * n], w[2 * n + 1]);
#pragma unroll
          for (int term = 0; term < Shape::kTerms; ++term) {
            std::uint8_t* to = weights + (g * Shape::kTerms + term) * kTermBytes + row_in_tile * kWeightStride;
            *reinterpret_cast<std::uint32_t*>(to + 2 * (warp * kPart + 16 * h + 8 * n + lane % 4 * 2)) = two.term[term];
          }
        }
      }
      if constexpr (Shape::kFourBits) {
        minimum_sum = quad_sum(minimum_sum);
        if (lane % 4 == 0) minimum_sums[g][warp][row_in_tile] = minimum_sum;
      }
    }
    if (is_first && !Shape::kQuantized) wait_for_copies<0>();
    __syncthreads();
    is_first = false;

    const int group = warp * kWarpDims / (D / Shape::kGroups);
    float c[kWarpDims / 8][4] = {};
    const std::uint32_t a_at = shared_address(weights) + group * Shape::kTerms * kTermBytes + lane % 16 * kWeightStride +
                               lane / 16 * 16;
    const std::uint32_t b_at = stage.values() + lane % 16 * Shape::kStride + lane / 16 * 16 + 2 * warp * kWarpDims;
#pragma unroll
    for (int k = 0; k < kMatrixSpan / 16; ++k) {
      std::uint32_t a[4];
      load_matrices(a, a_at + 32 * k);
      Terms<kDtype> first, second;
      first.term[0] = a[0];
      first.term[1] = a[1];
      second.term[0] = a[2];
      second.term[1] = a[3];
      if constexpr (Shape::kTerms == 3) {
        std::uint32_t last[2];
        load_two_matrices(last, shared_address(weights) + (group * Shape::kTerms + 2) * kTermBytes +
                                    lane % 8 * kWeightStride + lane / 8 % 2 * 16 + 32 * k);
        first.term[2] = last[0];
        second.term[2] = last[1];
      }
#pragma unroll
      for (int n = 0; n < kWarpDims / 16; ++n) {
        std::uint32_t b[4];
        load_transposed(b, b_at + 16 * k * Shape::kStride + 32 * n);
        multiply_terms(c[2 * n], first, second, b[0], b[1]);
        multiply_terms(c[2 * n + 1], first, second, b[2], b[3]);
      }
    }
    if (!is_row) continue;  // of the last tile
    float* state = state_of(args, item, static_cast<int>(blockIdx.y), r);
    if (threadIdx.x < 32 && lane % 4 == 0) {
      float l = sums[0][row_in_tile];
#pragma unroll
      for (int w = 1; w < kSpanWarps; ++w) l = l + sums[w][row_in_tile];
      *reinterpret_cast<float2*>(state) = {most, l};
    }
    float offset = 0.0f;
    if constexpr (Shape::kFourBits) {
      offset = minimum_sums[group][0][row_in_tile];
#pragma unroll
      for (int w = 1; w < kSpanWarps; ++w) offset = offset + minimum_sums[group][w][row_in_tile];
    }
#pragma unroll
    for (int n = 0; n < kWarpDims / 8; ++n) {
      float2 two = joined<kDtype>(c[n]);
      if constexpr (Shape::kFourBits) two = {two.x + offset, two.y + offset};
      *reinterpret_cast<float2*>(state + 2 + warp * kWarpDims + 8 * n + lane % 4 * 2) = two;
    }
  }
  if (args.arrivals != nullptr && is_last_of(args, range)) {
    for (int r = warp; r < item.n_rows; r += kSpanWarps) merge_row<D>(args, item, r);
  }
}

}  // namespace

void split_span_attention(const AttentionArgs& args, cudaStream_t stream) {
  with_span_shape(args, [&]<int kDtype, int D>() {
    constexpr std::size_t kBytes = SpanShape<kDtype, D>::kBytes + kWeightBytes<kDtype, D>;
    allow_shared(split_kernel<kDtype, D>, kBytes);
    launch_after("attention", split_kernel<kDtype, D>,
                 dim3(static_cast<unsigned>(args.n_items), static_cast<unsigned>(args.n_splits)), kSpanThreads, kBytes,
                 stream, args);
  });
}

}  // namespace kv::cuda
