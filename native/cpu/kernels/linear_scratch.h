// The scratch of one thread in linear, the same on every instruction path.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kv::cpu {

// Tokens whose zero-point corrections are worked out at once.
inline constexpr std::int64_t kCorrectionTokens = 48;

struct TileScratch {
  std::int32_t* corrections;  // (kCorrectionTokens, 2, cols / 32 padded to 16)
  std::byte* tiles;           // (n_tiles, tile_bytes)
  std::int64_t tile_bytes;
  std::int64_t n_tiles;  // even
};

// View of `memory`, which holds linear_scratch_bytes of a weight with these columns.
TileScratch tile_scratch(std::byte* memory, std::int64_t cols);

// Rows of a float tile, converted to float32 in scratch: (kFloatRows, cols padded to 16).
inline constexpr std::int64_t kFloatRows = 4;

}  // namespace kv::cpu
