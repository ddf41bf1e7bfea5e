// Transposes matrices of 2-byte values: the keys of a block between the pool (dim, token) and a payload (token, dim).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace kv::cpu {

namespace transpose_detail {

using Row = std::uint16_t __attribute__((vector_size(16)));

inline Row low_zip(Row a, Row b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
inline Row high_zip(Row a, Row b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }

// Three times zipping row i with row i + 4 brings element (r, c) of 8 × 8 to (c, r).
inline void transpose_8x8(const std::byte* in, std::uint64_t in_stride, std::byte* out, std::uint64_t out_stride) {
  Row rows[8];
  Row zipped[8];
  for (int r = 0; r < 8; ++r) std::memcpy(&rows[r], in + r * in_stride, sizeof(Row));
  for (int round = 0; round < 3; ++round) {
    for (int r = 0; r < 4; ++r) {
      zipped[2 * r] = low_zip(rows[r], rows[r + 4]);
      zipped[2 * r + 1] = high_zip(rows[r], rows[r + 4]);
    }
    std::copy_n(zipped, 8, rows);
  }
  for (int r = 0; r < 8; ++r) std::memcpy(out + r * out_stride, &rows[r], sizeof(Row));
}

}  // namespace transpose_detail

// out (cols, rows) = in (rows, cols) of 2-byte values; strides are bytes between rows of each side. Written in whole cache
// lines where the extents allow it. Sides do not overlap.
inline void transpose_2_bytes(const std::byte* in, std::uint64_t in_stride, std::byte* out, std::uint64_t out_stride,
                              std::uint32_t rows, std::uint32_t cols) {
  constexpr std::uint32_t kStrip = 32;
  const std::uint32_t whole_rows = rows / 8 * 8;
  const std::uint32_t whole_cols = cols / 8 * 8;
  for (std::uint32_t r0 = 0; r0 < whole_rows; r0 += kStrip) {
    const std::uint32_t r1 = std::min(whole_rows, r0 + kStrip);
    for (std::uint32_t c = 0; c < whole_cols; c += 8) {
      for (std::uint32_t r = r0; r < r1; r += 8) {
        transpose_detail::transpose_8x8(in + r * in_stride + std::uint64_t{c} * 2, in_stride,
                                        out + c * out_stride + std::uint64_t{r} * 2, out_stride);
      }
    }
  }
  const auto move = [&](std::uint32_t r, std::uint32_t c) {
    std::memcpy(out + c * out_stride + std::uint64_t{r} * 2, in + r * in_stride + std::uint64_t{c} * 2, 2);
  };
  for (std::uint32_t r = whole_rows; r < rows; ++r) {
    for (std::uint32_t c = 0; c < cols; ++c) move(r, c);
  }
  for (std::uint32_t c = whole_cols; c < cols; ++c) {
    for (std::uint32_t r = 0; r < whole_rows; ++r) move(r, c);
  }
}

}  // namespace kv::cpu
