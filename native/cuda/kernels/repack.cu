// repack: stored rows of a weight into the planes of device_matrix.h; every stored bit is kept.
#include "common/formats/blocks.h"
#include "cuda/kernels/arithmetic.cuh"
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

// Bits above the nibble; whether the format has minima.
template <typename Block> struct HighBits { static constexpr int kCount = 0; };
template <> struct HighBits<BlockQ5_0> { static constexpr int kCount = 1; };
template <> struct HighBits<BlockQ5_1> { static constexpr int kCount = 1; };
template <> struct HighBits<BlockQ5_K> { static constexpr int kCount = 1; };
template <> struct HighBits<BlockQ6_K> { static constexpr int kCount = 2; };
template <typename Block> struct HasMinima { static constexpr bool value = false; };
template <> struct HasMinima<BlockQ4_1> { static constexpr bool value = true; };
template <> struct HasMinima<BlockQ5_1> { static constexpr bool value = true; };

// Code of row half h (0, 1), place i of tile t, as the lane that owns columns 16q .. of a pair meets it.
template <typename Block>
__global__ void codes_kernel(DeviceMatrix w, const std::uint8_t* raw, std::int64_t first, std::int64_t rows) {
  constexpr int kValues = Block::kValues;
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int lane = static_cast<int>(at % 32), g = lane / 4, q = lane % 4;
  const std::int64_t strip = at / 32 / w.pairs;
  const int pair = static_cast<int>(at / 32 % w.pairs);
  if (strip * kStripRows >= rows) return;
  const auto code = [&](int h, int column) -> unsigned {
    const std::int64_t row = strip * kStripRows + g + 8 * h;
    if (row >= rows || column >= w.cols) return 0u;
    const Block* blocks = reinterpret_cast<const Block*>(raw + row * (w.cols / kValues) * sizeof(Block));
    return code_of(blocks[column / kValues], column % kValues);
  };
  const std::int64_t to = first / kStripRows + strip;
  std::uint8_t* codes = const_cast<std::uint8_t*>(w.codes) + to * w.code_stride;
  std::uint32_t high[2] = {};
  for (int t = 0; t < 4; ++t) {
    std::uint32_t nibbles = 0, bytes[2] = {};
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < 4; ++i) {
        const unsigned value = code(h, pair * kPairColumns + 16 * q + 4 * t + i);
        bytes[h] |= (value ^ 0x80u) << (8 * byte_of_code(i));
        nibbles |= (value & 15u) << code_shift(h, i);
        if constexpr (HighBits<Block>::kCount == 1) high[0] |= (value >> 4) << fifth_shift(t, h, i);
        if constexpr (HighBits<Block>::kCount == 2) high[t / 2] |= (value >> 4) << sixth_shift(t, h, i);
      }
    }
    if constexpr (sizeof(Block) == sizeof(BlockQ8_0)) {
      *reinterpret_cast<uint2*>(codes + pair * 1024 + t / 2 * 512 + lane * 16 + t % 2 * 8) = {bytes[0], bytes[1]};
    } else {
      *reinterpret_cast<std::uint32_t*>(codes + pair * 512 + lane * 16 + t * 4) = nibbles;
    }
  }
  if constexpr (HighBits<Block>::kCount != 0) {
    constexpr int kWords = HighBits<Block>::kCount;
    auto* words = reinterpret_cast<std::uint32_t*>(const_cast<std::uint8_t*>(w.high) + to * w.high_stride) +
                  (pair * 32 + lane) * kWords;
    for (int i = 0; i < kWords; ++i) words[i] = high[i];
  }
}

