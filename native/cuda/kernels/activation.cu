// activation: the gated activations of feed-forward layers, as floats or as a product's f16 input; formulas as in the CPU
// backend's activation.cpp.
#include "cuda/kernels/activation.cuh"

#include "cuda/kernels/half_input.cuh"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"

namespace kv::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kSegmentThreads = 640;  // a segment of Qwen2.5-7B's in one go

__device__ float value_at(const ActivationArgs& args, std::int64_t at) {
  return combine(args.kind, args.gate[at], args.kind < 0 ? 0.0f : args.up[at]);
}

__global__ void __launch_bounds__(kThreads) float_kernel(ActivationArgs args) {
  follow_previous();
  const int i = blockIdx.y * kThreads + threadIdx.x;
  if (i >= args.n) return;
  const std::int64_t at = std::int64_t{blockIdx.x} * args.n + i;
  args.out[at] = value_at(args, at);
}

// A block of threads a token's segment, whose values wait in shared memory until their largest is known. A segment that holds
// a NaN or an infinity keeps them: its other values are what they would be without.
__global__ void __launch_bounds__(kSegmentThreads) half_kernel(ActivationArgs args) {
  extern __shared__ float values[];
  __shared__ float shared[32];
  follow_previous();
  const std::int64_t token = blockIdx.x;
  const int pairs = pairs_of(args.n), segment = blockIdx.y, n = gridDim.y, first = segment_begin(pairs, n, segment) * 256;
  const int width = segment_begin(pairs, n, segment + 1) * 256 - first;
  float most = 0.0f;
  for (int i = 4 * threadIdx.x; i < width; i += 4 * kSegmentThreads) {
    const int column = first + i;
    const std::int64_t at = token * args.n + column;
    float4 v{};
    if (args.n % 4 == 0 && column < args.n) {
      const float4 gate = *reinterpret_cast<const float4*>(args.gate + at);
      const float4 up = args.kind < 0 ? gate : *reinterpret_cast<const float4*>(args.up + at);
      v = {combine(args.kind, gate.x, up.x), combine(args.kind, gate.y, up.y), combine(args.kind, gate.z, up.z),
           combine(args.kind, gate.w, up.w)};
    } else if (column < args.n) {
      v.x = value_at(args, at);
      if (column + 1 < args.n) v.y = value_at(args, at + 1);
      if (column + 2 < args.n) v.z = value_at(args, at + 2);
      if (column + 3 < args.n) v.w = value_at(args, at + 3);
    }
    *reinterpret_cast<float4*>(values + i) = v;
    const auto take = [&](float x) {
      if (isfinite(x)) most = fmaxf(most, fabsf(x));
    };
    take(v.x);
    take(v.y);
    take(v.z);
    take(v.w);
  }
  const InputScale scale = args.unscaled != 0 ? InputScale{1.0f, 1.0f} : scale_below(block_max(most, shared));
  if (threadIdx.x == 0) *input_scale(args.halves, token, segment) = scale.scale;
  for (int i = 4 * threadIdx.x; i < width; i += 4 * kSegmentThreads) {
    put_codes(args.halves, token, pairs, first + i, values + i, scale.inverse);
  }
}

}  // namespace

void activation(const ActivationArgs& args, cudaStream_t stream) {
  const auto tokens = static_cast<unsigned>(args.tokens);
  if (args.halves.codes == nullptr) {
    launch_after("activation", float_kernel, dim3(tokens, ceil_div(args.n, kThreads)), kThreads, 0, stream, args);
    return;
  }
  const int pairs = pairs_of(args.n), segments = segments_of(pairs);
  const std::size_t bytes = ceil_div(pairs / kBlockPairs, segments) * std::size_t{256} * sizeof(float);
  allow_shared(half_kernel, bytes, "activation");
  launch_after("activation", half_kernel, dim3(tokens, static_cast<unsigned>(segments)), kSegmentThreads, bytes, stream, args);
}

}  // namespace kv::cuda
