// DeviceMatrix: a weight as it lies in VRAM.
//
// F32 lies as in the file. All others keep every stored bit, sorted so that a warp reads what it multiplies with whole 16-byte
// accesses. A strip is 16 rows, a pair 64 columns, a block four pairs; rows are padded to whole strips, columns to whole
// blocks, with zeros. Lane 4g + q of a warp owns, of a strip's pair, columns 16q .. 16q + 15
// of rows g and g + 8: what the matrix units' 16 x 16 operand asks of it, four times (tile t: columns 16q + 4t .. + 3).
//   codes   F16, BF16: (strip, pair, row, half, lane) eight columns 16q + 8 * half ..; nibble formats: (strip, pair, lane, t)
//           words of eight nibbles, placed by code_shift; Q8_0: (strip, pair, t / 2, lane, t % 2, row) words of four bytes
//           code + 128
//   high    (strip, pair, lane): the fifth bits in a word, or fifth and sixth bits in two, placed by high_shift
//   scales  by lane where lanes differ (h = q / 2 is the group of 32): Q4_0, Q5_0, Q8_0 (strip, pair, h, g, row) f16 d;
//           Q4_1, Q5_1 the same of d, then of m; MXFP4 the exponent bytes; Q4_K, Q5_K (strip, block, g, h): d and dmin of row
//           g + 8h, then three words with 6-bit scales and minima of both rows and the block's four groups of half h, placed
//           by k_place; Q6_K (strip, block, g, q): bytes scale + 128, placed by byte_place
//   extra   Q6_K: (strip, block, g, row) f16 d
//   factors (row) float32 powers of two by which products multiply the row's scales (operand_formats.cuh); BF16 too
#pragma once

#include <cstdint>

namespace kv::cuda {

struct DeviceMatrix {
  std::int32_t dtype;    // kv_dtype
  std::int32_t rows;
  std::int32_t cols;
  std::int32_t pairs;  // of whole blocks
  const std::uint8_t* codes;
  const std::uint8_t* high;
  const std::uint8_t* scales;
  const std::uint8_t* extra;
  const float* factors;
  // Bytes from strip to strip of each plane (F32: from row to row).
  std::int64_t code_stride;
  std::int64_t high_stride;
  std::int64_t scale_stride;
  std::int64_t extra_stride;
};

inline constexpr int kStripRows = 16;
inline constexpr int kPairColumns = 64;
inline constexpr int kBlockPairs = 4;  // of a block of 256 columns

__host__ __device__ constexpr int pairs_of(int cols) { return (cols + 255) / 256 * kBlockPairs; }

// A product's columns are cut into segments, runs of blocks i * blocks / n .. (i + 1) * blocks / n: eight, or seven where that
// many times the longest are a tenth fewer blocks; with fewer than eight blocks each is a segment.
inline constexpr int kSegments = 8;
__host__ __device__ inline int segments_of(int pairs) {
  const int blocks = pairs / kBlockPairs;
  if (blocks < kSegments) return blocks;
  return (blocks + 6) / 7 * 7 * 10 < (blocks + 7) / 8 * 8 * 9 ? 7 : kSegments;
}
// Block at which segment i of n begins; i = n: where the last ends.
__host__ __device__ inline int segment_begin(int pairs, int n, int i) { return pairs / kBlockPairs * i / n; }

// Activations of a step in f16, as products read them: tiles of eight tokens. codes: (tile, pair, token of 8, 64), whose
// columns lie where input_place says; scales: (tile, segment of 8, token of 8), powers of two. x = code * scale. Columns are
// padded with zeros to whole blocks; tokens that do not exist hold anything.
struct HalfInput {
  std::uint16_t* codes;
  float* scales;
};
inline constexpr int kTileTokens = 8;
inline constexpr int kInputPairBytes = kTileTokens * kPairColumns * 2;

// Place in a token's pair, as the matrix units read it: tile t's columns 16q + 4t .. + 3 are its k = 2q, 2q + 1, 2q + 8,
// 2q + 9, and pieces of eight are exchanged with their neighbours, by the token, so that eight tokens' lie in different banks.
__host__ __device__ constexpr int input_place(int token, int column) {
  const int q = column / 16, t = column % 16 / 4, r = column % 4;
  return ((2 * t + r / 2) ^ token % kTileTokens) * 8 + 2 * q + r % 2;
}

// Where code i (column 16q + 4t + i, row g + 8h) lies in its word of nibbles; its bits in the words of high bits.
__host__ __device__ constexpr int code_shift(int h, int i) { return 8 * h + i / 2 * 4 + i % 2 * 16; }
__host__ __device__ constexpr int fifth_shift(int t, int h, int i) {
  constexpr int kAt[4] = {4, 8, 0, 12};
  return t + kAt[2 * h + i / 2] + i % 2 * 16;
}
__host__ __device__ constexpr int sixth_shift(int t, int h, int i) {  // of word t / 2
  constexpr int kAt[8] = {4, 8, 6, 10, 0, 12, 2, 14};
  return kAt[t % 2 * 4 + 2 * h + i / 2] + i % 2 * 16;
}
// Byte of code i in its word of Q8_0.
__host__ __device__ constexpr int byte_of_code(int i) { return i % 2 * 2 + i / 2; }
// Six-bit scale of row half h, pair p of a block: field e = 4h + p. Fields 0-5 are two to a word; bits 0-3 of the last two
// are the words' rests 0 and 1, bits 4-5 are in rest 2. The minimum lies 16 bits above.
struct KPlace {
  int word, shift, high_shift;  // high_shift -1: all six bits are together; else the upper two are in word 2
};
__host__ __device__ constexpr KPlace k_place(int h, int p) {
  const int e = 4 * h + p;
  if (e < 6) return {e / 2, 6 * (e % 2), -1};
  return {e - 6, 12, 12 + 2 * (e - 6)};
}
// Byte of row half h, pair p in Q6_K's two words.
__host__ __device__ constexpr int byte_place(int h, int p) { return p / 2 * 4 + p % 2 + 2 * h; }

}  // namespace kv::cuda
