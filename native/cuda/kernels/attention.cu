// attention: query rows of one KV head against the paged pool, the context split at blocks of 256 tokens.
//
//   s(r,t) = (fma over d ascending, from 0, of q(r,d) * k(t,d)) * scale        softcap: c * tanh(s / c)
//   m(r) = max of s over the row's tokens, p = e^(s - m)
//   l(r) = lane j of 32 adds p(t) for t = j mod 32 ascending, then the warp's butterfly
//   o(r,d) = four chains of 64 tokens, each fma over t ascending from 0 of p(r,t) * v(t,d), then (0 + 1) + (2 + 3)
//   merge of blocks in ascending order: m' = max(m, mb), a = e^(m - m'), b = e^(mb - m'), l' = fma(l, a, lb * b),
//   o' = fma(o, a, ob * b); a sink is one more block with l = 1 and o = 0; output o / l
// Whether an item walks its blocks or the device shares them out and merges afterwards never shows in the bits. Tokens
// outside a row's range are never multiplied into its output, since stale slots may hold anything.
#include "cuda/kernels/arithmetic.cuh"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"
#include "host/block_tokens.h"

namespace kv::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kAhead = 8;  // tokens of V a thread has on their way at a time
constexpr int kPairLanes = 64;  // pairs of dimensions a chain's threads cover at a time
constexpr float kLowest = -INFINITY;

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

// Layout of a block's shared memory.
struct Shared {
  float* q;       // (kRows, Dq) rows padded to 4
  float* scores;  // (kRows, 256)
  float* chains;  // (4, kRows, D)
  float* running; // (kRows, D)
  float* m;       // (kRows) of the block
  float* l;
  float* run_m;
  float* run_l;
  int* begins;    // (kRows) visible tokens of the sequence
  int* ends;
};

__host__ __device__ inline int padded(int head_dim) { return (head_dim + 3) / 4 * 4; }

template <int kRows>
__host__ __device__ inline std::size_t shared_floats(int head_dim) {
  return static_cast<std::size_t>(kRows) * (padded(head_dim) + kBlockTokens + 5 * head_dim + 6);
}

template <int kRows>
__device__ inline Shared carve(float* memory, int head_dim) {
  Shared s;
  s.q = memory;
  s.scores = s.q + kRows * padded(head_dim);
  s.chains = s.scores + kRows * kBlockTokens;
  s.running = s.chains + 4 * kRows * head_dim;
  s.m = s.running + kRows * head_dim;
  s.l = s.m + kRows;
  s.run_m = s.l + kRows;
  s.run_l = s.run_m + kRows;
  s.begins = reinterpret_cast<int*>(s.run_l + kRows);
  s.ends = s.begins + kRows;
  return s;
}

// State of all rows over one block into s.m, s.l and chain 0 of s.chains.
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
  for (int r = t / 32; r < n_rows; r += kThreads / 32) {
    float* row = s.scores + r * kBlockTokens;
    const int begin = max(s.begins[r] - first_token, 0), end = min(s.ends[r] - first_token, kBlockTokens);
    float most = kLowest;
    for (int i = lane; i < kBlockTokens; i += 32) {
      if (i >= begin && i < end) most = fmaxf(most, row[i]);
    }
    most = warp_max(most);
    float sum = 0.0f;
    for (int i = lane; i < kBlockTokens; i += 32) {
      const float p = i >= begin && i < end ? exponential(row[i] - most) : 0.0f;
      row[i] = p;
      sum = sum + p;
    }
    sum = warp_sum(sum);
    if (lane == 0) {
      s.m[r] = most;
      s.l[r] = sum;
    }
  }
  __syncthreads();
  const int chain = t / kPairLanes;
  for (int d = 2 * (t % kPairLanes); d < D; d += 2 * kPairLanes) {
    float acc[kRows][2] = {};
    const int stop = min(high, (chain + 1) * 64);
    const int start = max(low, chain * 64) / kAhead * kAhead;
    const bool second = d + 1 < D;
    // Whole groups of tokens: those outside a row's range have p = 0, and what their slots hold is not added.
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
            acc[r][0] = p[n] != 0.0f ? first : acc[r][0];
            acc[r][1] = p[n] != 0.0f ? other : acc[r][1];
          }
        }
      }
    }
    for (int r = 0; r < n_rows; ++r) {
      s.chains[(chain * kRows + r) * D + d] = acc[r][0];
      if (second) s.chains[(chain * kRows + r) * D + d + 1] = acc[r][1];
    }
  }
  __syncthreads();
  const int span = kRows * D;
  for (int at = t; at < n_rows * D; at += kThreads) {
    s.chains[at] = (s.chains[at] + s.chains[span + at]) + (s.chains[2 * span + at] + s.chains[3 * span + at]);
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
    s.run_l[r] = -1.0f;  // nothing merged yet
  }
  __syncthreads();
  int begin = 0x7fffffff, end = 0;
  for (int r = 0; r < item.n_rows; ++r) {
    begin = min(begin, s.begins[r]);
    end = max(end, s.ends[r]);
  }
  return {begin / kBlockTokens, (end + kBlockTokens - 1) / kBlockTokens};
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

