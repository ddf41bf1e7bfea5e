// half: what the fast mode's library products read and leave undone: weights and activations in 16 bits, and biases.
// Memory bound: 16 bytes a store.
#include "cuda/kernels/half.cuh"

#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/dispatch.h"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"

namespace kv::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kPairThreads = 128;

// A thread a pair of 64 columns, whose 16-byte chunks meet in shared memory so that stores are contiguous; chunks are
// swizzled against bank conflicts. Values are the format's own float32 ones, rounded once.
template <typename Format>
__global__ void __launch_bounds__(kPairThreads) weights_kernel(DeviceMatrix w, uint4* out) {
  __shared__ uint4 chunks[kPairThreads * 8];
  follow_previous();
  const std::int64_t first = std::int64_t{blockIdx.x} * kPairThreads, total = std::int64_t{w.rows} * w.pairs;
  const std::int64_t at = first + threadIdx.x < total ? first + threadIdx.x : total - 1;
  const std::int64_t row = at / w.pairs;
  const int pair = static_cast<int>(at % w.pairs);
  std::uint32_t codes[Format::kCodeWords], high[4], words[16];
  float s[4], m[2] = {0.0f, 0.0f};
  Format::load_codes(w, row, pair, codes, high);
  Format::unpack(codes, high, words);
  read_scales<Format>(w, row, pair, s, m);
#pragma unroll
  for (int chunk = 0; chunk < 8; ++chunk) {
    const int group = chunk / 4;
    const float scale = Format::kKind == ScaleKind::halves ? s[chunk / 2] : s[group];
    float values[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int code = static_cast<std::int8_t>(words[2 * chunk + i / 4] >> (8 * (i % 4)));
      values[i] = static_cast<float>(code - Format::kZero) * scale;
      if constexpr (Format::kKind == ScaleKind::minimum) values[i] = values[i] + m[group];
    }
    chunks[threadIdx.x * 8 + (chunk ^ (threadIdx.x & 7))] = pack_eight<false>(values);
  }
  __syncthreads();
  const int row_chunks = w.cols / 8;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int n = i * kPairThreads + threadIdx.x, owner = n / 8, chunk = n % 8;
    const std::int64_t of = first + owner;
    if (of >= total) break;
    const std::int64_t to_row = of / w.pairs;
    const int to_chunk = static_cast<int>(of % w.pairs) * 8 + chunk;
    if (to_chunk < row_chunks) out[to_row * row_chunks + to_chunk] = chunks[owner * 8 + (chunk ^ (owner & 7))];
  }
}

template <bool kBf16>
__global__ void __launch_bounds__(kThreads) values_kernel(HalfArgs args) {
  follow_previous();
  const std::int64_t at = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (8 * at >= args.count) return;
  const float4* from = reinterpret_cast<const float4*>(args.x) + 2 * at;
  const float4 a = from[0], b = from[1];
  float values[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
  if (args.up != nullptr) {
    const float4* other = reinterpret_cast<const float4*>(args.up) + 2 * at;
    const float4 c = other[0], d = other[1];
    const float up[8] = {c.x, c.y, c.z, c.w, d.x, d.y, d.z, d.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = combine(args.kind, values[i], up[i]);
  }
  reinterpret_cast<uint4*>(args.out)[at] = pack_eight<kBf16>(values);
}

__global__ void __launch_bounds__(kThreads) bias_kernel(float* y, std::int64_t ldy, const float* bias, int rows) {
  follow_previous();
  const int row = blockIdx.x * kThreads + threadIdx.x;
  if (row >= rows) return;
  float* at = y + blockIdx.y * ldy + row;
  *at = *at + bias[row];
}

}  // namespace

void half_weights(const DeviceMatrix& w, std::uint16_t* out, cudaStream_t stream) {
  const unsigned blocks = ceil_div(std::int64_t{w.rows} * w.pairs, kPairThreads);
  with_quantized_format(w.dtype, [&]<typename Format>() {
    launch_after("half weights", weights_kernel<Format>, blocks, kPairThreads, 0, stream, w, reinterpret_cast<uint4*>(out));
  });
}

void half_values(const HalfArgs& args, cudaStream_t stream) {
  const unsigned blocks = ceil_div(args.count, 8 * kThreads);
  launch_after("half values", args.is_bf16 ? values_kernel<true> : values_kernel<false>, blocks, kThreads, 0, stream,
               args);
}

void join_bias(float* y, std::int64_t ldy, const float* bias, std::int32_t rows, std::int32_t tokens,
               cudaStream_t stream) {
  const dim3 grid(ceil_div(rows, kThreads), static_cast<unsigned>(tokens));
  launch_after("bias", bias_kernel, grid, kThreads, 0, stream, y, ldy, bias, rows);
}

}  // namespace kv::cuda
