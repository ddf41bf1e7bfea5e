// attention of items with few rows: every span of an item is a block of threads, whose states a second kernel merges. The
// definition is in attention.cuh.
//
// A span's keys and values are on their way to shared memory together before anything waits, so that a span costs one
// trip to memory. Four groups of threads take rows g and, of items
// with more than four rows, g + 4: one thread a token for the scores, one a pair of
// dimensions for the output.
#include "cuda/kernels/attention.cuh"

namespace kv::cuda {

namespace {

constexpr int kThreads = kAttentionThreads;
constexpr int kRowGroups = 4;
constexpr int kGroupThreads = kThreads / kRowGroups;
static_assert(kGroupThreads == kSpanTokens);
constexpr std::size_t kMaxStaged = 200 * 1024;

// Bytes from row to row of staged keys and values: 16 more than they take, so that neighbouring rows begin in other banks.
__host__ __device__ inline int staged_stride(int head_dim, int value_bytes) { return head_dim * value_bytes + 16; }
__host__ __device__ inline int padded_row(int head_dim) { return (head_dim + 3) / 4 * 4; }
std::size_t fixed_bytes(int head_dim) {
  return sizeof(float) * kFewRows * (static_cast<std::size_t>(padded_row(head_dim)) + kSpanTokens);
}
std::size_t staged_bytes(int head_dim, int value_bytes) {
  return 2 * kSpanTokens * static_cast<std::size_t>(staged_stride(head_dim, value_bytes));
}

__device__ inline void copy_async(void* to, const void* from) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
}

__device__ inline void copy_word_async(float* to, const float* from) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at), "l"(from) : "memory");
}

// Eight values from shared or global memory, 16-byte aligned.
template <typename Pool>
__device__ inline void eight_values(const std::uint8_t* p, float* out) {
  using Value = typename Pool::Type;
  uint4 raw[sizeof(Value) / 2];
#pragma unroll
  for (unsigned i = 0; i < sizeof(Value) / 2; ++i) raw[i] = *reinterpret_cast<const uint4*>(p + 16 * i);
  const Value* values = reinterpret_cast<const Value*>(raw);
#pragma unroll
  for (int i = 0; i < 8; ++i) out[i] = Pool::to_float(values[i]);
}

// Two dimensions of a thread's rows over tokens low .. high - 1, four at a time; those beside them are unseen by all rows.
// kWhole: every row sees them all.
template <typename Pool, int kGroupRows, bool kStaged, bool kWhole>
__device__ inline void add_values(float (*acc)[2], const float* weights, const std::uint8_t* values, std::int64_t stride,
                                  bool second, int low, int high) {
  using Value = typename Pool::Type;
#pragma unroll(kWhole ? 4 : 1)
  for (int i = low / 4 * 4; i < high; i += 4) {
    float v[4][2];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::uint8_t* at = values + (i + j) * stride;
      if constexpr (kStaged && sizeof(Value) == 2) {
        const std::uint32_t raw = *reinterpret_cast<const std::uint32_t*>(at);
        v[j][0] = Pool::to_float(static_cast<Value>(raw));
        v[j][1] = Pool::to_float(static_cast<Value>(raw >> 16));
      } else {
        v[j][0] = Pool::to_float(reinterpret_cast<const Value*>(at)[0]);
        v[j][1] = second ? Pool::to_float(reinterpret_cast<const Value*>(at)[1]) : 0.0f;
      }
    }
#pragma unroll
    for (int n = 0; n < kGroupRows; ++n) {
      const float4 four = *reinterpret_cast<const float4*>(weights + n * kRowGroups * kSpanTokens + i);
      const float p[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float one = __fmaf_rn(p[j], v[j][0], acc[n][0]), other = __fmaf_rn(p[j], v[j][1], acc[n][1]);
        acc[n][0] = kWhole || p[j] != kUnseen ? one : acc[n][0];
        acc[n][1] = kWhole || p[j] != kUnseen ? other : acc[n][1];
      }
    }
  }
}

