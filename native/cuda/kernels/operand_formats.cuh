// Weights as operands of the matrix units: f16, a lane's four words of a 16 x 16 tile (rows g and g + 8, columns 16q + 4t ..).
// The one definition, whatever kernel multiplies with them:
//   quantized  w = fma(h, S, C) in f16, h = code * 2^-24 (MXFP4: value * 2^-14), exact; S = scale * factor rounded,
//              C = S * -(zero point) * 2^-24 rounded, or minimum * factor * 2^-24 rounded. Codes whose nibbles lie four
//              bits up, the third and fourth of a run of four, are 16 h and meet S / 16 rounded. K formats round d * factor
//              and dmin * factor first and multiply them by the integers. factor: a power of two a row that keeps all of
//              them in f16's range
//   F16        as it is       BF16: value * factor rounded
// so that the row's product is the operands' times 2^kExponent / factor.
#pragma once

#include "cuda/kernels/arithmetic.cuh"
#include "cuda/kernels/device_matrix.h"
#include "cuda/kernels/matrix_units.cuh"

namespace kv::cuda {

__device__ inline std::uint32_t half2_fma(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
__device__ inline std::uint32_t half2_mul(std::uint32_t a, std::uint32_t b) {
  std::uint32_t d;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
__device__ inline std::uint32_t half2_add(std::uint32_t a, std::uint32_t b) {
  std::uint32_t d;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
__device__ inline std::uint32_t both_low(std::uint32_t x) { return __byte_perm(x, 0, 0x1010); }
__device__ inline std::uint32_t both_high(std::uint32_t x) { return __byte_perm(x, 0, 0x3232); }
__device__ inline float low_half(std::uint32_t x) { return half_bits_to_float(static_cast<std::uint16_t>(x)); }
__device__ inline float high_half(std::uint32_t x) { return half_bits_to_float(static_cast<std::uint16_t>(x >> 16)); }
// 1 / a power of two.
__device__ inline float inverse_power(float power) { return __uint_as_float(0x7F000000u - __float_as_uint(power)); }

// A word or more of a plane.
struct FromGlobal {
  __device__ static std::uint32_t one(const std::uint8_t* p) { return __ldg(reinterpret_cast<const std::uint32_t*>(p)); }
  __device__ static uint2 two(const std::uint8_t* p) { return __ldg(reinterpret_cast<const uint2*>(p)); }
  __device__ static uint4 four(const std::uint8_t* p) { return __ldg(reinterpret_cast<const uint4*>(p)); }
  __device__ static std::uint32_t half(const std::uint8_t* p) { return __ldg(reinterpret_cast<const std::uint16_t*>(p)); }
};
struct FromShared {
  __device__ static std::uint32_t one(const std::uint8_t* p) { return *reinterpret_cast<const std::uint32_t*>(p); }
  __device__ static uint2 two(const std::uint8_t* p) { return *reinterpret_cast<const uint2*>(p); }
  __device__ static uint4 four(const std::uint8_t* p) { return *reinterpret_cast<const uint4*>(p); }
  __device__ static std::uint32_t half(const std::uint8_t* p) { return *reinterpret_cast<const std::uint16_t*>(p); }
};
__device__ inline void put_four(uint4 v, std::uint32_t* to) {
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
  to[3] = v.w;
}

// S and C of a lane's columns in a pair, for rows g and g + 8, each in both halves of a word.
struct PairScales {
  std::uint32_t s[2], c[2];
  __device__ std::uint32_t sixteenth(int row) const { return half2_mul(s[row], 0x2c002c00u); }
};
// -(zero point) * 2^-24.
__host__ __device__ constexpr std::uint32_t minus_zero(int zero) {
  return (0x8000u | static_cast<std::uint32_t>(zero)) * 0x10001u;
}

// ---------------------------------------------------------------------------------------------------------- codes

template <int kHighBits, bool kIsMxfp4 = false>
struct NibbleOperand {
  static constexpr bool kHasFactors = true;
  static constexpr int kStagePairs = 4;
  static constexpr int kCodeBytes = 512;  // a strip's pair
  static constexpr int kHighBytes = 128 * kHighBits;
  static constexpr int kExponent = kIsMxfp4 ? 14 : 24;

  struct Codes {
    std::uint32_t words[4], high[kHighBits == 2 ? 2 : 1];
    template <typename From>
    __device__ void load(const std::uint8_t* codes, const std::uint8_t* high_plane, int lane) {
      put_four(From::four(codes + lane * 16), words);
      if constexpr (kHighBits == 1) high[0] = From::one(high_plane + lane * 4);
      if constexpr (kHighBits == 2) {
        const uint2 v = From::two(high_plane + lane * 8);
        high[0] = v.x;
        high[1] = v.y;
      }
    }
  };
  __device__ static void operand(const Codes& raw, int t, const PairScales& scales, std::uint32_t* a) {
    const std::uint32_t x = raw.words[t];
    if constexpr (kIsMxfp4) {
      constexpr std::uint32_t kSign = 0x80008000u, kValue = 0x0e000e00u;
      a[0] = half2_mul((x << 12 & kSign) | (x << 9 & kValue), scales.s[0]);
      a[2] = half2_mul((x << 8 & kSign) | (x << 5 & kValue), scales.s[0]);
      a[1] = half2_mul((x << 4 & kSign) | (x << 1 & kValue), scales.s[1]);
      a[3] = half2_mul((x & kSign) | (x >> 3 & kValue), scales.s[1]);
    } else {
      const std::uint32_t y = x >> 8;
      std::uint32_t h[4] = {x & 0x000f000fu, y & 0x000f000fu, x & 0x00f000f0u, y & 0x00f000f0u};
      if constexpr (kHighBits == 1) {
        const std::uint32_t z = raw.high[0] >> t;
        h[0] |= z & 0x00100010u;
        h[1] |= z << 4 & 0x00100010u;
        h[2] |= z & 0x01000100u;
        h[3] |= z >> 4 & 0x01000100u;
      }
      if constexpr (kHighBits == 2) {
        const std::uint32_t z = raw.high[t / 2];
        h[0] |= (t % 2 == 0 ? z : z << 4) & 0x00300030u;
        h[1] |= (t % 2 == 0 ? z >> 2 : z << 2) & 0x00300030u;
        h[2] |= (t % 2 == 0 ? z : z >> 4) & 0x03000300u;
        h[3] |= (t % 2 == 0 ? z >> 2 : z >> 6) & 0x03000300u;
      }
      a[0] = half2_fma(h[0], scales.s[0], scales.c[0]);
      a[1] = half2_fma(h[1], scales.s[1], scales.c[1]);
      a[2] = half2_fma(h[2], scales.sixteenth(0), scales.c[0]);
      a[3] = half2_fma(h[3], scales.sixteenth(1), scales.c[1]);
    }
  }
};

struct ByteOperand {
  static constexpr bool kHasFactors = true;
  static constexpr int kStagePairs = 2;
  static constexpr int kCodeBytes = 1024;
  static constexpr int kHighBytes = 0;
  static constexpr int kExponent = 24;

  struct Codes {
    std::uint32_t words[8];
    template <typename From>
    __device__ void load(const std::uint8_t* codes, const std::uint8_t*, int lane) {
      put_four(From::four(codes + lane * 16), words);
      put_four(From::four(codes + 512 + lane * 16), words + 4);
    }
  };
  __device__ static void operand(const Codes& raw, int t, const PairScales& scales, std::uint32_t* a) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const std::uint32_t x = raw.words[2 * t + row];
      a[row] = half2_fma(x & 0x00ff00ffu, scales.s[row], scales.c[row]);
      a[2 + row] = half2_fma(x >> 8 & 0x00ff00ffu, scales.s[row], scales.c[row]);
    }
  }
};

// ---------------------------------------------------------------------------------------------------------- scales
// kWords a lane of a stage (kPairs pairs); load() reads them, prepare() takes the lane's rows' factors, pair() gives one
// pair's.

// f16 d a group (MXFP4: its exponent byte); minima where kMinima.
template <int kZero, bool kMinima, bool kExponents, int kPairs>
struct GroupScales {
  static constexpr int kWords = kMinima ? 2 * kPairs : kPairs;
  static constexpr int kLaneBytes = kExponents ? 2 : kMinima ? 8 : 4;
  static constexpr int kStageBytes = 16 * kLaneBytes * kPairs;  // a strip's
  static constexpr int kExtraBytes = 0;
  std::uint32_t raw[kWords];
  float factor[2];
  template <typename From>
  __device__ void load(const std::uint8_t* scales, const std::uint8_t*, int lane) {
    const std::uint8_t* from = scales + (lane % 4 / 2 * 8 + lane / 4) * kLaneBytes;
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      if constexpr (kExponents) {
        raw[p] = From::half(from + p * 16 * kLaneBytes);
      } else if constexpr (kMinima) {
        const uint2 v = From::two(from + p * 16 * kLaneBytes);
        raw[2 * p] = v.x;
        raw[2 * p + 1] = v.y;
      } else {
        raw[p] = From::one(from + p * 16 * kLaneBytes);
      }
    }
  }
  __device__ void prepare(float low, float high) {
    factor[0] = low;
    factor[1] = high;
  }
  __device__ PairScales pair(int p) const {
    std::uint32_t s, c;
    if constexpr (kExponents) {
      // e8m0_half is half the scale.
      s = pack_rounded<false>(e8m0_half(raw[p] & 255) * (2.0f * factor[0]), e8m0_half(raw[p] >> 8) * (2.0f * factor[1]));
      return {{both_low(s), both_high(s)}, {0, 0}};
    }
    const std::uint32_t d = raw[kMinima ? 2 * p : p];
    s = pack_rounded<false>(low_half(d) * factor[0], high_half(d) * factor[1]);
    if constexpr (kMinima) {
      const std::uint32_t m = raw[2 * p + 1];
      c = pack_rounded<false>(low_half(m) * (factor[0] * 0x1p-24f), high_half(m) * (factor[1] * 0x1p-24f));
    } else {
      c = half2_mul(s, minus_zero(kZero));
    }
    return {{both_low(s), both_high(s)}, {both_low(c), both_high(c)}};
  }
};

// Q4_K, Q5_K.
struct KScales {
  static constexpr int kWords = 5;
  static constexpr int kStageBytes = 256;
  static constexpr int kExtraBytes = 0;
  std::uint32_t raw[5];  // the lane's own d and dmin, three words, the other row's d and dmin
  std::uint32_t d[2];    // of rows g and g + 8: d * factor, -dmin * factor * 2^-14
  template <typename From>
  __device__ void load(const std::uint8_t* scales, const std::uint8_t*, int lane) {
    const int at = lane / 4 * 2 + lane % 4 / 2;
    put_four(From::four(scales + at * 16), raw);
    raw[4] = From::one(scales + (at ^ 1) * 16);
  }
  __device__ void prepare(float low, float high) {
    const bool upper = threadIdx.x % 4 >= 2;
    const std::uint32_t first = upper ? raw[4] : raw[0], second = upper ? raw[0] : raw[4];
    d[0] = pack_rounded<false>(low_half(first) * low, high_half(first) * (low * -0x1p-14f));
    d[1] = pack_rounded<false>(low_half(second) * high, high_half(second) * (high * -0x1p-14f));
  }
  __device__ PairScales pair(int p) const {
    PairScales out;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const KPlace place = k_place(h, p);
      // Halves 1024 + scale and 1 + minimum * 2^-10.
      std::uint32_t both;
      if (place.high_shift < 0) {
        both = (raw[1 + place.word] >> place.shift & 0x003f003fu) | 0x3c006400u;
      } else {
        both = (raw[1 + place.word] >> place.shift & 0x000f000fu) | (raw[3] >> (place.high_shift - 4) & 0x00300030u) |
               0x3c006400u;
      }
      const std::uint32_t sc = half2_mul(half2_add(both, 0xbc00e400u), d[h]);
      out.s[h] = both_low(sc);
      out.c[h] = both_high(sc);
    }
    return out;
  }
};

