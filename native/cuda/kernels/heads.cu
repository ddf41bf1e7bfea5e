// heads: norm and rotation of each query and key head, and the write of K and V into the paged pool, rounded half to even.
// One block a head of one token. Pool layout of a layer in a block: K (Hkv, Bk, D), then V (Hkv, Bk, D), which is also the
// canonical payload's order.
#include "cuda/kernels/arithmetic.cuh"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"
#include "host/block_tokens.h"

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
__global__ void __launch_bounds__(kThreads) heads_kernel(HeadsArgs args) {
  using Pool = PoolValue<kDtype>;
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
  for (int d = threadIdx.x; d < D; d += kThreads) head[d] = from[d];
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
  if (is_query) {
    for (int d = threadIdx.x; d < D; d += kThreads) args.q[at + d] = head[d];
    return;
  }
  const std::int32_t slot = args.slots[token];
  if (slot < 0) return;
  typename Pool::Type* to = reinterpret_cast<typename Pool::Type*>(
      args.pool + (slot / kBlockTokens) * args.block_bytes + (is_value ? args.value_offset : 0));
  to += (std::int64_t{index} * kBlockTokens + slot % kBlockTokens) * D;
  for (int d = threadIdx.x; d < D; d += kThreads) to[d] = Pool::from_float(head[d]);
}

}  // namespace

void rope_tables(const RopeTableArgs& args, cudaStream_t stream) {
  launch_after("rope tables", rope_kernel, ceil_div(std::int64_t{args.tokens} * args.half, 128), 128, 0, stream, args);
}

void position_heads(const HeadsArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(args.tokens), static_cast<unsigned>(args.n_heads + 2 * args.n_kv_heads));
  const auto kernel = args.dtype == KV_F16    ? heads_kernel<KV_F16>
                      : args.dtype == KV_BF16 ? heads_kernel<KV_BF16>
                                              : heads_kernel<KV_F32>;
  launch_after("heads", kernel, grid, kThreads, 0, stream, args);
}

}  // namespace kv::cuda