// 16-bit floats: 16 bytes a thread.
__global__ void float_codes_kernel(DeviceMatrix w, const std::uint8_t* raw, std::int64_t first, std::int64_t rows) {
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int lane = static_cast<int>(at % 32), half = static_cast<int>(at / 32 % 2), h = static_cast<int>(at / 64 % 2);
  const std::int64_t strip = at / 128 / w.pairs;
  const int pair = static_cast<int>(at / 128 % w.pairs);
  if (strip * kStripRows >= rows) return;
  const std::int64_t row = strip * kStripRows + lane / 4 + 8 * h;
  const int column = pair * kPairColumns + lane % 4 * 16 + 8 * half;
  std::uint32_t words[4] = {};
  for (int i = 0; i < 8; ++i) {
    if (row >= rows || column + i >= w.cols) break;
    const std::uint8_t* from = raw + (row * w.cols + column + i) * 2;
    words[i / 2] |= static_cast<std::uint32_t>(from[0] | from[1] << 8) << (16 * (i % 2));
  }
  std::uint8_t* to = const_cast<std::uint8_t*>(w.codes) + (first / kStripRows + strip) * w.code_stride + pair * 2048;
  *reinterpret_cast<uint4*>(to + ((2 * h + half) * 32 + lane) * 16) = {words[0], words[1], words[2], words[3]};
}

__device__ void put_half(std::uint8_t* to, const std::uint8_t* from) {
  to[0] = from == nullptr ? 0 : from[0];
  to[1] = from == nullptr ? 0 : from[1];
}

// One thread a row and block of 256 columns; rows that only pad a strip get zeros.
template <typename Block>
__global__ void scales_kernel(DeviceMatrix w, const std::uint8_t* raw, std::int64_t first, std::int64_t rows) {
  constexpr int kValues = Block::kValues;
  const int n_blocks = w.pairs / kBlockPairs;
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t row = at / n_blocks;
  const int block = static_cast<int>(at % n_blocks);
  if (row >= (rows + kStripRows - 1) / kStripRows * kStripRows) return;
  const int g = static_cast<int>(row % 8), h = static_cast<int>(row % kStripRows / 8);
  const std::int64_t strip = (first + row) / kStripRows;
  std::uint8_t* scales = const_cast<std::uint8_t*>(w.scales) + strip * w.scale_stride;
  const auto stored = [&](int i) -> const std::uint8_t* {
    if (row >= rows || i * kValues >= w.cols) return nullptr;
    return raw + (row * (w.cols / kValues) + i) * static_cast<std::int64_t>(sizeof(Block));
  };
  if constexpr (kValues == 32) {
    for (int group = 8 * block; group < 8 * block + 8; ++group) {
      const std::uint8_t* from = stored(group);
      const int lane_at = group / 2 * 16 + group % 2 * 8 + g;
      if constexpr (sizeof(Block) == sizeof(BlockMxfp4)) {
        scales[lane_at * 2 + h] = from == nullptr ? 0 : from[0];
      } else if constexpr (HasMinima<Block>::value) {
        put_half(scales + lane_at * 8 + 2 * h, from);
        put_half(scales + lane_at * 8 + 4 + 2 * h, from == nullptr ? nullptr : from + 2);
      } else {
        put_half(scales + lane_at * 4 + 2 * h, from);
      }
    }
  } else if constexpr (sizeof(Block) == sizeof(BlockQ6_K)) {
    const std::uint8_t* from = stored(block);
    for (int i = 0; i < 16; ++i) {
      const int p = i / 4, q = i % 4;
      scales[block * 256 + (g * 4 + q) * 8 + byte_place(h, p)] = from == nullptr ? 0x80 : from[192 + i] ^ 0x80;
    }
    put_half(const_cast<std::uint8_t*>(w.extra) + strip * w.extra_stride + block * 32 + g * 4 + 2 * h,
             from == nullptr ? nullptr : from + 208);
  } else {
    // Both rows g and g + 8 share words: the first writes them.
    if (h != 0) return;
    const std::uint8_t* from[2] = {stored(block), nullptr};
    if (row + 8 < rows) from[1] = raw + ((row + 8) * (w.cols / kValues) + block) * static_cast<std::int64_t>(sizeof(Block));
    for (int half = 0; half < 2; ++half) {
      std::uint8_t* to = scales + block * 256 + (g * 2 + half) * 16;
      put_half(to, from[half]);
      put_half(to + 2, from[half] == nullptr ? nullptr : from[half] + 2);
      std::uint32_t words[3] = {};
      for (int r = 0; r < 2; ++r) {
        for (int p = 0; p < kBlockPairs; ++p) {
          if (from[r] == nullptr) continue;
          const int group = 2 * p + half;
          const std::uint8_t* packed = from[r] + 4;
          std::uint32_t scale, minimum;
          if (group < 4) {
            scale = packed[group] & 63u;
            minimum = packed[group + 4] & 63u;
          } else {
            scale = (packed[group + 4] & 15u) | (packed[group - 4] >> 6) << 4;
            minimum = (packed[group + 4] >> 4) | (packed[group] >> 6) << 4;
          }
          const std::uint32_t both = scale | minimum << 16;
          const KPlace place = k_place(r, p);
          if (place.high_shift < 0) {
            words[place.word] |= both << place.shift;
          } else {
            words[place.word] |= (both & 0x000f000fu) << place.shift;
            words[2] |= (both >> 4 & 0x00030003u) << place.high_shift;
          }
        }
      }
      for (int i = 0; i < 3; ++i) reinterpret_cast<std::uint32_t*>(to)[1 + i] = words[i];
    }
  }
}

