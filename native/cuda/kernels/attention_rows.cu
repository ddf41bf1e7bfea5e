// Attention in float32, for what the matrix units do not take: F32 pools and heads of any other size. A block of threads
// takes up to 8 rows of one KV head, a warp to each, over spans of 64 tokens, whose keys and then values lie in shared
// memory as floats. Of a span:
//
//   s(r,t) = (fma over d ascending, from 0, of q(r,d) * k(t,d)) * scale        softcap: c * tanh(s / c)
//   m(r) = max of s over the row's tokens of the span, p = e^(s - m)
//   l(r) = lane j of 32 adds p(j) and p(j + 32) to 0, then the warp's butterfly
//   o(r,d) = fma over t ascending, from 0, of p(r,t) * v(t,d)
// A quantized value is scale * code, or fma(code, scale, minimum), in float32. Tokens outside a row's range are never
// multiplied into its output, since stale slots may hold anything.
#include "cuda/kernels/attention.cuh"

namespace kv::cuda {

namespace {

constexpr int kThreads = 32 * kRowItemRows;

// Value d of a record.
template <int kDtype>
__device__ inline float stored_value(const std::uint8_t* record, int d, int D) {
  if constexpr (kDtype == KV_Q8 || kDtype == KV_Q4) {
    const int group = D < 64 ? D : 64, groups = D / group, g = d / group, i = d % group, half = group / 2;
    const int code_bytes = kDtype == KV_Q8 ? D : D / 2;
    const std::uint16_t* headers = reinterpret_cast<const std::uint16_t*>(record + code_bytes);
    const float scale = half_bits_to_float(headers[g]);
    if constexpr (kDtype == KV_Q8) return scale * static_cast<float>(reinterpret_cast<const std::int8_t*>(record)[d]);
    const int byte = record[g * half + i % half];
    return __fmaf_rn(static_cast<float>(i < half ? byte & 15 : byte >> 4), scale, half_bits_to_float(headers[groups + g]));
  } else {
    using Pool = PoolValue<kDtype>;
    return Pool::to_float(reinterpret_cast<const typename Pool::Type*>(record)[d]);
  }
}

// kSplit: blockIdx.y is the span, and its states are merged by another kernel; else every span in turn, merged here.
template <int kDtype, bool kSplit>
__global__ void __launch_bounds__(kThreads) row_kernel(AttentionArgs args, int record_bytes) {
  extern __shared__ float shared[];
  __shared__ float scores[kRowItemRows][kRowSpan];
  follow_previous();
  const AttentionItem item = args.items[blockIdx.x];
  const int D = args.head_dim, stride = D | 1;  // odd, so that neighbouring tokens lie in other banks
  float* const q = shared;                         // (kRowItemRows, D)
  float* const running = q + kRowItemRows * D;     // (kRowItemRows, D)
  float* const tile = running + kRowItemRows * D;  // (kRowSpan, stride)
  const RowRange range = visible(args, item);
  int span = range.begin / kRowSpan, last = (range.end + kRowSpan - 1) / kRowSpan;
  if constexpr (kSplit) {
    if (static_cast<int>(blockIdx.y) < span || static_cast<int>(blockIdx.y) >= last) return;
    span = static_cast<int>(blockIdx.y);
    last = span + 1;
  }
  const int lane = threadIdx.x % 32, r = threadIdx.x / 32;
  const bool is_row = r < item.n_rows;
  const RowRange row_range = is_row ? visible_row(args, item, r) : RowRange{0, 0};
  for (int d = lane; d < D; d += 32) {
    q[r * D + d] = is_row ? args.q[output_row(args, item, r) * D + d] : 0.0f;
    running[r * D + d] = 0.0f;
  }
  float m = kLowest, l = 0.0f;
  for (; span < last; ++span) {
    const int origin = span * kRowSpan;
    const int low = max(range.begin - origin, 0), high = min(range.end - origin, kRowSpan);
    const std::uint8_t* keys = find_record(args, item, block_of(args, item, origin), origin, record_bytes);
    const auto load = [&](const std::uint8_t* records) {
      for (int token = low + r; token < high; token += kRowItemRows) {
        for (int d = lane; d < D; d += 32) {
          tile[token * stride + d] = stored_value<kDtype>(records + std::int64_t{token} * record_bytes, d, D);
        }
      }
    };
    load(keys);
    __syncthreads();
    const int begin = max(row_range.begin - origin, 0), end = min(row_range.end - origin, kRowSpan);
    const bool sees_any = begin < end;
    float most = kLowest, sum = 0.0f;
    if (sees_any) {
      float s[2] = {0.0f, 0.0f};
      // A token nobody sees has no key in the tile; what is computed of it is not used.
      for (int d = 0; d < D; ++d) {
        s[0] = __fmaf_rn(q[r * D + d], tile[lane * stride + d], s[0]);
        s[1] = __fmaf_rn(q[r * D + d], tile[(lane + 32) * stride + d], s[1]);
      }
      bool sees[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        s[i] = s[i] * args.scale;
        if (args.softcap > 0) s[i] = soft_cap(s[i], args.softcap);
        sees[i] = lane + 32 * i >= begin && lane + 32 * i < end;
      }
      most = warp_max(fmaxf(sees[0] ? s[0] : kLowest, sees[1] ? s[1] : kLowest));
      float p[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        p[i] = sees[i] ? exponential(s[i] - most) : 0.0f;
        scores[r][lane + 32 * i] = p[i];
      }
      sum = warp_sum(p[0] + p[1]);
    }
    __syncthreads();
    load(keys + args.value_offset);
    __syncthreads();
    if (sees_any) {
      float now = most, keep = 0.0f, add = 1.0f;
      float* state = nullptr;
      if constexpr (kSplit) {
        state = state_of(args, item, span, r);
        if (lane == 0) {
          state[0] = most;
          state[1] = sum;
        }
      } else {
        merge_weights(m, most, now, keep, add);
        l = __fmaf_rn(l, keep, sum * add);
        m = now;
      }
      for (int d = lane; d < D; d += 32) {
        float acc = 0.0f;
        for (int t = begin; t < end; ++t) acc = __fmaf_rn(scores[r][t], tile[t * stride + d], acc);
        if constexpr (kSplit) {
          state[4 + d] = acc;
        } else {
          running[r * D + d] = __fmaf_rn(running[r * D + d], keep, acc * add);
        }
      }
    }
    __syncthreads();
  }
  if (kSplit || !is_row) return;
  float a = 1.0f, b = 0.0f;
  if (args.sinks != nullptr) {
    float most;
    merge_weights(m, args.sinks[query_head(args, item, r)], most, a, b);
    l = __fmaf_rn(l, a, 1.0f * b);
  }
  for (int d = lane; d < D; d += 32) {
    float o = running[r * D + d];
    if (args.sinks != nullptr) o = __fmaf_rn(o, a, 0.0f * b);
    write_output(args, item, r, d, o / l);
  }
}

template <int kDtype>
void launch(const AttentionArgs& args, cudaStream_t stream) {
  const int D = args.head_dim;
  const auto record_bytes = static_cast<int>(kv_record_bytes(static_cast<kv_dtype>(kDtype), static_cast<std::uint32_t>(D)));
  const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(2 * kRowItemRows * D + kRowSpan * (D | 1));
  const bool splits = args.n_splits > 0;
  const auto kernel = splits ? row_kernel<kDtype, true> : row_kernel<kDtype, false>;
  allow_shared(kernel, bytes, "attention");
  launch_after("attention", kernel,
               dim3(static_cast<unsigned>(args.n_items), splits ? static_cast<unsigned>(args.n_splits) : 1u), kThreads,
               bytes, stream, args, record_bytes);
}

}  // namespace

void row_attention(const AttentionArgs& args, cudaStream_t stream) {
  switch (args.dtype) {
    case KV_F16: return launch<KV_F16>(args, stream);
    case KV_BF16: return launch<KV_BF16>(args, stream);
    case KV_Q8: return launch<KV_Q8>(args, stream);
    case KV_Q4: return launch<KV_Q4>(args, stream);
    default: launch<KV_F32>(args, stream);
  }
}

}  // namespace kv::cuda