// Q6_K.
struct SixScales {
  static constexpr int kWords = 3;
  static constexpr int kStageBytes = 256;
  static constexpr int kExtraBytes = 32;
  std::uint32_t raw[3];
  std::uint32_t d;  // of rows g and g + 8: d * factor
  template <typename From>
  __device__ void load(const std::uint8_t* scales, const std::uint8_t* extra, int lane) {
    const uint2 v = From::two(scales + lane * 8);
    raw[0] = v.x;
    raw[1] = v.y;
    raw[2] = From::one(extra + lane / 4 * 4);
  }
  __device__ void prepare(float low, float high) { d = pack_rounded<false>(low_half(raw[2]) * low, high_half(raw[2]) * high); }
  __device__ PairScales pair(int p) const {
    const std::uint32_t bytes = raw[p / 2] >> (p % 2 * 8) & 0x00ff00ffu;
    const std::uint32_t s = half2_mul(half2_add(bytes | 0x64006400u, 0xe480e480u), d);  // 1024 + 128 + scale
    const std::uint32_t c = half2_mul(s, minus_zero(32));
    return {{both_low(s), both_high(s)}, {both_low(c), both_high(c)}};
  }
};

struct OperandQ4_0 : NibbleOperand<0> { using Scales = GroupScales<8, false, false, 4>; };
struct OperandQ5_0 : NibbleOperand<1> { using Scales = GroupScales<16, false, false, 4>; };
struct OperandQ4_1 : NibbleOperand<0> { using Scales = GroupScales<0, true, false, 4>; };
struct OperandQ5_1 : NibbleOperand<1> { using Scales = GroupScales<0, true, false, 4>; };
struct OperandQ4_K : NibbleOperand<0> { using Scales = KScales; };
struct OperandQ5_K : NibbleOperand<1> { using Scales = KScales; };
struct OperandQ6_K : NibbleOperand<2> { using Scales = SixScales; };
struct OperandMxfp4 : NibbleOperand<0, true> { using Scales = GroupScales<0, false, true, 4>; };
struct OperandQ8_0 : ByteOperand { using Scales = GroupScales<128, false, false, 2>; };