// An item walks its blocks in ascending order.
template <int kRows, typename Pool, bool kAligned>
__global__ void __launch_bounds__(kThreads) walk_kernel(AttentionArgs args) {
  extern __shared__ float memory[];
  const AttentionItem item = args.items[blockIdx.x];
  const int D = args.head_dim;
  const Shared s = carve<kRows>(memory, D);
  const RowRange blocks = load_rows<kRows>(args, item, s);
  for (int block = blocks.begin; block < blocks.end; ++block) {
    const BlockPointers<Pool> at = find_block<Pool>(args, item, block);
    const int first = block * kBlockTokens;
    attend_block<kRows, Pool, kAligned>(args, s, at.keys, at.values, first, item.n_rows);
    for (int i = threadIdx.x; i < item.n_rows * D; i += kThreads) {
      const int r = i / D;
      if (s.begins[r] >= first + kBlockTokens || s.ends[r] <= first) continue;
      if (s.run_l[r] < 0.0f) {
        s.running[i] = s.chains[i];
      } else {
        float most, a, b;
        merge_weights(s.run_m[r], s.m[r], most, a, b);
        s.running[i] = __fmaf_rn(s.running[i], a, s.chains[i] * b);
      }
    }
    __syncthreads();
    for (int r = threadIdx.x; r < item.n_rows; r += kThreads) {
      if (s.begins[r] >= first + kBlockTokens || s.ends[r] <= first) continue;
      if (s.run_l[r] < 0.0f) {
        s.run_m[r] = s.m[r];
        s.run_l[r] = s.l[r];
      } else {
        float most, a, b;
        merge_weights(s.run_m[r], s.m[r], most, a, b);
        s.run_l[r] = __fmaf_rn(s.run_l[r], a, s.l[r] * b);
        s.run_m[r] = most;
      }
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
    args.out[output_row(args, item, r) * D + i % D] = o / l;
  }
}

// One block of one item; the state goes to args.states.
template <typename Pool, bool kAligned>
__global__ void __launch_bounds__(kThreads) split_kernel(AttentionArgs args) {
  extern __shared__ float memory[];
  const AttentionItem item = args.items[blockIdx.x];
  const int D = args.head_dim, block = blockIdx.y;
  const Shared s = carve<kFewRows>(memory, D);
  const RowRange blocks = load_rows<kFewRows>(args, item, s);
  if (block < blocks.begin || block >= blocks.end) return;
  const BlockPointers<Pool> at = find_block<Pool>(args, item, block);
  attend_block<kFewRows, Pool, kAligned>(args, s, at.keys, at.values, block * kBlockTokens, item.n_rows);
  float* state = args.states + (std::int64_t{blockIdx.x} * args.n_splits + block) * kFewRows * (D + 2);
  for (int i = threadIdx.x; i < item.n_rows * D; i += kThreads) state[i / D * (D + 2) + 2 + i % D] = s.chains[i];
  for (int r = threadIdx.x; r < item.n_rows; r += kThreads) {
    state[r * (D + 2)] = s.m[r];
    state[r * (D + 2) + 1] = s.l[r];
  }
}

// Merges the blocks of one row of one item.
__global__ void __launch_bounds__(128) merge_kernel(AttentionArgs args) {
  const AttentionItem item = args.items[blockIdx.x];
  const int r = blockIdx.y, D = args.head_dim;
  if (r >= item.n_rows) return;
  const int group = args.n_heads / args.n_kv_heads;
  const RowRange range = visible(args, args.positions[args.cu_seqlens[item.sequence] + (item.first_row + r) / group]);
  const int begin = range.begin / kBlockTokens, end = (range.end + kBlockTokens - 1) / kBlockTokens;
  const float* states = args.states + (std::int64_t{blockIdx.x} * args.n_splits * kFewRows + r) * (D + 2);
  const std::int64_t stride = std::int64_t{kFewRows} * (D + 2);
  for (int d = threadIdx.x; d < D; d += 128) {
    const float* first = states + begin * stride;
    float m = first[0], l = first[1], o = first[2 + d];
    for (int block = begin + 1; block < end; ++block) {
      const float* state = states + block * stride;
      float most, a, b;
      merge_weights(m, state[0], most, a, b);
      l = __fmaf_rn(l, a, state[1] * b);
      o = __fmaf_rn(o, a, state[2 + d] * b);
      m = most;
    }
    if (args.sinks != nullptr) {
      float most, a, b;
      merge_weights(m, args.sinks[item.kv_head * group + (item.first_row + r) % group], most, a, b);
      l = __fmaf_rn(l, a, 1.0f * b);
      o = __fmaf_rn(o, a, 0.0f * b);
    }
    args.out[output_row(args, item, r) * D + d] = o / l;
  }
}

template <typename Kernel>
void launch(Kernel kernel, dim3 grid, std::size_t floats, const AttentionArgs& args, cudaStream_t stream) {
  const std::size_t bytes = floats * sizeof(float);
  if (bytes > 48 * 1024) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
               "attention");
  }
  kernel<<<grid, kThreads, bytes, stream>>>(args);
  check_launch("attention");
}

