// Declarations of the kernels of one instruction path: what path_table.cpp collects. Included only by sources compiled
// with KV_PATH.
#pragma once

#include "cpu/kernels/kernels.h"

namespace kv::cpu::KV_PATH {

void dequantize_row(kv_dtype dtype, const std::byte* row, std::int64_t cols, float* out);
void quantize_activations(const QuantizeActivationsArgs& args, std::int64_t token_begin, std::int64_t token_end);
void linear(const LinearArgs& args, std::int64_t row_begin, std::int64_t row_end, std::byte* scratch);

}  // namespace kv::cpu::KV_PATH
