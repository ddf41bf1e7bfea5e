// activation: the gated activations of feed-forward layers and the 8-bit form of their output; formulas as in the CPU
// backend's activation.cpp. One warp a group of 32.
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"
#include "cuda/kernels/quantize.cuh"

namespace kv::cuda {

namespace {

__device__ float combine(int kind, float gate, float up) {
  if (kind == KV_ACT_SILU) return (gate / (1.0f + exponential(0.0f - gate))) * up;
  if (kind == KV_ACT_GELU_TANH) {
    const float cubic = __fmaf_rn((gate * gate) * gate, 0.044715f, gate);
    return (gate / (1.0f + exponential(cubic * (-2.0f * 0.7978845608f)))) * up;
  }
  if (kind == KV_ACT_SWIGLU_OAI) {
    // Written so that a NaN stays one.
    const float g = gate > 7.0f ? 7.0f : gate;
    const float u = up > 7.0f ? 7.0f : up < -7.0f ? -7.0f : up;
    return (g / (1.0f + exponential(g * -1.702f))) * (u + 1.0f);
  }
  return gate;
}

__global__ void activation_kernel(ActivationArgs args) {
  follow_previous();
  const std::int64_t token = blockIdx.x;
  const int i = blockIdx.y * blockDim.x + threadIdx.x;
  const int width = args.codes == nullptr ? args.n : args.pairs * 64;
  if (i / 32 * 32 >= width) return;
  float value = 0.0f;
  if (i < args.n) {
    const std::int64_t at = token * args.n + i;
    value = combine(args.kind, args.gate[at], args.kind < 0 ? 0.0f : args.up[at]);
    if (args.out != nullptr) args.out[at] = value;
  }
  if (args.codes != nullptr) {
    quantize_group(value, args.codes + token * width + i / 32 * 32, args.groups + token * (width / 32) + i / 32);
  }
}

}  // namespace

void activation(const ActivationArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(args.tokens), ceil_div(args.pairs * 64, 256));
  launch_after("activation", activation_kernel, grid, 256, 0, stream, args);
}

}  // namespace kv::cuda
