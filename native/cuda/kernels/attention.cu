// attention: query rows of one KV head against the paged pool; here an item walks its blocks, four spans at a time. The
// definition is in attention.cuh.
#include "cuda/kernels/attention.cuh"

namespace kv::cuda {

namespace {

constexpr int kThreads = kAttentionThreads;
constexpr int kAhead = 8;  // tokens of V a thread has on their way at a time
constexpr int kPairLanes = 64;  // pairs of dimensions a span's threads cover at a time

// Layout of a block's shared memory.
struct Shared {
  float* q;       // (kRows, Dq) rows padded to 4
  float* scores;  // (kRows, 256)
  float* spans;   // (4, kRows, D) outputs of the block's spans
  float* running; // (kRows, D)
  float* m;       // (4, kRows) of the spans; a merge puts its weights a and b in their place
  float* l;
  float* run_m;   // (kRows)
  float* run_l;
  int* begins;    // (kRows) visible tokens of the sequence
  int* ends;
};

__host__ __device__ inline int padded(int head_dim) { return (head_dim + 3) / 4 * 4; }

template <int kRows>
__host__ __device__ inline std::size_t shared_floats(int head_dim) {
  return static_cast<std::size_t>(kRows) * (padded(head_dim) + kBlockTokens + 5 * head_dim + 12);
}

template <int kRows>
__device__ inline Shared carve(float* memory, int head_dim) {
  Shared s;
  s.q = memory;
  s.scores = s.q + kRows * padded(head_dim);
  s.spans = s.scores + kRows * kBlockTokens;
  s.running = s.spans + 4 * kRows * head_dim;
  s.m = s.running + kRows * head_dim;
  s.l = s.m + 4 * kRows;
  s.run_m = s.l + 4 * kRows;
  s.run_l = s.run_m + kRows;
  s.begins = reinterpret_cast<int*>(s.run_l + kRows);
  s.ends = s.begins + kRows;
  return s;
}

// States of all rows over the spans of one block into s.m, s.l and s.spans.
template <int kRows, typename Pool, bool kAligned>
__device__ void attend_block(const AttentionArgs& args, const Shared& s, const typename Pool::Type* keys,
                             const typename Pool::Type* values, int first_token, int n_rows) {
  using Reader = PoolReader<Pool, kAligned>;
  const int D = args.head_dim, Dq = padded(D), t = threadIdx.x;
  // Tokens any row sees.
  int low = kBlockTokens, high = 0;
  for (int r = 0; r < n_rows; ++r) {
    low = min(low, max(s.begins[r] - first_token, 0));
    high = max(high, min(s.ends[r] - first_token, kBlockTokens));
  }
  if (t >= low && t < high) {
    const typename Pool::Type* key = keys + std::int64_t{t} * D;
    for (int r0 = 0; r0 < n_rows; r0 += 8) {
      float acc[8] = {};
      int d = 0;
      if constexpr (kAligned) {
#pragma unroll 8
        for (; d + 8 <= D; d += 8) {
          float k[8];
          Reader::eight(key + d, k);
#pragma unroll
          for (int r = 0; r < 8; ++r) {
            const float4* q = reinterpret_cast<const float4*>(s.q + (r0 + r) * Dq + d);
            const float4 a = q[0], b = q[1];
            acc[r] = __fmaf_rn(a.x, k[0], acc[r]);
            acc[r] = __fmaf_rn(a.y, k[1], acc[r]);
            acc[r] = __fmaf_rn(a.z, k[2], acc[r]);
            acc[r] = __fmaf_rn(a.w, k[3], acc[r]);
            acc[r] = __fmaf_rn(b.x, k[4], acc[r]);
            acc[r] = __fmaf_rn(b.y, k[5], acc[r]);
            acc[r] = __fmaf_rn(b.z, k[6], acc[r]);
            acc[r] = __fmaf_rn(b.w, k[7], acc[r]);
          }
        }
      }
      for (; d < D; ++d) {
        const float k = Pool::to_float(key[d]);
#pragma unroll
        for (int r = 0; r < 8; ++r) acc[r] = __fmaf_rn(s.q[(r0 + r) * Dq + d], k, acc[r]);
      }
#pragma unroll
      for (int r = 0; r < 8; ++r) {
        float score = acc[r] * args.scale;
        if (args.softcap > 0) score = soft_cap(score, args.softcap);
        s.scores[(r0 + r) * kBlockTokens + t] = score;
      }
    }
  }
  __syncthreads();
  const int lane = t % 32;
  for (int at = t / 32; at < n_rows * kSpansPerBlock; at += kThreads / 32) {
    const int r = at / kSpansPerBlock, span = at % kSpansPerBlock, origin = first_token + span * kSpanTokens;
    float* row = s.scores + r * kBlockTokens + span * kSpanTokens;
    const int begin = s.begins[r] - origin, end = s.ends[r] - origin;
    const bool sees[2] = {lane >= begin && lane < end, lane + 32 >= begin && lane + 32 < end};
    const float score[2] = {sees[0] ? row[lane] : kLowest, sees[1] ? row[lane + 32] : kLowest};
    const float most = warp_max(fmaxf(score[0], score[1]));
    const float p[2] = {sees[0] ? exponential(score[0] - most) : 0.0f, sees[1] ? exponential(score[1] - most) : 0.0f};
    row[lane] = sees[0] ? p[0] : kUnseen;
    row[lane + 32] = sees[1] ? p[1] : kUnseen;
    const float sum = warp_sum(p[0] + p[1]);
    if (lane == 0) {
      s.m[span * kRows + r] = most;
      s.l[span * kRows + r] = sum;
    }
  }
  __syncthreads();
  const int span = t / kPairLanes;
  for (int d = 2 * (t % kPairLanes); d < D; d += 2 * kPairLanes) {
    float acc[kRows][2] = {};
    const int stop = min(high, (span + 1) * kSpanTokens);
    const int start = max(low, span * kSpanTokens) / kAhead * kAhead;
    const bool second = d + 1 < D;
    // Whole groups of tokens: what the slots of those outside a row's range hold is not added.
    for (int i = start; i < stop; i += kAhead) {
      float2 v[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) v[j] = Reader::two(values + std::int64_t{i + j} * D + d, second);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int j = 0; j < kAhead; j += 4) {
          const float4 four = *reinterpret_cast<const float4*>(s.scores + r * kBlockTokens + i + j);
          const float p[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
          for (int n = 0; n < 4; ++n) {
            const float first = __fmaf_rn(p[n], v[j + n].x, acc[r][0]);
            const float other = __fmaf_rn(p[n], v[j + n].y, acc[r][1]);
            acc[r][0] = p[n] != kUnseen ? first : acc[r][0];
            acc[r][1] = p[n] != kUnseen ? other : acc[r][1];
          }
        }
      }
    }
    for (int r = 0; r < n_rows; ++r) {
      s.spans[(span * kRows + r) * D + d] = acc[r][0];
      if (second) s.spans[(span * kRows + r) * D + d + 1] = acc[r][1];
    }
  }
  __syncthreads();
}

// Loads the item's queries and ranges; returns the first and last block any row sees.
template <int kRows>
__device__ RowRange load_rows(const AttentionArgs& args, const AttentionItem& item, const Shared& s) {
  const int D = args.head_dim, Dq = padded(D), group = args.n_heads / args.n_kv_heads;
  const int first = args.cu_seqlens[item.sequence];
  for (int at = threadIdx.x; at < kRows * Dq; at += kThreads) {
    const int r = at / Dq, d = at % Dq;
    float q = 0.0f;
    if (r < item.n_rows && d < D) {
      const int row = item.first_row + r;
      q = args.q[(std::int64_t{first + row / group} * args.n_heads + item.kv_head * group + row % group) * D + d];
    }
    s.q[at] = q;
  }
  for (int r = threadIdx.x; r < item.n_rows; r += kThreads) {
    const RowRange range = visible(args, args.positions[first + (item.first_row + r) / group]);
    s.begins[r] = range.begin;
    s.ends[r] = range.end;
    s.run_m[r] = kLowest;
    s.run_l[r] = 0.0f;
  }
  for (int i = threadIdx.x; i < item.n_rows * D; i += kThreads) s.running[i] = 0.0f;
  __syncthreads();
  int begin = 0x7fffffff, end = 0;
  for (int r = 0; r < item.n_rows; ++r) {
    begin = min(begin, s.begins[r]);
    end = max(end, s.ends[r]);
  }
  return {begin / kBlockTokens, (end + kBlockTokens - 1) / kBlockTokens};
}

// An item walks its blocks in ascending order.
template <int kRows, typename Pool, bool kAligned>
__global__ void __launch_bounds__(kThreads) walk_kernel(AttentionArgs args) {
  extern __shared__ float memory[];
  follow_previous();
  const AttentionItem item = args.items[blockIdx.x];
  const int D = args.head_dim;
  const Shared s = carve<kRows>(memory, D);
  const RowRange blocks = load_rows<kRows>(args, item, s);
  for (int block = blocks.begin; block < blocks.end; ++block) {
    const BlockPointers<Pool> at = find_block<Pool>(args, item, block);
    const int first = block * kBlockTokens;
    attend_block<kRows, Pool, kAligned>(args, s, at.keys, at.values, first, item.n_rows);
    // Each row's weights of the merges, in place of what they come from; a span the row does not see keeps what is there.
    for (int r = threadIdx.x; r < item.n_rows; r += kThreads) {
      float m = s.run_m[r], l = s.run_l[r];
      for (int span = 0; span < kSpansPerBlock; ++span) {
        const int origin = first + span * kSpanTokens, at = span * kRows + r;
        float a = 1.0f, b = -1.0f;
        if (s.begins[r] < origin + kSpanTokens && s.ends[r] > origin) {
          float most;
          merge_weights(m, s.m[at], most, a, b);
          l = __fmaf_rn(l, a, s.l[at] * b);
          m = most;
        }
        s.m[at] = a;
        s.l[at] = b;
      }
      s.run_m[r] = m;
      s.run_l[r] = l;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < item.n_rows * D; i += kThreads) {
      const int r = i / D;
      float o = s.running[i];
      for (int span = 0; span < kSpansPerBlock; ++span) {
        const float a = s.m[span * kRows + r], b = s.l[span * kRows + r];
        if (b >= 0.0f || b != b) o = __fmaf_rn(o, a, s.spans[span * kRows * D + i] * b);
      }
      s.running[i] = o;
    }
    __syncthreads();
  }
  const int group = args.n_heads / args.n_kv_heads;
  for (int i = threadIdx.x; i < item.n_rows * D; i += kThreads) {
    const int r = i / D;
    float o = s.running[i], l = s.run_l[r];
    if (args.sinks != nullptr) {
      float most, a, b;
      merge_weights(s.run_m[r], args.sinks[item.kv_head * group + (item.first_row + r) % group], most, a, b);
      l = __fmaf_rn(l, a, 1.0f * b);
      o = __fmaf_rn(o, a, 0.0f * b);
    }
    write_output(args, item, r, i % D, o / l);
  }
}

template <int kRows, typename Pool>
void launch_walk(const AttentionArgs& args, cudaStream_t stream) {
  const std::size_t bytes = shared_floats<kRows>(args.head_dim) * sizeof(float);
  const auto kernel = args.head_dim % 8 == 0 ? walk_kernel<kRows, Pool, true> : walk_kernel<kRows, Pool, false>;
  allow_shared(kernel, bytes);
  launch_after("attention", kernel, static_cast<unsigned>(args.n_items), kThreads, bytes, stream, args);
}

template <typename Pool>
void launch_dtype(const AttentionArgs& args, cudaStream_t stream) {
  if (args.rows_per_item == kManyRows) return launch_walk<kManyRows, Pool>(args, stream);
  launch_walk<kFewRows, Pool>(args, stream);
}

}  // namespace

void attention(const AttentionArgs& args, cudaStream_t stream) {
  if (args.n_splits > 0) return split_attention(args, stream);
  if (args.dtype == KV_F16) return launch_dtype<PoolValue<KV_F16>>(args, stream);
  if (args.dtype == KV_BF16) return launch_dtype<PoolValue<KV_BF16>>(args, stream);
  launch_dtype<PoolValue<KV_F32>>(args, stream);
}

}  // namespace kv::cuda
