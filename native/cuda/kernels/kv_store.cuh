// How a head's values become a record of the KV pool (host/kv_format.h): the CPU backend's definitions
// (native/cpu/kernels/rotate.cpp, kv_write_quantized.cpp), operation by operation, so that both write the same bytes.
#pragma once

#include "cuda/kernels/arithmetic.cuh"

namespace kv::cuda {

// The Walsh-Hadamard transform of each run of `block` of n values in shared memory, times factor. Every thread of the
// block calls it, each with up to kValues values; begins and ends with a barrier.
//   each run of up to 16: y(i) = sum over j ascending, from 0, of +-x(j); then for half = 16, 32 .. block/2:
//   (a, b) -> (a + b, a - b) over pairs `half` apart; then y * factor
template <int kThreads, int kValues>
__device__ inline void rotate_shared(float* values, int n, int block, float factor) {
  float y[kValues];
  const int few = block < 16 ? block : 16;
  const auto store = [&] {
    __syncthreads();
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      const int i = v * kThreads + static_cast<int>(threadIdx.x);
      if (i < n) values[i] = y[v];
    }
    __syncthreads();
  };
  __syncthreads();
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    const int i = v * kThreads + static_cast<int>(threadIdx.x);
    if (i >= n) continue;
    const float* run = values + i / few * few;
    float sum = 0.0f;
    for (int j = 0; j < few; ++j) sum = (__popc(i % few & j) & 1) == 0 ? sum + run[j] : sum - run[j];
    y[v] = block == few ? sum * factor : sum;
  }
  store();
  for (int half = 16; half < block; half *= 2) {
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      const int i = v * kThreads + static_cast<int>(threadIdx.x);
      if (i >= n) continue;
      const bool is_second = (i & half) != 0;
      const float other = values[i ^ half];
      y[v] = is_second ? other - values[i] : values[i] + other;
      if (2 * half == block) y[v] = y[v] * factor;
    }
    store();
  }
}

// One group of `n` <= 64 values to codes, scale and minimum of a record, by one warp.
//   Q8   scale = f16(max|x| / 127)                                  code = round_half_even(x / scale), within +-127
//   Q4   minimum = f16(min x), scale = f16((max x - minimum) / 15)  code = round_half_even((x - minimum) / scale), 0 to 15
// Codes are 0 where the stored scale is. A group that holds what f16 or float32 does not gets codes 0 and NaN for both.
template <bool kFourBits>
__device__ inline void store_group(const float* x, int n, std::uint8_t* codes, std::uint16_t* scale_at,
                                   std::uint16_t* minimum_at) {
  constexpr std::uint16_t kNan = 0x7e00;
  const int lane = threadIdx.x % 32;
  float most = -INFINITY, negated = -INFINITY;
  unsigned bits = 0;
  for (int i = lane; i < n; i += 32) {
    most = fmaxf(most, x[i]);
    negated = fmaxf(negated, 0.0f - x[i]);
    // Magnitudes compare as integers in the same order, with infinity and NaN above all numbers.
    bits = max(bits, __float_as_uint(x[i]) & 0x7fffffffu);
  }
  most = warp_max(most);
  // A difference and not a sign: the least of zeros is +0.
  const float least = 0.0f - warp_max(negated);
  const float magnitude = __uint_as_float(__reduce_max_sync(0xffffffffu, bits));
  using Half = PoolValue<KV_F16>;
  std::uint16_t minimum_bits = 0;
  float minimum = 0.0f;
  if constexpr (kFourBits) {
    minimum_bits = Half::from_float(least);
    minimum = Half::to_float(minimum_bits);
  }
  std::uint16_t scale_bits = Half::from_float(kFourBits ? (most - minimum) / 15.0f : magnitude / 127.0f);
  const float scale = Half::to_float(scale_bits);
  const bool holds = isfinite(magnitude) && isfinite(minimum) && isfinite(scale);
  const bool coded = holds && scale > 0.0f;
  if (!holds) {
    scale_bits = kNan;
    minimum_bits = kFourBits ? kNan : std::uint16_t{0};
  } else if (!coded) {
    scale_bits = 0;
  }
  const auto code_of = [&](int i) {
    if (!coded) return 0;
    const float steps = (x[i] - minimum) / scale;
    return __float2int_rn(fminf(fmaxf(steps, kFourBits ? 0.0f : -127.0f), kFourBits ? 15.0f : 127.0f));
  };
  if constexpr (kFourBits) {
    for (int i = lane; i < n / 2; i += 32) codes[i] = static_cast<std::uint8_t>(code_of(i) | code_of(i + n / 2) << 4);
  } else {
    for (int i = lane; i < n; i += 32) codes[i] = static_cast<std::uint8_t>(code_of(i));
  }
  if (lane == 0) {
    *scale_at = scale_bits;
    if constexpr (kFourBits) *minimum_at = minimum_bits;
  }
}

// A head of D values in shared memory to its record, by a block of kThreads.
template <int kDtype, int kThreads>
__device__ inline void store_record(const float* head, int D, std::uint8_t* record) {
  if constexpr (kDtype == KV_Q8 || kDtype == KV_Q4) {
    const int group = D < 64 ? D : 64, groups = D / group;
    const int group_bytes = kDtype == KV_Q8 ? group : group / 2;
    std::uint16_t* headers = reinterpret_cast<std::uint16_t*>(record + groups * group_bytes);
    for (int g = threadIdx.x / 32; g < groups; g += kThreads / 32) {
      store_group<kDtype == KV_Q4>(head + g * group, group, record + g * group_bytes, headers + g, headers + groups + g);
    }
  } else {
    using Pool = PoolValue<kDtype>;
    typename Pool::Type* to = reinterpret_cast<typename Pool::Type*>(record);
    for (int d = threadIdx.x; d < D; d += kThreads) to[d] = Pool::from_float(head[d]);
  }
}

}  // namespace kv::cuda
