// Arithmetic every kernel shares. Compiled with -fmad=false: only an explicit __fmaf_rn fuses, so that a product has the
// same bits in every kernel that computes it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "abi/kvasir_abi.h"

namespace kv::cuda {

// Every kernel of a step is launched while the one before it still runs (launch_after in launch.h). Before it touches
// anything another kernel wrote or still reads it waits here; what never changes, weights, may be read earlier.
__device__ inline void wait_for_previous() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
// From here on the next kernel may take whatever room is left.
__device__ inline void let_next_begin() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
__device__ inline void follow_previous() {
  let_next_begin();
  wait_for_previous();
}

// Has the second-level cache fetch `bytes`, a multiple of 16.
__device__ inline void ask_ahead(const void* from, int bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes));
}

// e^x, the CPU backend's definition (native/cpu/kernels/exponential.h), operation by operation.
__device__ inline float exponential(float x) {
  const float magic = 0x1.8p23f;
  const float shifted = __fmaf_rn(x, 0x1.715476p0f, magic);
  const float n = shifted - magic;
  float r = __fmaf_rn(n, -0x1.62e43p-1f, x);
  r = __fmaf_rn(n, 0x1.05c61p-29f, r);
  float p = 1.0f / 5040.0f;
  p = __fmaf_rn(p, r, 1.0f / 720.0f);
  p = __fmaf_rn(p, r, 1.0f / 120.0f);
  p = __fmaf_rn(p, r, 1.0f / 24.0f);
  p = __fmaf_rn(p, r, 1.0f / 6.0f);
  p = __fmaf_rn(p, r, 0.5f);
  p = __fmaf_rn(p, r, 1.0f);
  p = __fmaf_rn(p, r, 1.0f);
  const int exponent = __float_as_int(shifted) - __float_as_int(magic);
  const int first = exponent >> 1;
  const int second = exponent - first;
  const float scaled = (p * __int_as_float((first + 127) << 23)) * __int_as_float((second + 127) << 23);
  if (x < -87.336f) return 0.0f;
  if (x > 88.722f) return __int_as_float(0x7f800000);
  return scaled;
}

__device__ inline float soft_cap(float x, float cap) {
  const float e = exponential(x * (2.0f / cap));
  return cap - (2.0f * cap) / (e + 1.0f);
}

__device__ inline float half_bits_to_float(std::uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ inline float bf16_bits_to_float(std::uint16_t bits) {
  return __uint_as_float(static_cast<std::uint32_t>(bits) << 16);
}

// Half of an E8M0 scale: 2^(e - 128), a subnormal for e < 2.
__device__ inline float e8m0_half(std::uint32_t e) {
  return __uint_as_float(e < 2 ? 0x00200000u << e : (e - 1) << 23);
}

// Sum over a warp by a butterfly: every lane gets the same bits.
__device__ inline float warp_sum(float value) {
  for (int mask = 16; mask > 0; mask /= 2) value = value + __shfl_xor_sync(0xffffffffu, value, mask);
  return value;
}
__device__ inline float warp_max(float value) {
  for (int mask = 16; mask > 0; mask /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, mask));
  return value;
}
__device__ inline int warp_sum(int value) {
  for (int mask = 16; mask > 0; mask /= 2) value += __shfl_xor_sync(0xffffffffu, value, mask);
  return value;
}

// Sum over a block in a fixed tree; `shared` holds 32 floats. Every thread gets the result.
__device__ inline float block_sum(float value, float* shared) {
  value = warp_sum(value);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = (blockDim.x + 31) / 32;
  __syncthreads();
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  value = lane < warps ? shared[lane] : 0.0f;
  return warp_sum(value);
}

__device__ inline float block_max(float value, float* shared) {
  value = warp_max(value);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = (blockDim.x + 31) / 32;
  __syncthreads();
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  return warp_max(shared[lane < warps ? lane : 0]);
}

// Values of the KV pool.
template <int kDtype>
struct PoolValue;
template <>
struct PoolValue<KV_F32> {
  using Type = float;
  __device__ static float to_float(Type v) { return v; }
  __device__ static Type from_float(float v) { return v; }
};
template <>
struct PoolValue<KV_F16> {
  using Type = std::uint16_t;
  __device__ static float to_float(Type v) { return half_bits_to_float(v); }
  __device__ static Type from_float(float v) { return __half_as_ushort(__float2half_rn(v)); }
};
template <>
struct PoolValue<KV_BF16> {
  using Type = std::uint16_t;
  __device__ static float to_float(Type v) { return bf16_bits_to_float(v); }
  __device__ static Type from_float(float v) { return __bfloat16_as_ushort(__float2bfloat16_rn(v)); }
};

}  // namespace kv::cuda