// Largest magnitudes of a row: of what multiplies codes and of what is added.
struct RowMaxima {
  float scale = 0.0f, minimum = 0.0f;
  __device__ void take(float s, float m) {
    if (isfinite(s)) scale = fmaxf(scale, fabsf(s));
    if (isfinite(m)) minimum = fmaxf(minimum, fabsf(m));
  }
};
__device__ float stored_half(const std::uint8_t* p) {
  return half_bits_to_float(static_cast<std::uint16_t>(p[0] | p[1] << 8));
}
template <typename Block>
__device__ void take_block(const std::uint8_t* from, RowMaxima& most) {
  if constexpr (sizeof(Block) == sizeof(BlockMxfp4)) {
    most.take(2.0f * e8m0_half(from[0]), 0.0f);
  } else if constexpr (sizeof(Block) == sizeof(BlockQ6_K)) {
    most.take(128.0f * stored_half(from + 208), 0.0f);
  } else if constexpr (Block::kValues == 256) {
    most.take(63.0f * stored_half(from), 1024.0f * stored_half(from + 2));
  } else {
    most.take(stored_half(from), HasMinima<Block>::value ? stored_half(from + 2) : 0.0f);
  }
}
struct Bf16Value {
  std::uint16_t bits;
  static constexpr int kValues = 1;
};
template <>
__device__ void take_block<Bf16Value>(const std::uint8_t* from, RowMaxima& most) {
  most.take(bf16_bits_to_float(static_cast<std::uint16_t>(from[0] | from[1] << 8)), 0.0f);
}
__device__ int power_of(float magnitude) { return static_cast<int>(__float_as_uint(magnitude) >> 23) - 127; }

// A warp a row. The largest scale comes to 2^14 .. 2^15 (BF16: the largest value to 2^3 .. 2^4), minima to 2^15 at most.
template <typename Block>
__global__ void factors_kernel(DeviceMatrix w, const std::uint8_t* raw, std::int64_t first, std::int64_t rows) {
  const std::int64_t row = std::int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= (rows + kStripRows - 1) / kStripRows * kStripRows) return;
  RowMaxima most;
  const int blocks = row < rows ? w.cols / Block::kValues : 0;
  for (int i = threadIdx.x % 32; i < blocks; i += 32) {
    take_block<Block>(raw + (row * blocks + i) * static_cast<std::int64_t>(sizeof(Block)), most);
  }
  most.scale = warp_max(most.scale);
  most.minimum = warp_max(most.minimum);
  constexpr int kWanted = sizeof(Block) == sizeof(Bf16Value) ? 3 : 14;
  int power = most.scale == 0.0f ? 0 : kWanted - power_of(most.scale);
  if (most.minimum != 0.0f) power = min(power, 38 - power_of(most.minimum));
  power = min(100, power);  // at least -124, for BF16's largest value
  if (threadIdx.x % 32 != 0) return;
  const_cast<float*>(w.factors)[first + row] = __uint_as_float(static_cast<unsigned>(power + 127) << 23);
}

