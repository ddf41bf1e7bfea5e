// Where the parts of one head's K or V lie in a block of a quantized pool. The same for K and V but for the codes:
//   K codes   (code_bytes / 4, Bk, 4): four dimensions of a token side by side, tokens in vector lanes
//   V codes   (Bk, code_bytes)
//   scales    (groups, Bk) f16, and for Q4 minima (groups, Bk) f16
// A token's code bytes, scales and minima are those of its record (host/kv_format.h), in the same order.
#pragma once

#include <cstdint>

#include "abi/kvasir_abi.h"

namespace kv::cpu {

struct KvHeadLayout {
  std::int32_t group;       // values a group
  std::int32_t groups;      // groups a head
  std::int32_t code_bytes;  // of one token
  std::int64_t scales;      // offsets from the head's start; codes are at 0
  std::int64_t minima;
  std::int64_t bytes;
};

// dtype: KV_Q8 or KV_Q4.
static inline constexpr KvHeadLayout kv_head_layout(kv_dtype dtype, std::int32_t head_dim, std::int32_t block_tokens) {
  KvHeadLayout layout{};
  layout.group = head_dim < 64 ? head_dim : 64;
  layout.groups = head_dim / layout.group;
  layout.code_bytes = dtype == KV_Q8 ? head_dim : head_dim / 2;
  layout.scales = std::int64_t{block_tokens} * layout.code_bytes;
  const std::int64_t plane = std::int64_t{2} * block_tokens * layout.groups;
  layout.minima = layout.scales + plane;
  layout.bytes = dtype == KV_Q8 ? layout.minima : layout.minima + plane;
  return layout;
}

}  // namespace kv::cpu
