// The scratch of one thread in linear, the same on every instruction path.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kv::cpu {

// Tokens whose zero-point corrections are worked out at once.
inline constexpr std::int64_t kCorrectionTokens = 48;

// Most row tiles of one panel.
inline constexpr std::int64_t kMaxPanelTiles = 16;

struct TileScratch {
  std::int32_t* corrections;  // (kCorrectionTokens, 2, cols / 32 padded to 16)
  std::byte* tiles;           // (n_tiles, tile_bytes)
  std::int64_t tile_bytes;
  std::int64_t n_tiles;  // even, at most kMaxPanelTiles
};

// View of `memory`, which holds linear_scratch_bytes of a weight with these columns.
TileScratch tile_scratch(std::byte* memory, std::int64_t cols);

// Largest token tile of the float product on any path.
inline constexpr std::int64_t kMaxFloatTokens = 8;

struct FloatScratch {
  float* sums;       // (panel_rows, kMaxFloatTokens, 16)
  std::byte* panel;  // (panel_rows, row_stride): rows in float32
  std::int64_t row_stride;
  std::int64_t panel_rows;  // multiple of 4
};

// View of `memory`, as tile_scratch.
FloatScratch float_scratch(std::byte* memory, std::int64_t cols);

}  // namespace kv::cpu
