// Attention of many query rows: a block of threads walks the spans of an item of 32 rows in ascending order, a tile of 8
// rows to each warp, and merges as it goes. The definition is in attention_span.cuh; K of the next span is on its way while
// V of this one is worked on, and the other way round.
#include "cuda/kernels/attention_span.cuh"

namespace kv::cuda {

namespace {

static_assert(kWalkRows == kSpanWarps * kTileRows);

template <int kDtype, int D>
__global__ void __launch_bounds__(kSpanThreads, 2) walk_kernel(AttentionArgs args) {
  using Shape = SpanShape<kDtype, D>;
  constexpr int kHalves = D / 64;  // of the dimensions, which share the registers of their sums
  extern __shared__ __align__(16) std::uint8_t memory[];
  follow_previous();
  const AttentionItem item = args.items[blockIdx.x];
  const RowRange range = visible(args, item);
  const SpanStage<kDtype, D> stage{memory};
  const int first = range.begin / kMatrixSpan, last = (range.end + kMatrixSpan - 1) / kMatrixSpan;
  const auto block_id = [&](int span) { return span < last ? block_of(args, item, span * kMatrixSpan) : 0; };
  const auto fetch = [&](bool is_value, int span, std::int32_t id) {
    if (span < last) {
      const int origin = span * kMatrixSpan;
      const std::uint8_t* from = find_record(args, item, id, origin, Shape::kRecord) + (is_value ? args.value_offset : 0);
      stage.fetch(is_value, from, 0, kMatrixSpan, max(range.begin - origin, 0), min(range.end - origin, kMatrixSpan));
    }
    commit_copies();
  };
  fetch(false, first, block_id(first));
  fetch(true, first, block_id(first));

  const int lane = threadIdx.x % 32, r = static_cast<int>(threadIdx.x) / 32 * kTileRows + lane / 4;
  const bool is_row = r < item.n_rows;
  typename QueryTile<kDtype, D>::Values query;
  query.load(is_row ? args.q + output_row(args, item, r) * D : nullptr);
  QueryTile<kDtype, D> q;
  q.take(query, args.scale);
  const RowRange row_range = is_row ? visible_row(args, item, r) : RowRange{0, 0};
  float o[D / 8][2] = {}, m = kLowest, l = 0.0f;

  for (int span = first; span < last; ++span) {
    const int origin = span * kMatrixSpan, begin = row_range.begin - origin, end = row_range.end - origin;
    const std::int32_t next_id = block_id(span + 1);  // known by the time it is needed
    if constexpr (Shape::kQuantized) {
      wait_for_copies<0>();
      __syncthreads();
      stage.widen();
    } else {
      wait_for_copies<1>();
      __syncthreads();
    }
    float p[kMatrixSpan / 16][4], most = kLowest;
    const auto sees = [&](int h, int i) {
      const int token = 16 * h + 8 * (i / 2) + lane % 4 * 2 + i % 2;
      return token >= begin && token < end;
    };
#pragma unroll
    for (int h = 0; h < kMatrixSpan / 16; ++h) {
      q.scores(args, stage, 16 * h, p[h]);
#pragma unroll
      for (int i = 0; i < 4; ++i) most = sees(h, i) ? fmaxf(most, p[h][i]) : most;
    }
    if constexpr (!Shape::kQuantized) {
      __syncthreads();
      fetch(false, span + 1, next_id);
    }
    most = quad_max(most);
    float sum = 0.0f;
#pragma unroll
    for (int part = 0; part < kMatrixSpan / kPart; ++part) {
      float part_sum = 0.0f;
#pragma unroll
      for (int h = 2 * part; h < 2 * part + 2; ++h) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          p[h][i] = sees(h, i) ? weight_of(p[h][i] - most) : 0.0f;
          part_sum = part_sum + p[h][i];
        }
      }
      part_sum = quad_sum(part_sum);
      sum = part == 0 ? part_sum : sum + part_sum;
    }
    // A span the row does not see leaves its state as it is.
    const bool sees_any = begin < kMatrixSpan && end > 0;
    float now = m, keep = 1.0f, add = 0.0f;
    if (sees_any) {
      merge_weights(m, most, now, keep, add);
      l = __fmaf_rn(l, keep, sum * add);
    }
    m = now;

