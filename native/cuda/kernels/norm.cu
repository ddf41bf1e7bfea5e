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

__device__ float inverse_rms(const float* x, int n, float epsilon, float* shared) {
  float squares = 0.0f;
  for (int i = threadIdx.x; i < n; i += kThreads) squares = __fmaf_rn(x[i], x[i], squares);
  const float mean = block_sum(squares, shared) / static_cast<float>(n);
  return 1.0f / __fsqrt_rn(mean + epsilon);
}

__global__ void __launch_bounds__(kThreads) norm_kernel(NormArgs args) {
  __shared__ float shared[32];
  const std::int64_t token = blockIdx.x;
  const int n = args.hidden;
  float* x = args.x + (args.rows == nullptr ? token : args.rows[token]) * n;
  if (args.joined != nullptr) {
    const float* joined = args.joined + (args.rows == nullptr ? token : args.rows[token]) * n;
    const float inverse = inverse_rms(joined, n, args.epsilon, shared);
    for (int i = threadIdx.x; i < n; i += kThreads) x[i] = x[i] + (joined[i] * inverse) * args.join_norm[i];
    __syncthreads();
  }
  const float inverse = inverse_rms(x, n, args.epsilon, shared);
  const int width = args.codes == nullptr ? n : args.pairs * 64;
  for (int i = threadIdx.x; i < width; i += kThreads) {
    const float y = i < n ? (x[i] * inverse) * args.weight[i] : 0.0f;
    if (args.y != nullptr && i < n) args.y[token * n + i] = y;
    if (args.codes != nullptr) {
      quantize_group(y, args.codes + token * width + i / 32 * 32, args.groups + token * (width / 32) + i / 32);
    }
  }
}

}  // namespace

void rms_norm(const NormArgs& args, cudaStream_t stream) {
  norm_kernel<<<static_cast<unsigned>(args.tokens), kThreads, 0, stream>>>(args);
  check_launch("rms_norm");
}

}  // namespace kv::cuda
