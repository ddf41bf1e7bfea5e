// DeviceMatrix: a weight as it lies in VRAM.
//
// Floats lie as in the file. Block-quantized weights keep every stored bit, sorted into planes whose rows are padded to
// whole pairs (64 columns, two groups of 32), so that every access is aligned:
//   codes   nibble formats: 32 bytes a pair, value i of the first group in the low nibble of byte i, of the second in the
//           high one; Q8_0: 64 signed bytes a pair
//   high    the bits above the nibble: of the pair's 16 words of four codes, word n has its fifth bits in bit n/2 of each
//           byte of word n%2 (8 bytes a pair), or its two upper bits in bits 2*(n/4) of each byte of word n%4 (16 bytes)
//   scales  Q4_0, Q5_0, Q8_0: f16 d a group; Q4_1, Q5_1: f16 d and m a group; MXFP4: the exponent byte a group;
//           Q4_K, Q5_K: the 16 bytes d, dmin, scales[12] a block of 256; Q6_K: 16 signed bytes a block
//   extra   Q6_K: f16 d a block
// Rows of high bits and scales are padded to whole blocks of 256 columns, rows of extra to whole words.
#pragma once

#include <cstdint>

namespace kv::cuda {

struct DeviceMatrix {
  std::int32_t dtype;  // kv_dtype
  std::int32_t rows;
  std::int32_t cols;
  std::int32_t pairs;  // ceil(cols / 64)
  const std::uint8_t* codes;
  const std::uint8_t* high;
  const std::uint8_t* scales;
  const std::uint8_t* extra;
  std::int64_t code_stride;  // bytes from row to row of each plane
  std::int64_t high_stride;
  std::int64_t scale_stride;
  std::int64_t extra_stride;
};

// Columns of a chunk: one summand of a quantized product. See linear_quantized.cuh.
inline constexpr int kChunkColumns = 128;

// 8-bit activations of a token: codes padded with zeros to whole pairs, and per group of 32 its scale, scale * sum of
// codes, sum of codes, and sum of the first 16 (the last two as exact floats' bits would do, but stay integers).
struct GroupInfo {
  float scale;
  float scaled_sum;
  std::int32_t sum;
  std::int32_t half_sum;
};

struct QuantizedInput {
  const std::int8_t* codes;  // (T, pairs * 64)
  const GroupInfo* groups;   // (T, pairs * 2)
};

}  // namespace kv::cuda
