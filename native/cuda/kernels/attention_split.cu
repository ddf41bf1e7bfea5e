// Attention of few query rows: the spans of an item are shared out over blocks of threads, each of which takes all its rows,
// and a second kernel merges their states (attention_merge.cu). The definition is in attention_span.cuh.
//
// A block takes every n-th span, and keys of the next are on their way as soon as those of this one have been used, values
// likewise: with a few blocks on a multiprocessor enough bytes are always on their way to use the memory's bandwidth. For
// each tile of 8 rows the four warps share out the tokens for the scores and the dimensions for the output; the weights
// change hands in shared memory.
#include <algorithm>

#include "cuda/kernels/attention_span.cuh"

namespace kv::cuda {

namespace {

// Weights (kGroups, 8 rows of each term, 128 tokens) behind the stage.
constexpr int kWeightStride = 2 * kMatrixSpan + 16;
template <int kDtype, int D>
constexpr int kWeightBytes = SpanShape<kDtype, D>::kGroups * SpanShape<kDtype, D>::kTerms * kTileRows * kWeightStride;

// Blocks of threads whose shared memory a multiprocessor holds.
template <int kDtype, int D>
constexpr int kResident = 228 * 1024 / (SpanShape<kDtype, D>::kBytes + kWeightBytes<kDtype, D> + 1536);

template <int kDtype, int D>
__global__ void __launch_bounds__(kSpanThreads, SpanShape<kDtype, D>::kQuantized ? 2 : 3) split_kernel(AttentionArgs args) {
  using Shape = SpanShape<kDtype, D>;
  extern __shared__ __align__(16) std::uint8_t memory[];
  __shared__ float maxima[kSpanWarps][kTileRows], sums[kSpanWarps][kTileRows];
  __shared__ float minimum_sums[Shape::kFourBits ? Shape::kGroups : 1][kSpanWarps][kTileRows];
  let_next_begin();
  const AttentionItem item = args.items[blockIdx.x];
  const RowRange range = visible(args, item);
  const int stop = (range.end + kMatrixSpan - 1) / kMatrixSpan, step = static_cast<int>(gridDim.y);
  int span = range.begin / kMatrixSpan + static_cast<int>(blockIdx.y);
  if (span >= stop) return;
  const SpanStage<kDtype, D> stage{memory};
  const auto block_id = [&](int of) { return of < stop ? block_of(args, item, of * kMatrixSpan) : 0; };
  const auto fetch = [&](bool is_value, int of, std::int32_t id, int begin, int end) {
    if (of >= stop) return;
    const int origin = of * kMatrixSpan;
    const std::uint8_t* from = find_record(args, item, id, origin, Shape::kRecord) + (is_value ? args.value_offset : 0);
    stage.fetch(is_value, from, begin, end, max(range.begin - origin, 0), min(range.end - origin, kMatrixSpan));
  };
  // What earlier steps wrote does not wait for this one's keys and values.
  const int known = min(max(item.first_position - span * kMatrixSpan, 0), kMatrixSpan);
  const std::int32_t first_id = block_id(span);
  fetch(false, span, first_id, 0, known);
  if (known == kMatrixSpan) commit_copies();
  fetch(true, span, first_id, 0, known);
  wait_for_previous();
  if (known < kMatrixSpan) {
    fetch(false, span, first_id, known, kMatrixSpan);
    commit_copies();
    fetch(true, span, first_id, known, kMatrixSpan);
  }
  commit_copies();

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row_in_tile = lane / 4;
  constexpr int kWarpDims = D / kSpanWarps, kTermBytes = kTileRows * kWeightStride;
  std::uint8_t* const weights = memory + Shape::kBytes;
  QueryTile<kDtype, D> q;
  const auto query_row = [&](int r) { return r < item.n_rows ? args.q + output_row(args, item, r) * D : nullptr; };
  typename QueryTile<kDtype, D>::Values next_query;
  next_query.load(query_row(row_in_tile));
  RowRange seen_range{};
  bool has_query = false;
  for (; span < stop; span += step) {
    const int origin = span * kMatrixSpan;
    const std::int32_t next_id = block_id(span + step);  // known by the time it is needed
    for (int tile = 0; tile < item.n_rows; tile += kTileRows) {
      const bool is_first = tile == 0, is_last = tile + kTileRows >= item.n_rows;
      const int r = tile + row_in_tile;
      const bool is_row = r < item.n_rows;
      // A single tile keeps its queries; those of the next of several are on their way during the output.
      if (!has_query) {
        q.take(next_query, args.scale);
        seen_range = is_row ? visible_row(args, item, r) : RowRange{0, 0};
      }
      has_query = item.n_rows <= kTileRows;
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
      if (is_last && !Shape::kQuantized) {
        fetch(false, span + step, next_id, 0, kMatrixSpan);
        commit_copies();
      }
#pragma unroll
      for (int w = 0; w < kSpanWarps; ++w) most = fmaxf(most, maxima[w][row_in_tile]);
      float sum = 0.0f;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          p[h][i] = seen[h][i] ? weight_of(p[h][i] - most) : 0.0f;
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
      if (is_first && !Shape::kQuantized) {
        if (is_last) {
          wait_for_copies<1>();  // but for the next span's keys
        } else {
          wait_for_copies<0>();
        }
      }
      __syncthreads();

      if (!has_query) next_query.load(query_row((is_last ? 0 : tile + kTileRows) + row_in_tile));
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
      float* state = is_row ? state_of(args, item, span, r) : nullptr;
      if (is_row && warp == 0 && lane % 4 == 0) {
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
        if (is_row) *reinterpret_cast<float2*>(state + 4 + warp * kWarpDims + 8 * n + lane % 4 * 2) = two;
      }
    }
    __syncthreads();
    if constexpr (Shape::kQuantized) {
      fetch(false, span + step, next_id, 0, kMatrixSpan);
    }
    fetch(true, span + step, next_id, 0, kMatrixSpan);
    commit_copies();
  }
}

}  // namespace

void split_span_attention(const AttentionArgs& args, cudaStream_t stream) {
  with_span_shape(args, [&]<int kDtype, int D>() {
    constexpr std::size_t kBytes = SpanShape<kDtype, D>::kBytes + kWeightBytes<kDtype, D>;
    allow_shared(split_kernel<kDtype, D>, kBytes, "attention");
    // As many blocks of threads as the device holds at a time; of many tiles more, so that the last to end ends sooner.
    const int blocks = count_multiprocessors() * kResident<kDtype, D> * (args.rows_per_item > kTileRows ? 3 : 1);
    const int shares = std::clamp(blocks / args.n_items, 1, args.n_splits);
    launch_after("attention", split_kernel<kDtype, D>,
                 dim3(static_cast<unsigned>(args.n_items), static_cast<unsigned>(shares)), kSpanThreads, kBytes, stream,
                 args);
  });
}

}  // namespace kv::cuda
