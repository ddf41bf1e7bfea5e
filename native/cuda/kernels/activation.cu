// activation: the gated activations of feed-forward layers and the 8-bit form of their output; formulas as in the CPU
// backend's activation.cpp. One warp a group of 32.
#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"
#include "cuda/kernels/quantize.cuh"

namespace kv::cuda {

namespace {

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
