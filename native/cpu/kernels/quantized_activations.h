// Layout of the buffer that quantize_activations fills and linear reads: five arrays, each 64-byte aligned, rows padded
// so that vector loads of whole groups stay inside. G = cols / 32 groups, padded to 16.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kv::cpu {

struct QuantizedActivations {
  std::int64_t code_stride;   // bytes from one token's codes to the next: cols padded to 64 with zero codes
  std::int64_t group_stride;  // values from one token's groups to the next: G padded to 16 with zeros
  std::int8_t* codes;         // (tokens, code_stride)
  float* scales;              // (tokens, group_stride)
  float* scaled_sums;         // (tokens, group_stride) scale * (float)(sum of the group's codes)
  std::int32_t* sums;         // (tokens, group_stride) sum of the group's 32 codes
  std::int32_t* half_sums;    // (tokens, group_stride) sum of its first 16 codes
};

// View of `buffer`, which holds quantized_activations_bytes(tokens, cols) bytes. Cost: none.
QuantizedActivations quantized_activations_view(std::byte* buffer, std::int64_t tokens, std::int64_t cols);

}  // namespace kv::cpu