// kStaged: rows are whole 16-byte pieces and pass through shared memory; else they are read where they lie.
template <typename Pool, int kGroupRows, bool kStaged>
__global__ void __launch_bounds__(kThreads) split_kernel(AttentionArgs args) {
  using Value = typename Pool::Type;
  extern __shared__ float4 aligned_memory[];
  float* memory = reinterpret_cast<float*>(aligned_memory);
  let_next_begin();
  const AttentionItem item = args.items[blockIdx.x];
  const int D = args.head_dim, t = threadIdx.x, group = args.n_heads / args.n_kv_heads;
  const int origin = static_cast<int>(blockIdx.y) * kSpanTokens;
  // Tokens of the span any row sees: rows' positions ascend.
  const int low = max(visible(args, item.low_position).begin - origin, 0);
  const int high = min(visible(args, item.high_position).end - origin, kSpanTokens);
  if (low >= high) return;
  const auto range_of = [&](int r) {
    return visible(args, args.positions[item.first_token + (item.first_row + r) / group]);
  };

  const int Dq = padded_row(D), row_bytes = D * static_cast<int>(sizeof(Value));
  float* q = memory;                       // (kFewRows, Dq)
  float* scores = q + kFewRows * Dq;       // (kFewRows, kSpanTokens)
  const std::int32_t id =
      args.block_tables[std::int64_t{item.sequence} * args.table_width + origin / kBlockTokens];
  const std::uint8_t* keys = args.pool + id * args.block_bytes +
                             (std::int64_t{item.kv_head} * kBlockTokens + origin % kBlockTokens) * row_bytes;
  const std::uint8_t* values = keys + args.value_offset;
  std::int64_t stride = row_bytes;
  if constexpr (kStaged) {
    stride = staged_stride(D, sizeof(Value));
    std::uint8_t* staged = reinterpret_cast<std::uint8_t*>(scores + kFewRows * kSpanTokens);
    const int pieces = row_bytes / 16;
    const auto stage = [&](const std::uint8_t* from, std::uint8_t* to, int begin, int end) {
      if (kThreads % pieces == 0) {
        const int piece = t % pieces * 16;
        for (int token = begin + t / pieces; token < end; token += kThreads / pieces) {
          copy_async(to + token * stride + piece, from + token * row_bytes + piece);
        }
        return;
      }
      for (int at = begin * pieces + t; at < end * pieces; at += kThreads) {
        copy_async(to + at / pieces * stride + at % pieces * 16, from + std::int64_t{at} * 16);
      }
    };
    // What earlier steps wrote does not wait for this one's keys and values.
    const int known = min(max(item.first_position - origin, low), high);
    std::uint8_t* staged_values = staged + kSpanTokens * stride;
    stage(keys, staged, low, known);
    stage(values, staged_values, low, known);
    wait_for_previous();
    stage(keys, staged, known, high);
    asm volatile("cp.async.commit_group;" ::: "memory");
    stage(values, staged_values, known, high);
    asm volatile("cp.async.commit_group;" ::: "memory");
    keys = staged;
    values = staged_values;
  } else {
    wait_for_previous();
  }
  for (int at = t; at < kFewRows * Dq; at += kThreads) {
    const int r = at / Dq, d = at % Dq;
    q[at] = r < item.n_rows && d < D ? args.q[output_row(args, item, r) * D + d] : 0.0f;
  }
  if constexpr (kStaged) asm volatile("cp.async.wait_group 1;" ::: "memory");
  __syncthreads();

  const int lane_in_group = t % kGroupThreads, g = t / kGroupThreads;
  if (g < item.n_rows && lane_in_group >= low && lane_in_group < high) {
    const std::uint8_t* key = keys + lane_in_group * stride;
    float acc[kGroupRows] = {};
    int d = 0;
    if (kStaged) {
#pragma unroll 4
      for (; d < D; d += 8) {
        float k[8];
        eight_values<Pool>(key + d * sizeof(Value), k);
#pragma unroll
        for (int i = 0; i < kGroupRows; ++i) {
          const float4* at = reinterpret_cast<const float4*>(q + (g + i * kRowGroups) * Dq + d);
          const float4 a = at[0], b = at[1];
          acc[i] = __fmaf_rn(a.x, k[0], acc[i]);
          acc[i] = __fmaf_rn(a.y, k[1], acc[i]);
          acc[i] = __fmaf_rn(a.z, k[2], acc[i]);
          acc[i] = __fmaf_rn(a.w, k[3], acc[i]);
          acc[i] = __fmaf_rn(b.x, k[4], acc[i]);
          acc[i] = __fmaf_rn(b.y, k[5], acc[i]);
          acc[i] = __fmaf_rn(b.z, k[6], acc[i]);
          acc[i] = __fmaf_rn(b.w, k[7], acc[i]);
        }
      }
    }
    for (; d < D; ++d) {
      const float k = Pool::to_float(reinterpret_cast<const Value*>(key)[d]);
#pragma unroll
      for (int i = 0; i < kGroupRows; ++i) acc[i] = __fmaf_rn(q[(g + i * kRowGroups) * Dq + d], k, acc[i]);
    }
#pragma unroll
    for (int i = 0; i < kGroupRows; ++i) {
      float score = acc[i] * args.scale;
      if (args.softcap > 0) score = soft_cap(score, args.softcap);
      scores[(g + i * kRowGroups) * kSpanTokens + lane_in_group] = score;
    }
  }
  __syncthreads();

  float* state = args.states + (std::int64_t{blockIdx.x} * args.n_splits + blockIdx.y) * kFewRows * (D + 2);
  const int lane = t % 32, r = t / 32;
  static_assert(kThreads / 32 == kFewRows);
  if (r < item.n_rows) {
    const RowRange range = range_of(r);
    const int begin = range.begin - origin, end = range.end - origin;
    float* row = scores + r * kSpanTokens;
    const bool sees[2] = {lane >= begin && lane < end, lane + 32 >= begin && lane + 32 < end};
    const float score[2] = {sees[0] ? row[lane] : kLowest, sees[1] ? row[lane + 32] : kLowest};
    const float most = warp_max(fmaxf(score[0], score[1]));
    const float p[2] = {sees[0] ? exponential(score[0] - most) : 0.0f, sees[1] ? exponential(score[1] - most) : 0.0f};
    row[lane] = sees[0] ? p[0] : kUnseen;
    row[lane + 32] = sees[1] ? p[1] : kUnseen;
    const float sum = warp_sum(p[0] + p[1]);
    if (lane == 0) {
      state[r * (D + 2)] = most;
      state[r * (D + 2) + 1] = sum;
    }
  }
  if constexpr (kStaged) asm volatile("cp.async.wait_group 0;" ::: "memory");
  __syncthreads();

  if (g >= item.n_rows) return;
  // Every row sees every token of most spans: nothing to leave out there.
  const bool whole = visible(args, item.high_position).begin <= origin &&
                     visible(args, item.low_position).end >= origin + kSpanTokens;
  for (int d = 2 * lane_in_group; d < D; d += 2 * kGroupThreads) {
    const bool second = d + 1 < D;
    float acc[kGroupRows][2] = {};
    const float* weights = scores + g * kSpanTokens;
    const std::uint8_t* from = values + d * static_cast<int>(sizeof(Value));
    if (whole) {
      add_values<Pool, kGroupRows, kStaged, true>(acc, weights, from, stride, second, 0, kSpanTokens);
    } else {
      add_values<Pool, kGroupRows, kStaged, false>(acc, weights, from, stride, second, low, high);
    }
#pragma unroll
    for (int n = 0; n < kGroupRows; ++n) {
      const int row = g + n * kRowGroups;
      if (row >= item.n_rows) continue;
      state[row * (D + 2) + 2 + d] = acc[n][0];
      if (second) state[row * (D + 2) + 3 + d] = acc[n][1];
    }
  }
}