// ---------------------------------------------------------------------------------------------------------- floats

struct NoScales {
  static constexpr int kWords = 0;
  static constexpr int kStageBytes = 0;
  static constexpr int kExtraBytes = 0;
  float factor[2];
  template <typename From>
  __device__ void load(const std::uint8_t*, const std::uint8_t*, int) {}
  __device__ void prepare(float low, float high) {
    factor[0] = low;
    factor[1] = high;
  }
  __device__ PairScales pair(int) const {
    return {{__float_as_uint(factor[0]), __float_as_uint(factor[1])}, {0, 0}};
  }
};

// 16 columns of rows g and g + 8.
template <bool kIsBf16>
struct FloatOperand {
  static constexpr int kStagePairs = 2;
  static constexpr int kCodeBytes = 2048;
  static constexpr int kHighBytes = 0;
  static constexpr int kExponent = 0;
  static constexpr bool kHasFactors = kIsBf16;
  using Scales = NoScales;

  struct Codes {
    std::uint32_t words[16];
    template <typename From>
    __device__ void load(const std::uint8_t* codes, const std::uint8_t*, int lane) {
#pragma unroll
      for (int i = 0; i < 4; ++i) put_four(From::four(codes + (i * 32 + lane) * 16), words + 4 * i);
    }
  };
  __device__ static void operand(const Codes& raw, int t, const PairScales& scales, std::uint32_t* a) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const std::uint32_t x = raw.words[8 * row + 2 * t + k];
        if constexpr (kIsBf16) {
          const float factor = __uint_as_float(scales.s[row]);
          a[2 * k + row] = pack_rounded<false>(__uint_as_float(x << 16) * factor, __uint_as_float(x & 0xffff0000u) * factor);
        } else {
          a[2 * k + row] = x;
        }
      }
    }
  }
};

}  // namespace kv::cuda
