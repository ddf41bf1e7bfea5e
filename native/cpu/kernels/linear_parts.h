// The three ways linear is computed, chosen by its launcher (linear.cpp); the bits do not depend on the choice.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/quantized_activations.h"

namespace kv::cpu::KV_PATH {

// Block-quantized weights, up to about three tokens: products straight from the stored rows.
void linear_vector(const LinearArgs& args, const QuantizedActivations& a, std::int64_t row_begin, std::int64_t row_end);

// Block-quantized weights, several tokens: tiles of 16 rows are unpacked once into scratch.
void linear_tiles(const LinearArgs& args, const QuantizedActivations& a, std::int64_t row_begin, std::int64_t row_end,
                  std::byte* scratch);

// Float activations: float weights, and dequantized ones in float-activation mode.
void linear_float(const LinearArgs& args, std::int64_t row_begin, std::int64_t row_end, std::byte* scratch);

}  // namespace kv::cpu::KV_PATH
