// Sizes and layouts of the buffers that linear and quantize_activations share; the same on every instruction path.
#include "common/dtype.h"
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/linear_scratch.h"
#include "cpu/kernels/quantized_activations.h"

namespace kv::cpu {

namespace {

std::int64_t round_up(std::int64_t value, std::int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

QuantizedActivations quantized_activations_view(std::byte* buffer, std::int64_t tokens, std::int64_t cols) {
  QuantizedActivations view{};
  view.code_stride = round_up(cols, 64);
  view.group_stride = round_up(cols / 32, 16);
  view.codes = reinterpret_cast<std::int8_t*>(buffer);
  const std::int64_t groups = tokens * view.group_stride;
  view.scales = reinterpret_cast<float*>(buffer + tokens * view.code_stride);
  view.scaled_sums = view.scales + groups;
  view.sums = reinterpret_cast<std::int32_t*>(view.scaled_sums + groups);
  view.half_sums = view.sums + groups;
  return view;
}

std::int64_t quantized_activations_bytes(std::int64_t tokens, std::int64_t cols) {
  return tokens * (round_up(cols, 64) + 4 * 4 * round_up(cols / 32, 16));
}

std::int64_t row_bytes(const WeightMatrix& weight) {
  const DtypeInfo* info = weight_dtype_info(weight.dtype);
  return weight.cols / info->block_values * info->block_bytes;
}

namespace {

// Unpacked tiles of one panel stay in a 1 MB L2 beside the activations that pass over them.
constexpr std::int64_t kPanelBytes = 192 * 1024;

std::int64_t correction_bytes(std::int64_t cols) { return kCorrectionTokens * 2 * 4 * round_up(cols / 32, 16); }

// Codes, then a scale and a minimum per 32 columns or a scale per 16; an odd number of lines spreads tiles over sets.
std::int64_t tile_bytes(std::int64_t cols) { return (cols + 63) / 64 * (1024 + 4 * 64) + 64; }

std::int64_t panel_tiles(std::int64_t cols) {
  const std::int64_t fit = kPanelBytes / tile_bytes(cols);
  return fit < 2 ? 2 : fit > kMaxPanelTiles ? kMaxPanelTiles : fit / 2 * 2;
}

}  // namespace

TileScratch tile_scratch(std::byte* memory, std::int64_t cols) {
  TileScratch scratch{};
  scratch.corrections = reinterpret_cast<std::int32_t*>(memory);
  scratch.tiles = memory + correction_bytes(cols);
  scratch.tile_bytes = tile_bytes(cols);
  scratch.n_tiles = panel_tiles(cols);
  return scratch;
}

namespace {

// A panel of float32 rows takes half of a 1 MB L2; its rows are padded by a line so that they spread over the sets.
constexpr std::int64_t kFloatPanelBytes = 480 * 1024;

std::int64_t float_row_stride(std::int64_t cols) { return round_up(4 * cols, 64) + 64; }

std::int64_t float_panel_rows(std::int64_t cols) {
  const std::int64_t fit = kFloatPanelBytes / float_row_stride(cols);
  return fit < 4 ? 4 : fit > 96 ? 96 : fit / 4 * 4;
}

std::int64_t float_sums_bytes(std::int64_t cols) { return float_panel_rows(cols) * kMaxFloatTokens * 64; }

}  // namespace

FloatScratch float_scratch(std::byte* memory, std::int64_t cols) {
  return {reinterpret_cast<float*>(memory), memory + float_sums_bytes(cols), float_row_stride(cols),
          float_panel_rows(cols)};
}

std::int64_t linear_scratch_bytes(const WeightMatrix& weight) {
  const std::int64_t cols = weight.cols;
  const std::int64_t quantized = correction_bytes(cols) + panel_tiles(cols) * tile_bytes(cols);
  const std::int64_t floats = float_sums_bytes(cols) + float_panel_rows(cols) * float_row_stride(cols);
  return round_up(quantized > floats ? quantized : floats, 64);
}

bool uses_quantized_activations(kv_dtype dtype) {
  const DtypeInfo* info = weight_dtype_info(dtype);
  return info != nullptr && info->is_block_quantized;
}

}  // namespace kv::cpu