template <typename Pool, bool kAligned>
void launch_shape(const AttentionArgs& args, cudaStream_t stream) {
  const unsigned items = static_cast<unsigned>(args.n_items);
  if (args.n_splits > 0) {
    launch(split_kernel<Pool, kAligned>, dim3(items, static_cast<unsigned>(args.n_splits)),
           shared_floats<kFewRows>(args.head_dim), args, stream);
    merge_kernel<<<dim3(items, kFewRows), 128, 0, stream>>>(args);
    check_launch("attention merge");
  } else if (args.rows_per_item == kManyRows) {
    launch(walk_kernel<kManyRows, Pool, kAligned>, dim3(items), shared_floats<kManyRows>(args.head_dim), args, stream);
  } else {
    launch(walk_kernel<kFewRows, Pool, kAligned>, dim3(items), shared_floats<kFewRows>(args.head_dim), args, stream);
  }
}

template <typename Pool>
void launch_dtype(const AttentionArgs& args, cudaStream_t stream) {
  if (args.head_dim % 8 == 0) return launch_shape<Pool, true>(args, stream);
  launch_shape<Pool, false>(args, stream);
}

}  // namespace

void attention(const AttentionArgs& args, cudaStream_t stream) {
  if (args.dtype == KV_F16) return launch_dtype<PoolValue<KV_F16>>(args, stream);
  if (args.dtype == KV_BF16) return launch_dtype<PoolValue<KV_BF16>>(args, stream);
  launch_dtype<PoolValue<KV_F32>>(args, stream);
}

}  // namespace kv::cuda