constexpr int kMergeThreads = 128;
constexpr int kMergeAhead = 64;  // states of spans a thread has on their way at a time

// Merges the spans of one row of one item, kMergeThreads at a time: their weights depend on maxima alone, which a scan
// finds for all of them at once; then every thread goes through the spans for its dimension.
__global__ void __launch_bounds__(kMergeThreads) merge_kernel(AttentionArgs args) {
  __shared__ float weights[3][kMergeThreads];  // a, b, l
  __shared__ float warp_most[kMergeThreads / 32];
  __shared__ float states_ahead[kMergeAhead][kMergeThreads];
  let_next_begin();
  const AttentionItem item = args.items[blockIdx.x];
  const int r = blockIdx.y, D = args.head_dim, t = threadIdx.x, lane = t % 32, warp = t / 32;
  if (r >= item.n_rows) return;
  const int group = args.n_heads / args.n_kv_heads;
  const RowRange range = visible(args, args.positions[item.first_token + (item.first_row + r) / group]);
  wait_for_previous();
  const int begin = range.begin / kSpanTokens, end = (range.end + kSpanTokens - 1) / kSpanTokens;
  const int stride = kFewRows * (D + 2);
  const float* states = args.states + (std::int64_t{blockIdx.x} * args.n_splits * kFewRows + r) * (D + 2);
  constexpr int kDims = 4;  // head_dim up to 512
  float o[kDims] = {}, l = 0.0f, m = kLowest;
  for (int done = begin; done < end; done += kMergeThreads) {
    const int count = min(kMergeThreads, end - done);
    const float own = t < count ? states[std::int64_t{done + t} * stride] : kLowest;
    const float own_l = t < count ? states[std::int64_t{done + t} * stride + 1] : 0.0f;
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
    for (int i = 0; i < kMergeThreads / 32; ++i) m = fmaxf(m, warp_most[i]);
    __syncthreads();
    for (int i = 0; i < count; ++i) l = __fmaf_rn(l, weights[0][i], weights[2][i] * weights[1][i]);
#pragma unroll
    for (int j = 0; j < kDims; ++j) {
      const int d = t + j * kMergeThreads;
      if (d >= D) continue;
      const float* from = states + std::int64_t{done} * stride + 2 + d;
      // A thread's own column: nobody else reads it.
      for (int i = 0; i < count; i += kMergeAhead) {
        const int ahead = min(kMergeAhead, count - i);
#pragma unroll 8
        for (int n = 0; n < ahead; ++n) copy_word_async(&states_ahead[n][t], from + (i + n) * stride);
        asm volatile("cp.async.commit_group;\n\tcp.async.wait_group 0;" ::: "memory");
#pragma unroll 4
        for (int n = 0; n < ahead; ++n) {
          o[j] = __fmaf_rn(o[j], weights[0][i + n], states_ahead[n][t] * weights[1][i + n]);
        }
      }
    }
  }
  float a = 1.0f;
  if (args.sinks != nullptr) {
    float most, b;
    merge_weights(m, args.sinks[item.kv_head * group + (item.first_row + r) % group], most, a, b);
    l = __fmaf_rn(l, a, 1.0f * b);
    for (int j = 0; j < kDims; ++j) o[j] = __fmaf_rn(o[j], a, 0.0f * b);
  }
#pragma unroll
  for (int j = 0; j < kDims; ++j) {
    const int d = t + j * kMergeThreads;
    if (d < D) write_output(args, item, r, d, o[j] / l);
  }
}

