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
constexpr int kStripThreads = 32 * kStripRows;

struct AsTheyAre {
  __device__ static uint4 packed(const DeviceMatrix& w, std::int64_t row, int chunk) { return read_eight(w, row, chunk); }
};
template <typename Format>
struct Rounded {
  __device__ static uint4 packed(const DeviceMatrix& w, std::int64_t row, int chunk) {
    float values[8];
    LoadQuantized<Format>::eight(w, row, chunk, values);
    return pack_eight<false>(values);
  }
};

// A block of threads one strip's 256 columns, a thread eight of a row: a warp's stores are contiguous, both rows of a word are
// read by one block. Values are the format's own float32 ones, rounded once; floats are as they were.
template <typename Loader>
__global__ void __launch_bounds__(kStripThreads) weights_kernel(DeviceMatrix w, uint4* out) {
  follow_previous();
  const int chunk = static_cast<int>(blockIdx.x) * 32 + threadIdx.x % 32;
  const std::int64_t row = std::int64_t{blockIdx.y} * kStripRows + threadIdx.x / 32;
  if (8 * chunk >= w.cols || row >= w.rows) return;
  out[row * (w.cols / 8) + chunk] = Loader::packed(w, row, chunk);
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
  const dim3 grid(ceil_div(w.cols, 256), ceil_div(w.rows, kStripRows));
  const auto launch = [&]<typename Loader>() {
    launch_after("half weights", weights_kernel<Loader>, grid, kStripThreads, 0, stream, w, reinterpret_cast<uint4*>(out));
  };
  if (w.dtype == KV_F16 || w.dtype == KV_BF16) return launch.template operator()<AsTheyAre>();
  with_quantized_format(w.dtype, [&]<typename Format>() { launch.template operator()<Rounded<Format>>(); });
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