    if constexpr (!Shape::kQuantized) {
      wait_for_copies<1>();
      __syncthreads();
    }
    const std::uint32_t values = stage.values() + lane % 16 * Shape::kStride + lane / 16 * 16;
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      const int g = Shape::kGroups == 1 ? 0 : half;
      float c[8][4] = {};
#pragma unroll
      for (int k = 0; k < kMatrixSpan / 16; ++k) {
        float w[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          w[i] = value_weight(stage, g, 16 * k + 8 * (i / 2) + lane % 4 * 2 + i % 2, p[k][i], sees(k, i));
        }
        Terms<kDtype> low, high;
        low.split(w[0], w[1]);
        high.split(w[2], w[3]);
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          std::uint32_t b[4];
          load_transposed(b, values + 16 * k * Shape::kStride + 128 * half + 32 * n);
          multiply_terms(c[2 * n], low, high, b[0], b[1]);
          multiply_terms(c[2 * n + 1], low, high, b[2], b[3]);
        }
      }
      float offset = 0.0f;
      if constexpr (Shape::kFourBits) {
#pragma unroll
        for (int part = 0; part < kMatrixSpan / kPart; ++part) {
          float part_sum = 0.0f;
#pragma unroll
          for (int h = 2 * part; h < 2 * part + 2; ++h) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              const int token = 16 * h + 8 * (i / 2) + lane % 4 * 2 + i % 2;
              part_sum = part_sum + (sees(h, i) ? p[h][i] * stage.minima(true, g)[token] : 0.0f);
            }
          }
          part_sum = quad_sum(part_sum);
          offset = part == 0 ? part_sum : offset + part_sum;
        }
      }
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        float2 two = joined<kDtype>(c[n]);
        if constexpr (Shape::kFourBits) two = {two.x + offset, two.y + offset};
        float* to = o[8 * half + n];
        to[0] = sees_any ? __fmaf_rn(to[0], keep, two.x * add) : to[0];
        to[1] = sees_any ? __fmaf_rn(to[1], keep, two.y * add) : to[1];
      }
    }
    __syncthreads();
    if constexpr (Shape::kQuantized) fetch(false, span + 1, next_id);
    fetch(true, span + 1, next_id);
  }

  if (args.sinks != nullptr && is_row) {
    float most, a, b;
    merge_weights(m, args.sinks[query_head(args, item, r)], most, a, b);
    l = __fmaf_rn(l, a, 1.0f * b);
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      o[n][0] = __fmaf_rn(o[n][0], a, 0.0f * b);
      o[n][1] = __fmaf_rn(o[n][1], a, 0.0f * b);
    }
  }
  // Through shared memory, so that a warp writes neighbouring values.
  wait_for_copies<0>();
  __syncthreads();
  float* const outputs = reinterpret_cast<float*>(memory);
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
    *reinterpret_cast<float2*>(outputs + r * (D + 8) + 8 * n + lane % 4 * 2) = {o[n][0] / l, o[n][1] / l};
  }
  __syncthreads();
  for (int i = threadIdx.x; i < item.n_rows * D; i += kSpanThreads) {
    write_output(args, item, i / D, i % D, outputs[i / D * (D + 8) + i % D]);
  }
}

}  // namespace

void walk_span_attention(const AttentionArgs& args, cudaStream_t stream) {
  with_span_shape(args, [&]<int kDtype, int D>() {
    constexpr std::size_t kBytes = SpanShape<kDtype, D>::kBytes;
    static_assert(kBytes >= kWalkRows * (D + 8) * sizeof(float));
    allow_shared(walk_kernel<kDtype, D>, kBytes, "attention");
    launch_after("attention", walk_kernel<kDtype, D>, static_cast<unsigned>(args.n_items), kSpanThreads, kBytes, stream,
                 args);
  });
}

}  // namespace kv::cuda
