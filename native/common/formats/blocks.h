// Block-quantized weight formats as they lie in GGUF files: plain little-endian bytes, alignment 1, so that a block may
// start anywhere in a mapped file. u16 fields are kept as two bytes and read through the loaders beside the kernels.
// Source of the layouts: the GGML block formats of GGUF; x is the value, u its unsigned code.
#pragma once

#include <cstdint>

namespace kv {

struct BlockQ8_0 {  // x = d * q
  static constexpr std::uint32_t kValues = 32;
  std::uint8_t d[2];  // f16
  std::int8_t q[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

struct BlockQ4_0 {  // x = d * (u - 8)
  static constexpr std::uint32_t kValues = 32;
  std::uint8_t d[2];   // f16
  std::uint8_t q[16];  // value i in the low nibble of q[i], value i+16 in the high one
};
static_assert(sizeof(BlockQ4_0) == 18);

struct BlockQ4_1 {  // x = d * u + m
  static constexpr std::uint32_t kValues = 32;
  std::uint8_t d[2];  // f16
  std::uint8_t m[2];  // f16
  std::uint8_t q[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

struct BlockQ5_0 {  // x = d * (u - 16)
  static constexpr std::uint32_t kValues = 32;
  std::uint8_t d[2];   // f16
  std::uint8_t h[4];   // fifth bit of value i in bit i of the little-endian word
  std::uint8_t q[16];  // low four bits, nibbles as in Q4_0
};
static_assert(sizeof(BlockQ5_0) == 22);

struct BlockQ5_1 {  // x = d * u + m
  static constexpr std::uint32_t kValues = 32;
  std::uint8_t d[2];  // f16
  std::uint8_t m[2];  // f16
  std::uint8_t h[4];
  std::uint8_t q[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

// K formats: 256 values in 8 groups of 32. scales[12] packs a 6-bit scale and a 6-bit minimum per group: groups 0-3 have
// scale in the low six bits of byte j and minimum in those of byte j+4; group j of 4-7 has the low four bits of scale and
// minimum in the two nibbles of byte j+4 and their upper two bits in the top bits of bytes j-4 and j.
struct BlockQ4_K {  // x = (d * scale) * u - (dmin * minimum)
  static constexpr std::uint32_t kValues = 256;
  std::uint8_t d[2];     // f16
  std::uint8_t dmin[2];  // f16
  std::uint8_t scales[12];
  std::uint8_t q[128];  // bytes 32j..32j+31: group 2j in the low nibbles, group 2j+1 in the high ones
};
static_assert(sizeof(BlockQ4_K) == 144);

struct BlockQ5_K {  // as Q4_K with a fifth bit: bit g of h[i] belongs to value i of group g
  static constexpr std::uint32_t kValues = 256;
  std::uint8_t d[2];     // f16
  std::uint8_t dmin[2];  // f16
  std::uint8_t scales[12];
  std::uint8_t h[32];
  std::uint8_t q[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

// 256 values in 16 groups of 16. Of each half of 128 values, value 64a + b (a < 2, b < 64) has its low four bits in the
// low (a = 0) or high (a = 1) nibble of ql[64*half + b], and its upper two in bits 2*(2a + b/32) of h[32*half + b%32].
struct BlockQ6_K {  // x = (d * scale) * (u - 32)
  static constexpr std::uint32_t kValues = 256;
  std::uint8_t ql[128];
  std::uint8_t h[64];
  std::int8_t scales[16];
  std::uint8_t d[2];  // f16
};
static_assert(sizeof(BlockQ6_K) == 210);

struct BlockMxfp4 {  // x = 2^(e - 128) * kMxfp4Values[u], twice the E2M1 value times half the E8M0 scale
  static constexpr std::uint32_t kValues = 32;
  std::uint8_t e;
  std::uint8_t q[16];  // nibbles as in Q4_0
};
static_assert(sizeof(BlockMxfp4) == 17);

static constexpr std::int8_t kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace kv
