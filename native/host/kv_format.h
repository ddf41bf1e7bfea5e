// KvFormat: what a KV dtype stores for one head of one token, the same for every backend's canonical payload.
//
// A record is one head of one token, of K or of V:
//   F32, F16, BF16   D values
//   Q8               D signed codes, then one f16 scale a group               value = scale * code
//   Q4               D / 2 bytes, then one f16 scale and one f16 minimum      value = minimum + scale * code
//                    a group (all scales, then all minima)
// Groups are kKvGroupValues consecutive values, or the whole head where it is smaller. In a Q4 group of g values byte i
// holds value i in its low four bits and value i + g/2 in the high ones. Q8 and Q4 hold K after a rotation within each
// group (see KvRotation): its record is of the rotated vector. V is held as it is.
#pragma once

#include <cstdint>

#include "abi/kvasir_abi.h"

namespace kv {

inline constexpr std::uint32_t kKvGroupValues = 64;
// Codes are read four at a time, by Q4 from both halves of a group.
inline constexpr std::uint32_t kKvGroupMultiple = 8;

inline bool is_quantized_kv(kv_dtype dtype) { return dtype == KV_Q8 || dtype == KV_Q4; }

inline std::uint32_t kv_group_values(std::uint32_t head_dim) {
  return head_dim < kKvGroupValues ? head_dim : kKvGroupValues;
}

// Whether heads of D values divide into whole groups; the float dtypes take any.
inline bool kv_dtype_takes(kv_dtype dtype, std::uint32_t head_dim) {
  if (!is_quantized_kv(dtype)) return true;
  return head_dim % (head_dim < kKvGroupValues ? kKvGroupMultiple : kKvGroupValues) == 0;
}

// Bytes of a record.
inline std::uint32_t kv_record_bytes(kv_dtype dtype, std::uint32_t head_dim) {
  const std::uint32_t groups = head_dim / kv_group_values(head_dim);
  if (dtype == KV_Q8) return head_dim + 2 * groups;
  if (dtype == KV_Q4) return head_dim / 2 + 4 * groups;
  return head_dim * (dtype == KV_F32 ? 4 : 2);
}

// The rotation of keys: a Walsh-Hadamard transform H of each run of `block` values, which spreads a channel that is
// always large over all codes of its group. Keys are multiplied by key_factor * H and queries by query_factor * H, whose
// product is the identity, so that no score changes but by rounding; both factors are powers of two.
struct KvRotation {
  std::uint32_t block;  // a power of two that divides a group; 0: none
  float key_factor;
  float query_factor;
};

inline KvRotation kv_rotation(kv_dtype dtype, std::uint32_t head_dim) {
  if (!is_quantized_kv(dtype)) return {0, 1.0f, 1.0f};
  const std::uint32_t group = kv_group_values(head_dim);
  KvRotation rotation{1, 1.0f, 1.0f};
  for (bool key = false; group % (2 * rotation.block) == 0; key = !key) {
    rotation.block *= 2;
    (key ? rotation.key_factor : rotation.query_factor) *= 0.5f;
  }
  return rotation;
}

}  // namespace kv
