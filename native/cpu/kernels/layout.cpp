// Sizes and layouts of the buffers that linear and quantize_activations share; the same on every instruction path.
#include "common/dtype.h"
#include "cpu/kernels/kernels.h"
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

std::int64_t linear_scratch_bytes(const WeightMatrix& weight) {
  // 16 rows unpacked: float32 values, or one byte a value with a scale and a minimum per 16 values.
  return 16 * 4 * round_up(weight.cols, 64) + 4096;
}

bool uses_quantized_activations(kv_dtype dtype) {
  const DtypeInfo* info = weight_dtype_info(dtype);
  return info != nullptr && info->is_block_quantized;
}

}  // namespace kv::cpu