template <typename Pool, int kGroupRows>
void launch_rows(const AttentionArgs& args, cudaStream_t stream) {
  constexpr int kValueBytes = sizeof(typename Pool::Type);
  const std::size_t staged = fixed_bytes(args.head_dim) + staged_bytes(args.head_dim, kValueBytes);
  const bool stages = args.head_dim % 8 == 0 && staged <= kMaxStaged;
  const auto kernel = stages ? split_kernel<Pool, kGroupRows, true> : split_kernel<Pool, kGroupRows, false>;
  const std::size_t bytes = stages ? staged : fixed_bytes(args.head_dim);
  allow_shared(kernel, bytes);
  const auto items = static_cast<unsigned>(args.n_items);
  launch_after("attention", kernel, dim3(items, static_cast<unsigned>(args.n_splits)), kThreads, bytes, stream, args);
  launch_after("attention merge", merge_kernel, dim3(items, kFewRows), kMergeThreads, 0, stream, args);
}

template <typename Pool>
void launch(const AttentionArgs& args, cudaStream_t stream) {
  if (args.rows_per_item <= kRowGroups) return launch_rows<Pool, 1>(args, stream);
  launch_rows<Pool, kFewRows / kRowGroups>(args, stream);
}

}  // namespace

void split_attention(const AttentionArgs& args, cudaStream_t stream) {
  if (args.dtype == KV_F16) return launch<PoolValue<KV_F16>>(args, stream);
  if (args.dtype == KV_BF16) return launch<PoolValue<KV_BF16>>(args, stream);
  launch<PoolValue<KV_F32>>(args, stream);
}

}  // namespace kv::cuda
