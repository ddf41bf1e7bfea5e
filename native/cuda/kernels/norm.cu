// rms_norm: y = (x * inv) * w with inv = 1 / sqrt(mean(x^2) + epsilon), after the residual's own norm where a family has
// one, and y's f16 form for the product that follows, scaled by the bound sqrt(n) * max |w|. One block a token, four
// neighbouring columns a thread.
//
// Few threads, so that a block of them fits beside the products before and behind. The sum of squares: thread i of 256 adds
// x[k]^2 for k = 4i .. 4i + 3 modulo 1024 in ascending k by fma, then a fixed tree.
#include "cuda/kernels/half_input.cuh"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"

namespace kv::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kPass = 4 * kThreads;  // columns

__device__ float inverse_of(float squares, int n, float epsilon, float* shared) {
  const float mean = block_sum(squares, shared) / static_cast<float>(n);
  return 1.0f / __fsqrt_rn(mean + epsilon);
}

// Columns i .. i + 3 of a row of n; zeros past its end.
__device__ float4 read_four(const float* row, int i, int n) {
  if (n % 4 == 0) return i < n ? *reinterpret_cast<const float4*>(row + i) : float4{};
  return {i < n ? row[i] : 0.0f, i + 1 < n ? row[i + 1] : 0.0f, i + 2 < n ? row[i + 2] : 0.0f, i + 3 < n ? row[i + 3] : 0.0f};
}
__device__ void write_four(float* row, int i, int n, float4 v) {
  if (n % 4 == 0) {
    if (i < n) *reinterpret_cast<float4*>(row + i) = v;
    return;
  }
  if (i < n) row[i] = v.x;
  if (i + 1 < n) row[i + 1] = v.y;
  if (i + 2 < n) row[i + 2] = v.z;
  if (i + 3 < n) row[i + 3] = v.w;
}
__device__ float add_squares(float sum, float4 v) {
  return __fmaf_rn(v.w, v.w, __fmaf_rn(v.z, v.z, __fmaf_rn(v.y, v.y, __fmaf_rn(v.x, v.x, sum))));
}

__device__ float largest(float most, float4 v) {
  return fmaxf(fmaxf(most, fmaxf(fabsf(v.x), fabsf(v.y))), fmaxf(fabsf(v.z), fabsf(v.w)));
}

// kHeld: passes over a row whose values stay in registers; 0: the row is wider and read again from memory.
template <int kHeld>
__global__ void __launch_bounds__(kThreads) norm_kernel(NormArgs args) {
  __shared__ float shared[32];
  let_next_begin();
  const std::int64_t token = blockIdx.x;
  const int n = args.hidden, first = 4 * threadIdx.x;
  const int pairs = pairs_of(n), width = args.halves.codes == nullptr ? n : pairs * kPairColumns;
  float4 weight[kHeld > 0 ? kHeld : 1];
  float widest = 0.0f;
  if constexpr (kHeld > 0) {
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      weight[j] = read_four(args.weight, first + j * kPass, n);
      widest = largest(widest, weight[j]);
    }
  } else {
    for (int i = first; i < n; i += kPass) widest = largest(widest, read_four(args.weight, i, n));
  }
  InputScale scale{1.0f, 1.0f};
  if (args.halves.codes != nullptr) scale = scale_below(block_max(widest, shared) * __fsqrt_rn(static_cast<float>(n)));
  wait_for_previous();
  if (args.halves.codes != nullptr && static_cast<int>(threadIdx.x) < segments_of(pairs)) {
    *input_scale(args.halves, token, threadIdx.x) = scale.scale;
  }
  float* x = args.x + (args.rows == nullptr ? token : args.rows[token]) * n;
  if (args.joined != nullptr) {
    const float* joined = args.joined + (args.rows == nullptr ? token : args.rows[token]) * n;
    float squares = 0.0f;
    for (int i = first; i < n; i += kPass) squares = add_squares(squares, read_four(joined, i, n));
    const float inverse = inverse_of(squares, n, args.epsilon, shared);
    for (int i = first; i < n; i += kPass) {
      const float4 v = read_four(joined, i, n), w = read_four(args.join_norm, i, n);
      float4 sum = read_four(x, i, n);
      sum.x = sum.x + (v.x * inverse) * w.x;
      sum.y = sum.y + (v.y * inverse) * w.y;
      sum.z = sum.z + (v.z * inverse) * w.z;
      sum.w = sum.w + (v.w * inverse) * w.w;
      write_four(x, i, n, sum);
    }
    __syncthreads();
  }
  const auto emit = [&](int i, float4 v, float4 w, float inverse) {
    const float y[4] = {(v.x * inverse) * w.x, (v.y * inverse) * w.y, (v.z * inverse) * w.z, (v.w * inverse) * w.w};
    if (args.y != nullptr) write_four(args.y + token * n, i, n, {y[0], y[1], y[2], y[3]});
    if (args.halves.codes != nullptr) put_codes(args.halves, token, pairs, i, y, scale.inverse);
  };
  float squares = 0.0f;
  if constexpr (kHeld > 0) {
    float4 held[kHeld];
#pragma unroll
    for (int j = 0; j < kHeld; ++j) held[j] = read_four(x, first + j * kPass, n);
#pragma unroll
    for (int j = 0; j < kHeld; ++j) squares = add_squares(squares, held[j]);
    const float inverse = inverse_of(squares, n, args.epsilon, shared);
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      if (first + j * kPass < width) emit(first + j * kPass, held[j], weight[j], inverse);
    }
  } else {
    for (int i = first; i < n; i += kPass) squares = add_squares(squares, read_four(x, i, n));
    const float inverse = inverse_of(squares, n, args.epsilon, shared);
    for (int i = first; i < width; i += kPass) emit(i, read_four(x, i, n), read_four(args.weight, i, n), inverse);
  }
}

}  // namespace

void rms_norm(const NormArgs& args, cudaStream_t stream) {
  const int passes = (args.hidden + kPass - 1) / kPass;
  const auto kernel = passes <= 2   ? norm_kernel<2>
                      : passes <= 4 ? norm_kernel<4>
                      : passes <= 8 ? norm_kernel<8>
                                    : norm_kernel<0>;
  launch_after("rms_norm", kernel, static_cast<unsigned>(args.tokens), kThreads, 0, stream, args);
}

}  // namespace kv::cuda
