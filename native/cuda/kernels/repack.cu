// repack: stored rows of a weight into the planes of device_matrix.h. One thread a pair; every stored bit is kept.
#include "common/formats/blocks.h"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"

namespace kv::cuda {

namespace {

// Code i of a block, unsigned (Q8_0: the byte).
__device__ unsigned code_of(const BlockQ8_0& b, int i) { return static_cast<std::uint8_t>(b.q[i]); }
__device__ unsigned nibble(const std::uint8_t* q, int i) { return i < 16 ? q[i] & 15u : q[i - 16] >> 4; }
__device__ unsigned fifth_bit(const std::uint8_t* h, int i) { return (h[i / 8] >> (i % 8)) & 1u; }
__device__ unsigned code_of(const BlockQ4_0& b, int i) { return nibble(b.q, i); }
__device__ unsigned code_of(const BlockQ4_1& b, int i) { return nibble(b.q, i); }
__device__ unsigned code_of(const BlockMxfp4& b, int i) { return nibble(b.q, i); }
__device__ unsigned code_of(const BlockQ5_0& b, int i) { return nibble(b.q, i) | fifth_bit(b.h, i) << 4; }
__device__ unsigned code_of(const BlockQ5_1& b, int i) { return nibble(b.q, i) | fifth_bit(b.h, i) << 4; }
__device__ unsigned code_of(const BlockQ4_K& b, int i) {
  return (b.q[32 * (i / 64) + i % 32] >> (4 * (i / 32 % 2))) & 15u;
}
__device__ unsigned code_of(const BlockQ5_K& b, int i) {
  return ((b.q[32 * (i / 64) + i % 32] >> (4 * (i / 32 % 2))) & 15u) | ((b.h[i % 32] >> (i / 32)) & 1u) << 4;
}
__device__ unsigned code_of(const BlockQ6_K& b, int i) {
  const int half = i / 128, a = i / 64 % 2, j = i % 64;
  return ((b.ql[64 * half + j] >> (4 * a)) & 15u) | ((b.h[32 * half + j % 32] >> (2 * (2 * a + j / 32))) & 3u) << 4;
}

// Scale bytes a group (32-value blocks) or a block of 256, copied as they are; offset in the stored block.
template <typename Block>
struct Layout;
template <> struct Layout<BlockQ8_0> { static constexpr int high = 0, scale_at = 0, scale_bytes = 2; };
template <> struct Layout<BlockQ4_0> { static constexpr int high = 0, scale_at = 0, scale_bytes = 2; };
template <> struct Layout<BlockQ4_1> { static constexpr int high = 0, scale_at = 0, scale_bytes = 4; };
template <> struct Layout<BlockQ5_0> { static constexpr int high = 8, scale_at = 0, scale_bytes = 2; };
template <> struct Layout<BlockQ5_1> { static constexpr int high = 8, scale_at = 0, scale_bytes = 4; };
template <> struct Layout<BlockMxfp4> { static constexpr int high = 0, scale_at = 0, scale_bytes = 1; };
template <> struct Layout<BlockQ4_K> { static constexpr int high = 0, scale_at = 0, scale_bytes = 16; };
template <> struct Layout<BlockQ5_K> { static constexpr int high = 8, scale_at = 0, scale_bytes = 16; };
template <> struct Layout<BlockQ6_K> { static constexpr int high = 16, scale_at = 192, scale_bytes = 16; };

template <typename Block>
__global__ void repack_kernel(DeviceMatrix w, const std::uint8_t* raw, std::int64_t first, std::int64_t rows) {
  constexpr int kValues = Block::kValues;
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (at >= rows * w.pairs) return;
  const std::int64_t row = at / w.pairs;
  const int pair = static_cast<int>(at % w.pairs);
  const Block* blocks = reinterpret_cast<const Block*>(raw + row * (w.cols / kValues) * sizeof(Block));
  const auto code = [&](int i) -> unsigned {
    const int column = pair * 64 + i;
    return column < w.cols ? code_of(blocks[column / kValues], column % kValues) : 0u;
  };
  const std::int64_t to = first + row;
  if constexpr (sizeof(Block) == sizeof(BlockQ8_0)) {
    std::uint8_t* codes = const_cast<std::uint8_t*>(w.codes) + to * w.code_stride + pair * 64;
    for (int i = 0; i < 64; ++i) codes[i] = static_cast<std::uint8_t>(code(i));
  } else {
    std::uint8_t* codes = const_cast<std::uint8_t*>(w.codes) + to * w.code_stride + pair * 32;
    for (int i = 0; i < 32; ++i) codes[i] = static_cast<std::uint8_t>((code(i) & 15u) | (code(32 + i) & 15u) << 4);
  }
  if constexpr (Layout<Block>::high != 0) {
    constexpr int kWords = Layout<Block>::high / 4, kStep = Layout<Block>::high / 8;
    std::uint32_t* high =
        reinterpret_cast<std::uint32_t*>(const_cast<std::uint8_t*>(w.high) + to * w.high_stride) + pair * kWords;
    std::uint32_t words[kWords] = {};
    for (int n = 0; n < 16; ++n) {
      for (int b = 0; b < 4; ++b) words[n % kWords] |= (code(4 * n + b) >> 4) << (8 * b + kStep * (n / kWords));
    }
    for (int i = 0; i < kWords; ++i) high[i] = words[i];
  }
  constexpr int kBytes = Layout<Block>::scale_bytes;
  std::uint8_t* scales = const_cast<std::uint8_t*>(w.scales) + to * w.scale_stride;
  if constexpr (kValues == 32) {
    for (int g = 0; g < 2; ++g) {
      const int group = 2 * pair + g;
      const std::uint8_t* from = reinterpret_cast<const std::uint8_t*>(blocks + group) + Layout<Block>::scale_at;
      for (int i = 0; i < kBytes; ++i) scales[group * kBytes + i] = group * 32 < w.cols ? from[i] : 0;
    }
  } else if (pair % 4 == 0) {
    const std::uint8_t* from = reinterpret_cast<const std::uint8_t*>(blocks + pair / 4);
    for (int i = 0; i < kBytes; ++i) scales[pair / 4 * kBytes + i] = from[Layout<Block>::scale_at + i];
    if constexpr (sizeof(Block) == sizeof(BlockQ6_K)) {
      std::uint8_t* extra = const_cast<std::uint8_t*>(w.extra) + to * w.extra_stride + pair / 4 * 2;
      extra[0] = from[208];
      extra[1] = from[209];
    }
  }
}

template <typename Block>
void launch(const DeviceMatrix& w, const std::uint8_t* raw, std::int64_t first, std::int64_t rows, cudaStream_t stream) {
  repack_kernel<Block><<<ceil_div(rows * w.pairs, 128), 128, 0, stream>>>(w, raw, first, rows);
  check_launch("repack");
}

std::int64_t round_up(std::int64_t value, std::int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

PlaneBytes plan_planes(DeviceMatrix& w) {
  w.pairs = (w.cols + 63) / 64;
  // Rows of scales and high bits are whole blocks of 256 columns: they are copied by the block.
  const std::int64_t pairs = w.pairs, blocks = (pairs + 3) / 4;
  w.high_stride = w.extra_stride = 0;
  switch (w.dtype) {
    case KV_F32: w.code_stride = std::int64_t{4} * w.cols; w.scale_stride = 0; break;
    case KV_F16:
    case KV_BF16: w.code_stride = std::int64_t{2} * w.cols; w.scale_stride = 0; break;
    case KV_Q8_0: w.code_stride = 64 * pairs; w.scale_stride = 16 * blocks; break;
    case KV_Q4_0: w.code_stride = 32 * pairs; w.scale_stride = 16 * blocks; break;
    case KV_Q4_1: w.code_stride = 32 * pairs; w.scale_stride = 32 * blocks; break;
    case KV_Q5_0: w.code_stride = 32 * pairs; w.high_stride = 32 * blocks; w.scale_stride = 16 * blocks; break;
    case KV_Q5_1: w.code_stride = 32 * pairs; w.high_stride = 32 * blocks; w.scale_stride = 32 * blocks; break;
    case KV_MXFP4: w.code_stride = 32 * pairs; w.scale_stride = 8 * blocks; break;
    case KV_Q4_K: w.code_stride = 32 * pairs; w.scale_stride = 16 * blocks; break;
    case KV_Q5_K: w.code_stride = 32 * pairs; w.high_stride = 32 * blocks; w.scale_stride = 16 * blocks; break;
    default: w.code_stride = 32 * pairs; w.high_stride = 16 * pairs; w.scale_stride = 16 * blocks;
             w.extra_stride = round_up(2 * blocks, 4);
  }
  const std::int64_t rows = w.rows;
  return {round_up(rows * w.code_stride, 256), round_up(rows * w.high_stride, 256),
          round_up(rows * w.scale_stride, 256), round_up(rows * w.extra_stride, 256)};
}

void repack(const DeviceMatrix& w, const std::uint8_t* raw, std::int64_t first, std::int64_t rows,
            cudaStream_t stream) {
  switch (w.dtype) {
    case KV_F32:
    case KV_F16:
    case KV_BF16:
      check_cuda(cudaMemcpyAsync(const_cast<std::uint8_t*>(w.codes) + first * w.code_stride, raw,
                                 static_cast<std::size_t>(rows * w.code_stride), cudaMemcpyDeviceToDevice, stream),
                 "repack");
      return;
    case KV_Q8_0: return launch<BlockQ8_0>(w, raw, first, rows, stream);
    case KV_Q4_0: return launch<BlockQ4_0>(w, raw, first, rows, stream);
    case KV_Q4_1: return launch<BlockQ4_1>(w, raw, first, rows, stream);
    case KV_Q5_0: return launch<BlockQ5_0>(w, raw, first, rows, stream);
    case KV_Q5_1: return launch<BlockQ5_1>(w, raw, first, rows, stream);
    case KV_Q4_K: return launch<BlockQ4_K>(w, raw, first, rows, stream);
    case KV_Q5_K: return launch<BlockQ5_K>(w, raw, first, rows, stream);
    case KV_Q6_K: return launch<BlockQ6_K>(w, raw, first, rows, stream);
    default: return launch<BlockMxfp4>(w, raw, first, rows, stream);
  }
}

}  // namespace kv::cuda
