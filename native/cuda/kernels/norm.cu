// rms_norm: y = (x * inv) * w with inv = 1 / sqrt(mean(x^2) + epsilon), after the residual's own norm where a family has
// one, and the 8-bit form of y for the product that follows. One block a token.
//
// The sum of squares: thread i of 1024 adds x[k]^2 for k = i mod 1024 in ascending k by fma, then a fixed tree.
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"
#include "cuda/kernels/quantize.cuh"

namespace kv::cuda {

namespace {

constexpr int kThreads = 1024;

__device__ float inverse_of(float squares, int n, float epsilon, float* shared) {
  const float mean = block_sum(squares, shared) / static_cast<float>(n);
  return 1.0f / __fsqrt_rn(mean + epsilon);
}

// A token's row: kHeld values a thread stay in registers, 0: the row is wider and read again from memory.
template <int kHeld>
__global__ void __launch_bounds__(kThreads, 1) norm_kernel(NormArgs args) {
  __shared__ float shared[32];
  const std::int64_t token = blockIdx.x;
  const int n = args.hidden, t = threadIdx.x;
  const int width = args.codes == nullptr ? n : args.pairs * 64;
  float weight[kHeld > 0 ? kHeld : 1];
  if constexpr (kHeld > 0) {
#pragma unroll
    for (int j = 0; j < kHeld; ++j) weight[j] = t + j * kThreads < n ? args.weight[t + j * kThreads] : 0.0f;
  }
  follow_previous();
  float* x = args.x + (args.rows == nullptr ? token : args.rows[token]) * n;
  if (args.joined != nullptr) {
    const float* joined = args.joined + (args.rows == nullptr ? token : args.rows[token]) * n;
    float squares = 0.0f;
    for (int i = t; i < n; i += kThreads) squares = __fmaf_rn(joined[i], joined[i], squares);
    const float inverse = inverse_of(squares, n, args.epsilon, shared);
    for (int i = t; i < n; i += kThreads) x[i] = x[i] + (joined[i] * inverse) * args.join_norm[i];
    __syncthreads();
  }
  const auto emit = [&](int i, float y) {
    if (args.y != nullptr && i < n) args.y[token * n + i] = y;
    if (args.codes != nullptr) {
      quantize_group(y, args.codes + token * width + i / 32 * 32, args.groups + token * (width / 32) + i / 32);
    }
  };
  float squares = 0.0f;
  if constexpr (kHeld > 0) {
    float held[kHeld];
#pragma unroll
    for (int j = 0; j < kHeld; ++j) held[j] = t + j * kThreads < n ? x[t + j * kThreads] : 0.0f;
#pragma unroll
    for (int j = 0; j < kHeld; ++j) squares = __fmaf_rn(held[j], held[j], squares);
    const float inverse = inverse_of(squares, n, args.epsilon, shared);
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      if (t + j * kThreads < width) emit(t + j * kThreads, (held[j] * inverse) * weight[j]);
    }
  } else {
    for (int i = t; i < n; i += kThreads) squares = __fmaf_rn(x[i], x[i], squares);
    const float inverse = inverse_of(squares, n, args.epsilon, shared);
    for (int i = t; i < width; i += kThreads) emit(i, i < n ? (x[i] * inverse) * args.weight[i] : 0.0f);
  }
}

}  // namespace

void rms_norm(const NormArgs& args, cudaStream_t stream) {
  const auto kernel = args.pairs * 64 <= 4 * kThreads   ? norm_kernel<4>
                      : args.pairs * 64 <= 8 * kThreads ? norm_kernel<8>
                                                        : norm_kernel<0>;
  launch_after("rms_norm", kernel, static_cast<unsigned>(args.tokens), kThreads, 0, stream, args);
}

}  // namespace kv::cuda
