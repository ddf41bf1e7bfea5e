// heads: bias, norm and rotation of each query and key head, and the write of K and V into the paged pool, rounded half to
// even or quantized (kv_store.cuh). One block a head of one token, or, where heads are rotated whole, have no norm and go to
// a float pool, a thread for two runs of four dimensions that rotate together: the same arithmetic, fewer threads. Pool
// layout of a layer in a block: K (Hkv, Bk) records, then V, which is also the canonical payload's order.
#include "cuda/kernels/arithmetic.cuh"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/kv_store.cuh"
#include "cuda/kernels/launch.h"
#include "host/block_tokens.h"
#include "host/kv_format.h"

namespace kv::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kMaxHeadDim = 512;

__global__ void rope_kernel(RopeTableArgs args) {
  follow_previous();
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (at >= std::int64_t{args.tokens} * args.half) return;
  const double angle = static_cast<double>(args.positions[at / args.half]) * args.inverse_frequencies[at % args.half];
  args.cosines[at] = static_cast<float>(cos(angle) * args.attention_factor);
  args.sines[at] = static_cast<float>(sin(angle) * args.attention_factor);
}

template <int kDtype>
__global__ void __launch_bounds__(kThreads) heads_kernel(HeadsArgs args, KvRotation pool_rotation, int record_bytes) {
  __shared__ float head[kMaxHeadDim];
  __shared__ float shared[32];
  follow_previous();
  const std::int64_t token = blockIdx.x;
  const int D = args.head_dim;
  int index = blockIdx.y;  // query heads, then K's, then V's
  const bool is_query = index < args.n_heads;
  const bool is_value = index >= args.n_heads + args.n_kv_heads;
  if (!is_query) index -= is_value ? args.n_heads + args.n_kv_heads : args.n_heads;
  const int n_own = is_query ? args.n_heads : args.n_kv_heads;
  const std::int64_t at = (token * n_own + index) * D;
  const float* from = (is_query ? args.q : is_value ? args.v : args.k) + at;
  const float* bias = is_query ? args.q_bias : is_value ? args.v_bias : args.k_bias;
  for (int d = threadIdx.x; d < D; d += kThreads) head[d] = bias == nullptr ? from[d] : from[d] + bias[index * D + d];
  __syncthreads();
  const float* norm = is_value ? nullptr : is_query ? args.q_norm : args.k_norm;
  if (norm != nullptr) {
    float squares = 0.0f;
    for (int d = threadIdx.x; d < D; d += kThreads) squares = __fmaf_rn(head[d], head[d], squares);
    const float mean = block_sum(squares, shared) / static_cast<float>(D);
    const float inverse = 1.0f / __fsqrt_rn(mean + args.epsilon);
    for (int d = threadIdx.x; d < D; d += kThreads) head[d] = (head[d] * inverse) * norm[d];
    __syncthreads();
  }
  if (!is_value && args.cosines != nullptr) {
    const int half = args.rotary_dim / 2;
    for (int i = threadIdx.x; i < half; i += kThreads) {
      const int first = args.rope_style == KV_ROPE_INTERLEAVED ? 2 * i : i;
      const int second = args.rope_style == KV_ROPE_INTERLEAVED ? 2 * i + 1 : i + half;
      const float a = head[first], b = head[second];
      const float c = args.cosines[token * half + i], s = args.sines[token * half + i];
      head[first] = a * c - b * s;
      head[second] = b * c + a * s;
    }
    __syncthreads();
  }
  if constexpr (kDtype == KV_Q8 || kDtype == KV_Q4) {
    if (!is_value) {
      rotate_shared<kThreads, kMaxHeadDim / kThreads>(head, D, static_cast<int>(pool_rotation.block),
                                                      is_query ? pool_rotation.query_factor : pool_rotation.key_factor);
    }
  }
  if (is_query) {
    for (int d = threadIdx.x; d < D; d += kThreads) args.q[at + d] = head[d];
    return;
  }
  const std::int32_t slot = args.slots[token];
  if (slot < 0) return;
  store_record<kDtype, kThreads>(head, D,
                                 args.pool + (slot / kBlockTokens) * args.block_bytes + (is_value ? args.value_offset : 0) +
                                     (std::int64_t{index} * kBlockTokens + slot % kBlockTokens) * record_bytes);
}

// Four values of the pool in one store.
template <int kDtype>
__device__ inline void store_four(typename PoolValue<kDtype>::Type* to, const float* values) {
  using Pool = PoolValue<kDtype>;
  if constexpr (kDtype == KV_F32) {
    *reinterpret_cast<float4*>(to) = {values[0], values[1], values[2], values[3]};
  } else {
    std::uint32_t words[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      words[i] = static_cast<std::uint32_t>(Pool::from_float(values[2 * i])) |
                 static_cast<std::uint32_t>(Pool::from_float(values[2 * i + 1])) << 16;
    }
    *reinterpret_cast<uint2*>(to) = {words[0], words[1]};
  }
}

