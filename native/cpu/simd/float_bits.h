// Scalar float16 and bfloat16 conversions by bits: the same results as F16C and the NEON instructions.
#pragma once

#include <cstdint>

namespace kv::cpu::KV_PATH {

static inline float float_of_bits(std::uint32_t u) {
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}
static inline std::uint32_t bits_of_float(float f) {
  std::uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  return u;
}

static inline float f16_to_f32(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  const std::uint32_t exponent = (h >> 10) & 0x1fu;
  const std::uint32_t mantissa = h & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return float_of_bits(sign | bits_of_float(magnitude));
  }
  if (exponent == 31) {
    const std::uint32_t quiet = mantissa == 0 ? 0u : 0x400000u;
    return float_of_bits(sign | 0x7f800000u | quiet | (mantissa << 13));
  }
  return float_of_bits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

static inline std::uint16_t f32_to_f16(float f) {
  const std::uint32_t u = bits_of_float(f);
  const std::uint32_t sign = (u >> 16) & 0x8000u;
  const std::uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // rounds to 65536 or more
  if (magnitude < 0x38800000u) {
    // Below the smallest normal: adding 0.5 leaves the value in units of 2^-24 in the low bits, rounded half to even.
    const float shifted = float_of_bits(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (bits_of_float(shifted) - 0x3f000000u));
  }
  const std::uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

static inline float bf16_to_f32(std::uint16_t h) { return float_of_bits(static_cast<std::uint32_t>(h) << 16); }

static inline std::uint16_t f32_to_bf16(float f) {
  const std::uint32_t u = bits_of_float(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((u | 0x400000u) >> 16);
  return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

}  // namespace kv::cpu::KV_PATH
