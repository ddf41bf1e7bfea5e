// Weights as float32, exactly as the formats define them: embeddings, float products and the fast mode's operands read them
// so. The planes are device_matrix.h's; products of f16 operands read those themselves (operand_formats.cuh).
#pragma once

#include "cuda/kernels/arithmetic.cuh"
#include "cuda/kernels/device_matrix.h"

namespace kv::cuda {

__device__ inline uint4 read16(const std::uint8_t* p) { return __ldg(reinterpret_cast<const uint4*>(p)); }
__device__ inline uint2 read8(const std::uint8_t* p) { return __ldg(reinterpret_cast<const uint2*>(p)); }
__device__ inline std::uint32_t read4(const std::uint8_t* p) { return __ldg(reinterpret_cast<const std::uint32_t*>(p)); }
__device__ inline std::uint16_t read2(const std::uint8_t* p) { return __ldg(reinterpret_cast<const std::uint16_t*>(p)); }
__device__ inline float read_half(const std::uint8_t* p) { return half_bits_to_float(read2(p)); }

// Scale and minimum of the 16 columns 16q .. of a row's pair.
struct ColumnScale {
  float scale, minimum;
};
struct ColumnPlace {
  const std::uint8_t* scales;  // of the strip
  const std::uint8_t* extra;
  int g, h, pair, q;
};

template <int kHighBitCount, int kZeroPoint, bool kHasMinima>
struct NibbleFormat {
  static constexpr int kHighBits = kHighBitCount, kZero = kZeroPoint;
  static constexpr bool kMinima = kHasMinima, kNibbles = true, kMxfp4 = false;
};

// f16 d a group; with minima d and m.
template <bool kHasMinima>
struct GroupColumnScales {
  __device__ static ColumnScale scale_of(const ColumnPlace& at) {
    const std::uint8_t* p = at.scales + (at.pair * 16 + at.q / 2 * 8 + at.g) * (kHasMinima ? 8 : 4) + 2 * at.h;
    return {read_half(p), kHasMinima ? read_half(p + 4) : 0.0f};
  }
};
struct KColumnScales {
  __device__ static ColumnScale scale_of(const ColumnPlace& at) {
    const std::uint8_t* of_row = at.scales + at.pair / kBlockPairs * 256 + at.g * 32;
    const std::uint8_t* words = of_row + at.q / 2 * 16 + 4;
    const KPlace place = k_place(at.h, at.pair % kBlockPairs);
    std::uint32_t both = read4(words + 4 * place.word) >> place.shift;
    if (place.high_shift < 0) {
      both &= 0x003f003fu;
    } else {
      both = (both & 0x000f000fu) | (read4(words + 8) >> (place.high_shift - 4) & 0x00300030u);
    }
    const std::uint32_t d = read4(of_row + at.h * 16);
    return {half_bits_to_float(static_cast<std::uint16_t>(d)) * static_cast<float>(both & 63u),
            -half_bits_to_float(static_cast<std::uint16_t>(d >> 16)) * static_cast<float>(both >> 16)};
  }
};

struct FormatQ4_0 : NibbleFormat<0, 8, false>, GroupColumnScales<false> {};
struct FormatQ5_0 : NibbleFormat<1, 16, false>, GroupColumnScales<false> {};
struct FormatQ4_1 : NibbleFormat<0, 0, true>, GroupColumnScales<true> {};
struct FormatQ5_1 : NibbleFormat<1, 0, true>, GroupColumnScales<true> {};
struct FormatQ4_K : NibbleFormat<0, 0, true>, KColumnScales {};
struct FormatQ5_K : NibbleFormat<1, 0, true>, KColumnScales {};
struct FormatQ6_K : NibbleFormat<2, 32, false> {
  __device__ static ColumnScale scale_of(const ColumnPlace& at) {
    const int block = at.pair / kBlockPairs;
    const std::uint8_t scale = __ldg(at.scales + block * 256 + (at.g * 4 + at.q) * 8 + byte_place(at.h, at.pair % kBlockPairs));
    const float d = read_half(at.extra + block * 32 + at.g * 4 + 2 * at.h);
    return {d * static_cast<float>(static_cast<int>(scale) - 128), 0.0f};
  }
};
struct FormatMxfp4 : NibbleFormat<0, 0, false> {
  static constexpr bool kMxfp4 = true;
  __device__ static ColumnScale scale_of(const ColumnPlace& at) {
    return {e8m0_half(__ldg(at.scales + (at.pair * 16 + at.q / 2 * 8 + at.g) * 2 + at.h)), 0.0f};
  }
};
struct FormatQ8_0 : GroupColumnScales<false> {
  static constexpr int kHighBits = 0, kZero = 128;
  static constexpr bool kMinima = false, kNibbles = false, kMxfp4 = false;
};

// Eight neighbouring columns, 8 * chunk .. + 7: every product rounded on its own.
template <typename Format>
struct LoadQuantized {
  template <bool kWhole = true>
  __device__ static void eight(const DeviceMatrix& w, std::int64_t row, int chunk, float* out) {
    const std::int64_t strip = row / kStripRows;
    const int g = static_cast<int>(row % 8), h = static_cast<int>(row % kStripRows / 8);
    const int pair = chunk / 8, q = chunk % 8 / 2, first_tile = chunk % 2 * 2, lane = 4 * g + q;
    const std::uint8_t* codes = w.codes + strip * w.code_stride;
    const ColumnScale scale =
        Format::scale_of({w.scales + strip * w.scale_stride, w.extra + strip * w.extra_stride, g, h, pair, q});
    std::uint32_t words[2];
    if constexpr (Format::kNibbles) {
      const uint2 v = read8(codes + (pair * 32 + lane) * 16 + 4 * first_tile);
      words[0] = v.x;
      words[1] = v.y;
    } else {
      const uint4 v = read16(codes + (pair * 64 + first_tile / 2 * 32 + lane) * 16);
      words[0] = h == 0 ? v.x : v.y;
      words[1] = h == 0 ? v.z : v.w;
    }
    std::uint32_t high = 0;
    if constexpr (Format::kHighBits == 1) high = read4(w.high + strip * w.high_stride + (pair * 32 + lane) * 4);
    if constexpr (Format::kHighBits == 2) {
      high = read4(w.high + strip * w.high_stride + (pair * 32 + lane) * 8 + first_tile / 2 * 4);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int t = first_tile + i / 4;
      int code;
      if constexpr (Format::kNibbles) {
        code = static_cast<int>(words[i / 4] >> code_shift(h, i % 4) & 15u);
        if constexpr (Format::kHighBits == 1) code |= static_cast<int>(high >> fifth_shift(t, h, i % 4) & 1u) << 4;
        if constexpr (Format::kHighBits == 2) code |= static_cast<int>(high >> sixth_shift(t, h, i % 4) & 3u) << 4;
      } else {
        code = static_cast<int>(words[i / 4] >> (8 * byte_of_code(i % 4)) & 255u);
      }
      if constexpr (Format::kMxfp4) {
        // Twice E2M1's values: 0 1 2 3 4 6 8 12, negated by the fourth bit.
        const int v = code & 7, magnitude = v < 4 ? v : (2 + v % 2) << (v / 2 - 1);
        code = code >= 8 ? -magnitude : magnitude;
      }
      out[i] = static_cast<float>(code - Format::kZero) * scale.scale;
      if constexpr (Format::kMinima) out[i] = out[i] + scale.minimum;
    }
  }
};

// Eight 16-bit floats as they are.
__device__ inline uint4 read_eight(const DeviceMatrix& w, std::int64_t row, int chunk) {
  const int h = static_cast<int>(row % kStripRows / 8), lane = static_cast<int>(row % 8) * 4 + chunk % 8 / 2;
  return read16(w.codes + row / kStripRows * w.code_stride + (chunk / 8 * 128 + (2 * h + chunk % 2) * 32 + lane) * 16);
}
template <float (*to_float)(std::uint16_t)>
struct LoadHalves {
  template <bool kWhole = true>
  __device__ static void eight(const DeviceMatrix& w, std::int64_t row, int chunk, float* out) {
    const uint4 raw = read_eight(w, row, chunk);
    const auto* values = reinterpret_cast<const std::uint16_t*>(&raw);
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = to_float(values[i]);
  }
};
using LoadF16 = LoadHalves<half_bits_to_float>;
using LoadBf16 = LoadHalves<bf16_bits_to_float>;

// kWhole: rows are whole chunks of eight, and so aligned; known beforehand it costs no branch.
struct LoadF32 {
  template <bool kWhole = false>
  __device__ static void eight(const DeviceMatrix& w, std::int64_t row, int chunk, float* out) {
    const float* p = reinterpret_cast<const float*>(w.codes + row * w.code_stride) + 8 * chunk;
    if (kWhole || w.cols % 8 == 0) {
      const float4 a = __ldg(reinterpret_cast<const float4*>(p)), b = __ldg(reinterpret_cast<const float4*>(p) + 1);
      out[0] = a.x; out[1] = a.y; out[2] = a.z; out[3] = a.w;
      out[4] = b.x; out[5] = b.y; out[6] = b.z; out[7] = b.w;
    } else {
      for (int i = 0; i < 8; ++i) out[i] = 8 * chunk + i < w.cols ? p[i] : 0.0f;
    }
  }
};

}  // namespace kv::cuda