__device__ inline void load_four(const float* from, const float* bias, float* values) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  values[0] = four.x;
  values[1] = four.y;
  values[2] = four.z;
  values[3] = four.w;
  if (bias == nullptr) return;
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = values[i] + bias[i];
}

__device__ inline void rotate(const HeadsArgs& args, std::int64_t at, float& first, float& second) {
  const float a = first, b = second, c = args.cosines[at], s = args.sines[at];
  first = a * c - b * s;
  second = b * c + a * s;
}

template <int kDtype>
__global__ void __launch_bounds__(kThreads) whole_heads_kernel(HeadsArgs args) {
  using Pool = PoolValue<kDtype>;
  follow_previous();
  const int D = args.head_dim, units = D / 8, n_all = args.n_heads + 2 * args.n_kv_heads;
  const std::int64_t flat = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int unit = static_cast<int>(flat % units);
  int index = static_cast<int>(flat / units % n_all);
  const std::int64_t token = flat / units / n_all;
  if (token >= args.tokens) return;
  const bool is_query = index < args.n_heads, is_value = index >= args.n_heads + args.n_kv_heads;
  if (!is_query) index -= is_value ? args.n_heads + args.n_kv_heads : args.n_heads;
  const std::int64_t at = (token * (is_query ? args.n_heads : args.n_kv_heads) + index) * D;
  const float* from = (is_query ? args.q : is_value ? args.v : args.k) + at;
  const float* bias = is_query ? args.q_bias : is_value ? args.v_bias : args.k_bias;
  if (bias != nullptr) bias += index * D;
  const bool interleaved = args.rope_style == KV_ROPE_INTERLEAVED;
  const int first = interleaved ? 8 * unit : 4 * unit, second = interleaved ? first + 4 : first + D / 2;
  float x[8];
  load_four(from + first, bias == nullptr ? nullptr : bias + first, x);
  load_four(from + second, bias == nullptr ? nullptr : bias + second, x + 4);
  if (!is_value && args.cosines != nullptr) {
    const std::int64_t table = token * (D / 2) + 4 * unit;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (interleaved) {
        rotate(args, table + i, x[2 * i], x[2 * i + 1]);
      } else {
        rotate(args, table + i, x[i], x[4 + i]);
      }
    }
  }
  if (is_query) {
    *reinterpret_cast<float4*>(args.q + at + first) = {x[0], x[1], x[2], x[3]};
    *reinterpret_cast<float4*>(args.q + at + second) = {x[4], x[5], x[6], x[7]};
    return;
  }
  const std::int32_t slot = args.slots[token];
  if (slot < 0) return;
  typename Pool::Type* to = reinterpret_cast<typename Pool::Type*>(
      args.pool + (slot / kBlockTokens) * args.block_bytes + (is_value ? args.value_offset : 0));
  to += (std::int64_t{index} * kBlockTokens + slot % kBlockTokens) * D;
  store_four<kDtype>(to + first, x);
  store_four<kDtype>(to + second, x + 4);
}

}  // namespace

void rope_tables(const RopeTableArgs& args, cudaStream_t stream) {
  launch_after("rope tables", rope_kernel, ceil_div(std::int64_t{args.tokens} * args.half, 128), 128, 0, stream, args);
}

void position_heads(const HeadsArgs& args, cudaStream_t stream) {
  const auto dtype = static_cast<kv_dtype>(args.dtype);
  const auto head_dim = static_cast<std::uint32_t>(args.head_dim);
  const bool rotates_whole = args.cosines == nullptr || args.rotary_dim == args.head_dim;
  const bool is_plain = args.q_norm == nullptr && args.k_norm == nullptr && !is_quantized_kv(dtype);
  if (args.head_dim % 8 == 0 && rotates_whole && is_plain) {
    const std::int64_t threads =
        std::int64_t{args.tokens} * (args.n_heads + 2 * args.n_kv_heads) * (args.head_dim / 8);
    const auto kernel = args.dtype == KV_F16    ? whole_heads_kernel<KV_F16>
                        : args.dtype == KV_BF16 ? whole_heads_kernel<KV_BF16>
                                                : whole_heads_kernel<KV_F32>;
    return launch_after("heads", kernel, ceil_div(threads, kThreads), kThreads, 0, stream, args);
  }
  const dim3 grid(static_cast<unsigned>(args.tokens), static_cast<unsigned>(args.n_heads + 2 * args.n_kv_heads));
  const auto kernel = args.dtype == KV_F16    ? heads_kernel<KV_F16>
                      : args.dtype == KV_BF16 ? heads_kernel<KV_BF16>
                      : args.dtype == KV_Q8   ? heads_kernel<KV_Q8>
                      : args.dtype == KV_Q4   ? heads_kernel<KV_Q4>
                                              : heads_kernel<KV_F32>;
  launch_after("heads", kernel, grid, kThreads, 0, stream, args, kv_rotation(dtype, head_dim),
               static_cast<int>(kv_record_bytes(dtype, head_dim)));
}

}  // namespace kv::cuda