template <typename Block>
void launch(const DeviceMatrix& w, const std::uint8_t* raw, std::int64_t first, std::int64_t rows, cudaStream_t stream) {
  const std::int64_t strips = (rows + kStripRows - 1) / kStripRows, blocks = w.pairs / kBlockPairs;
  codes_kernel<Block><<<ceil_div(strips * w.pairs * 32, 128), 128, 0, stream>>>(w, raw, first, rows);
  check_launch("repack codes");
  scales_kernel<Block><<<ceil_div(strips * kStripRows * blocks, 128), 128, 0, stream>>>(w, raw, first, rows);
  check_launch("repack scales");
  factors_kernel<Block><<<ceil_div(strips * kStripRows, 4), 128, 0, stream>>>(w, raw, first, rows);
  check_launch("repack factors");
}

std::int64_t round_up(std::int64_t value, std::int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

PlaneBytes plan_planes(DeviceMatrix& w) {
  w.pairs = pairs_of(w.cols);
  const std::int64_t pairs = w.pairs, blocks = pairs / kBlockPairs;
  const std::int64_t strips = (std::int64_t{w.rows} + kStripRows - 1) / kStripRows;
  w.high_stride = w.scale_stride = w.extra_stride = 0;
  w.code_stride = 512 * pairs;
  switch (w.dtype) {
    case KV_F32: w.code_stride = std::int64_t{4} * w.cols; break;
    case KV_F16:
    case KV_BF16: w.code_stride = 2048 * pairs; break;
    case KV_Q8_0: w.code_stride = 1024 * pairs; w.scale_stride = 256 * blocks; break;
    case KV_Q4_0: w.scale_stride = 256 * blocks; break;
    case KV_Q4_1: w.scale_stride = 512 * blocks; break;
    case KV_Q5_0: w.high_stride = 128 * pairs; w.scale_stride = 256 * blocks; break;
    case KV_Q5_1: w.high_stride = 128 * pairs; w.scale_stride = 512 * blocks; break;
    case KV_MXFP4: w.scale_stride = 128 * blocks; break;
    case KV_Q4_K: w.scale_stride = 256 * blocks; break;
    case KV_Q5_K: w.high_stride = 128 * pairs; w.scale_stride = 256 * blocks; break;
    default: w.high_stride = 256 * pairs; w.scale_stride = 256 * blocks; w.extra_stride = 32 * blocks;
  }
  const std::int64_t lines = w.dtype == KV_F32 ? std::int64_t{w.rows} : strips;
  const std::int64_t factors = w.dtype == KV_F32 || w.dtype == KV_F16 ? 0 : strips * kStripRows * 4;
  return {round_up(lines * w.code_stride, 256), round_up(strips * w.high_stride, 256),
          round_up(strips * w.scale_stride, 256), round_up(strips * w.extra_stride, 256), round_up(factors, 256)};
}

void place_planes(DeviceMatrix& w, const PlaneBytes& sizes, std::uint8_t* base) {
  w.codes = base;
  w.high = w.codes + sizes.codes;
  w.scales = w.high + sizes.high;
  w.extra = w.scales + sizes.scales;
  w.factors = reinterpret_cast<const float*>(w.extra + sizes.extra);
}

void repack(const DeviceMatrix& w, const std::uint8_t* raw, std::int64_t first, std::int64_t rows,
            cudaStream_t stream) {
  switch (w.dtype) {
    case KV_F32:
      return check_cuda(cudaMemcpyAsync(const_cast<std::uint8_t*>(w.codes) + first * w.code_stride, raw,
                                        static_cast<std::size_t>(rows * w.code_stride), cudaMemcpyDeviceToDevice, stream),
                        "repack");
    case KV_F16:
    case KV_BF16: {
      const std::int64_t pieces = ceil_div(rows, kStripRows) * std::int64_t{w.pairs} * 128;
      float_codes_kernel<<<ceil_div(pieces, 128), 128, 0, stream>>>(w, raw, first, rows);
      check_launch("repack codes");
      if (w.dtype == KV_BF16) {
        const std::int64_t padded = std::int64_t{ceil_div(rows, kStripRows)} * kStripRows;
        factors_kernel<Bf16Value><<<ceil_div(padded, 4), 128, 0, stream>>>(w, raw, first, rows);
        check_launch("repack factors");
      }
      return;
    }
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
