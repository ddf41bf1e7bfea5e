// The gated activations of feed-forward layers; formulas as in the CPU backend's activation.cpp.
#pragma once

#include "cuda/kernels/arithmetic.cuh"

namespace kv::cuda {

__device__ inline float combine(int kind, float gate, float up) {
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

}  // namespace kv::cuda
