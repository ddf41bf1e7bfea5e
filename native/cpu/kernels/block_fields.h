// Small fields of the block formats, read from unaligned bytes. Per path: see simd/f32x16.h.
#pragma once

#include "cpu/simd/float_bits.h"

namespace kv::cpu::KV_PATH {

static inline std::uint16_t load_halfword(const std::uint8_t* p) {
  std::uint16_t h;
  __builtin_memcpy(&h, p, 2);
  return h;
}
static inline std::uint32_t load_word(const std::uint8_t* p) {
  std::uint32_t w;
  __builtin_memcpy(&w, p, 4);
  return w;
}
static inline float load_half(const std::uint8_t* p) { return f16_to_f32(load_halfword(p)); }

// Half of an E8M0 scale: 2^(e - 128), as a subnormal for e < 2.
static inline float load_e8m0_half(std::uint8_t e) {
  return float_of_bits(e < 2 ? 0x00200000u << e : static_cast<std::uint32_t>(e - 1) << 23);
}

// The 6-bit scale and minimum of group g (0-7) of a Q4_K or Q5_K block; the packing is described at BlockQ4_K.
static inline int k_scale(const std::uint8_t* scales, int g) {
  return g < 4 ? scales[g] & 63 : (scales[g + 4] & 15) | ((scales[g - 4] >> 6) << 4);
}
static inline int k_minimum(const std::uint8_t* scales, int g) {
  return g < 4 ? scales[g + 4] & 63 : (scales[g + 4] >> 4) | ((scales[g] >> 6) << 4);
}

}  // namespace kv::cpu::KV_PATH
