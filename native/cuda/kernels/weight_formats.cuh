// How each format's planes (device_matrix.h) become codes and scales. A format F gives
//   F::kHigh    bytes of high bits a pair (0, 8, 16)         F::kZero   zero point of the codes
//   F::kKind    plain x = s*(u - z); minimum x = s*u + m; halves: as plain with a scale per 16 columns
//   F::kCodeWords                    stored words of a pair's codes
//   F::load_codes(w, row, pair, codes, high), F::unpack(codes, high, words)
//                                    the pair's 64 codes as 16 words, four a word, in order of columns
//   F::load_scales(w, row, pair, raw), F::scales_of(raw, pair, s, m)
//                                    s[0..1] (halves: s[0..3]) and m[0..1]
// Loading is apart from unpacking so that a kernel can have many loads on their way.
#pragma once

#include "cuda/kernels/arithmetic.cuh"
#include "cuda/kernels/device_matrix.h"

namespace kv::cuda {

enum class ScaleKind { plain, minimum, halves };

__device__ inline uint4 read16(const std::uint8_t* p) { return __ldg(reinterpret_cast<const uint4*>(p)); }
__device__ inline uint2 read8(const std::uint8_t* p) { return __ldg(reinterpret_cast<const uint2*>(p)); }
__device__ inline std::uint32_t read4(const std::uint8_t* p) { return __ldg(reinterpret_cast<const std::uint32_t*>(p)); }
__device__ inline std::uint16_t read2(const std::uint8_t* p) { return __ldg(reinterpret_cast<const std::uint16_t*>(p)); }

__device__ inline void store4(uint4 v, std::uint32_t* to) {
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
  to[3] = v.w;
}

// A word of four codes from its nibbles and the pair's high bits. n: 0-15 in the pair.
template <int kHigh>
__device__ inline std::uint32_t with_high_bits(std::uint32_t nibbles, const std::uint32_t* high, int n) {
  if constexpr (kHigh == 8) return nibbles | ((high[n % 2] >> (n / 2)) & 0x01010101u) << 4;
  if constexpr (kHigh == 16) return nibbles | ((high[n % 4] >> (2 * (n / 4))) & 0x03030303u) << 4;
  return nibbles;
}

// MXFP4: 12 + the signed value (0 1 2 3 4 6 8 12, negated by the fourth bit) of four nibbles.
__device__ inline std::uint32_t shifted_mxfp4(std::uint32_t v) {
  const std::uint32_t ones = 0x01010101u;
  const std::uint32_t upper = (v >> 2) & ones, j0 = v & ones & upper, j1 = (v >> 1) & ones & upper;
  const std::uint32_t magnitude = (v & 0x07070707u) + j0 + 2 * j1 + 2 * (j0 & j1);
  const std::uint32_t sign = ((v >> 3) & ones) * 0xffu;
  return 0x0c0c0c0cu + magnitude - 2 * (magnitude & sign);
}

template <int kHighBytes, int kZeroPoint, ScaleKind kScaleKind, bool kIsMxfp4 = false>
struct NibbleFormat {
  static constexpr int kHigh = kHighBytes;
  static constexpr int kZero = kZeroPoint;
  static constexpr ScaleKind kKind = kScaleKind;
  static constexpr bool kMxfp4 = kIsMxfp4;
  static constexpr bool kNibbles = true;
  static constexpr int kCodeWords = 8;
  __device__ static void load_codes(const DeviceMatrix& w, std::int64_t row, int pair, std::uint32_t* codes,
                                    std::uint32_t* high) {
    const std::uint8_t* p = w.codes + row * w.code_stride + pair * 32;
    store4(read16(p), codes);
    store4(read16(p + 16), codes + 4);
    if constexpr (kHigh == 8) {
      const uint2 h = read8(w.high + row * w.high_stride + pair * 8);
      high[0] = h.x;
      high[1] = h.y;
    }
    if constexpr (kHigh == 16) store4(read16(w.high + row * w.high_stride + pair * 16), high);
  }
  __device__ static void unpack(const std::uint32_t* codes, const std::uint32_t* high, std::uint32_t* words) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      std::uint32_t low = codes[i] & 0x0f0f0f0fu, up = (codes[i] >> 4) & 0x0f0f0f0fu;
      if constexpr (kMxfp4) {
        low = shifted_mxfp4(low);
        up = shifted_mxfp4(up);
      }
      words[i] = with_high_bits<kHigh>(low, high, i);
      words[8 + i] = with_high_bits<kHigh>(up, high, 8 + i);
    }
  }
};

// 2^23 as float bits, whose low byte becomes another's in byte_as_float.
inline constexpr std::uint32_t kByteBits = 0x4B000000u;
// 2^23 + byte `at` of word, exact. bits: kByteBits.
__device__ inline float byte_as_float(std::uint32_t word, std::uint32_t bits, int at) {
  return __uint_as_float(__byte_perm(word, bits, 0x7440u | static_cast<std::uint32_t>(at)));
}
// d times the byte, exact (d has 11 significant bits); offset: -2^23 * d.
__device__ inline float times_byte(float d, float offset, std::uint32_t word, std::uint32_t bits, int at) {
  return __fmaf_rn(byte_as_float(word, bits, at), d, offset);
}
// The same of a signed byte, given with its upper bit flipped.
__device__ inline float times_signed_byte(float d, std::uint32_t flipped, std::uint32_t bits, int at) {
  return (byte_as_float(flipped, bits, at) - 8388736.0f) * d;
}

// f16 d a group.
struct ScalesD {
  static constexpr int kScaleBytes = 16;  // a block of 256 columns
  __device__ static void load_scales(const DeviceMatrix& w, std::int64_t row, int pair, std::uint32_t* raw) {
    raw[0] = read4(w.scales + row * w.scale_stride + pair * 4);
  }
  template <bool kForProduct = false>
  __device__ static void scales_of(const std::uint32_t* raw, int, float* s, float*) {
    s[0] = half_bits_to_float(static_cast<std::uint16_t>(raw[0]));
    s[1] = half_bits_to_float(static_cast<std::uint16_t>(raw[0] >> 16));
  }
};
// f16 d and m a group.
struct ScalesDM {
  static constexpr int kScaleBytes = 32;
  __device__ static void load_scales(const DeviceMatrix& w, std::int64_t row, int pair, std::uint32_t* raw) {
    const uint2 d = read8(w.scales + row * w.scale_stride + pair * 8);
    raw[0] = d.x;
    raw[1] = d.y;
  }
  template <bool kForProduct = false>
  __device__ static void scales_of(const std::uint32_t* raw, int, float* s, float* m) {
    s[0] = half_bits_to_float(static_cast<std::uint16_t>(raw[0]));
    m[0] = half_bits_to_float(static_cast<std::uint16_t>(raw[0] >> 16));
    s[1] = half_bits_to_float(static_cast<std::uint16_t>(raw[1]));
    m[1] = half_bits_to_float(static_cast<std::uint16_t>(raw[1] >> 16));
  }
};
// Q4_K and Q5_K; the packing is described at BlockQ4_K.
struct ScalesK {
  static constexpr int kScaleBytes = 16;
  __device__ static void load_scales(const DeviceMatrix& w, std::int64_t row, int pair, std::uint32_t* raw) {
    store4(read16(w.scales + row * w.scale_stride + pair / 4 * 16), raw);
  }
  // A product may lose the sign of a zero that a weight as float32 keeps.
  template <bool kForProduct = false>
  __device__ static void scales_of(const std::uint32_t* raw, int pair, float* s, float* m) {
    const float d = half_bits_to_float(static_cast<std::uint16_t>(raw[0]));
    const float minus_dmin = -half_bits_to_float(static_cast<std::uint16_t>(raw[0] >> 16));
    const int c = pair % 4;
    // Two neighbouring groups are two neighbouring bytes of each word.
    const int shift = 16 * (c % 2);
    const std::uint32_t w0 = raw[1] >> shift, w1 = raw[2] >> shift, w2 = raw[3] >> shift;
    std::uint32_t scale, minimum;
    if (c < 2) {
      scale = w0 & 0x3f3fu;
      minimum = w1 & 0x3f3fu;
    } else {
      scale = (w2 & 0x0f0fu) | ((w0 >> 2) & 0x3030u);
      minimum = ((w2 >> 4) & 0x0f0fu) | ((w1 >> 2) & 0x3030u);
    }
    if constexpr (kForProduct) {
      const float d_offset = d * -8388608.0f, dmin_offset = minus_dmin * -8388608.0f;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        s[i] = times_byte(d, d_offset, scale, kByteBits, i);
        m[i] = times_byte(minus_dmin, dmin_offset, minimum, kByteBits, i);
      }
    } else {
      s[0] = d * static_cast<float>(scale & 0xff);
      s[1] = d * static_cast<float>((scale >> 8) & 0xff);
      m[0] = minus_dmin * static_cast<float>(minimum & 0xff);
      m[1] = minus_dmin * static_cast<float>((minimum >> 8) & 0xff);
    }
  }
};

struct FormatQ4_0 : NibbleFormat<0, 8, ScaleKind::plain>, ScalesD {};
struct FormatQ5_0 : NibbleFormat<8, 16, ScaleKind::plain>, ScalesD {};
struct FormatQ4_1 : NibbleFormat<0, 0, ScaleKind::minimum>, ScalesDM {};
struct FormatQ5_1 : NibbleFormat<8, 0, ScaleKind::minimum>, ScalesDM {};
struct FormatQ4_K : NibbleFormat<0, 0, ScaleKind::minimum>, ScalesK {};
struct FormatQ5_K : NibbleFormat<8, 0, ScaleKind::minimum>, ScalesK {};
struct FormatQ6_K : NibbleFormat<16, 32, ScaleKind::halves> {
  static constexpr int kScaleBytes = 16;
  __device__ static void load_scales(const DeviceMatrix& w, std::int64_t row, int pair, std::uint32_t* raw) {
    raw[0] = read4(w.scales + row * w.scale_stride + pair * 4);
    raw[1] = read2(w.extra + row * w.extra_stride + pair / 4 * 2);
  }
  template <bool kForProduct = false>
  __device__ static void scales_of(const std::uint32_t* raw, int, float* s, float*) {
    const float d = half_bits_to_float(static_cast<std::uint16_t>(raw[1]));
#pragma unroll
    for (int i = 0; i < 4; ++i) s[i] = times_signed_byte(d, raw[0] ^ 0x80808080u, kByteBits, i);
  }
};
struct FormatMxfp4 : NibbleFormat<0, 12, ScaleKind::plain, true> {
  static constexpr int kScaleBytes = 8;
  __device__ static void load_scales(const DeviceMatrix& w, std::int64_t row, int pair, std::uint32_t* raw) {
    raw[0] = read2(w.scales + row * w.scale_stride + pair * 2);
  }
  template <bool kForProduct = false>
  __device__ static void scales_of(const std::uint32_t* raw, int, float* s, float*) {
    s[0] = e8m0_half(raw[0] & 255);
    s[1] = e8m0_half(raw[0] >> 8);
  }
};
struct FormatQ8_0 : ScalesD {
  static constexpr int kHigh = 0;
  static constexpr int kZero = 0;
  static constexpr ScaleKind kKind = ScaleKind::plain;
  static constexpr bool kMxfp4 = false;
  static constexpr bool kNibbles = false;
  static constexpr int kCodeWords = 16;
  __device__ static void load_codes(const DeviceMatrix& w, std::int64_t row, int pair, std::uint32_t* codes,
                                    std::uint32_t*) {
    const std::uint8_t* p = w.codes + row * w.code_stride + pair * 64;
#pragma unroll
    for (int i = 0; i < 4; ++i) store4(read16(p + 16 * i), codes + 4 * i);
  }
  __device__ static void unpack(const std::uint32_t* codes, const std::uint32_t*, std::uint32_t* words) {
#pragma unroll
    for (int i = 0; i < 16; ++i) words[i] = codes[i];
  }
};

// A pair as it is stored.
template <typename Format>
struct RawPair {
  std::uint32_t codes[Format::kCodeWords], high[4], scales[4];
  __device__ void load(const DeviceMatrix& w, std::int64_t row, int pair) {
    Format::load_codes(w, row, pair, codes, high);
    Format::load_scales(w, row, pair, scales);
  }
};

template <typename Format>
__device__ inline void read_scales(const DeviceMatrix& w, std::int64_t row, int pair, float* s, float* m) {
  std::uint32_t raw[4];
  Format::load_scales(w, row, pair, raw);
  Format::scales_of(raw, pair, s, m);
}

// ------------------------------------------------------------------------------------------- weights as float32

// Eight neighbouring columns, 8 * chunk .. + 7, exactly as the format defines them: every product rounded on its own.
template <typename Format>
struct LoadQuantized {
  template <bool kWhole = true>
  __device__ static void eight(const DeviceMatrix& w, std::int64_t row, int chunk, float* out) {
    const int pair = chunk / 8, group = chunk / 4 % 2, at = chunk % 4 * 8;
    float s[4], m[2] = {0.0f, 0.0f};
    read_scales<Format>(w, row, pair, s, m);
    const float scale = Format::kKind == ScaleKind::halves ? s[2 * group + at / 16] : s[group];
    std::uint32_t words[2];
    if constexpr (Format::kNibbles) {
      const uint2 raw = read8(w.codes + row * w.code_stride + pair * 32 + at);
      words[0] = (raw.x >> (4 * group)) & 0x0f0f0f0fu;
      words[1] = (raw.y >> (4 * group)) & 0x0f0f0f0fu;
      if constexpr (Format::kMxfp4) {
        words[0] = shifted_mxfp4(words[0]);
        words[1] = shifted_mxfp4(words[1]);
      }
      if constexpr (Format::kHigh != 0) {
        const int n = group * 8 + at / 4;
        std::uint32_t high[Format::kHigh / 4];
        for (int i = 0; i < Format::kHigh / 4; ++i) {
          high[i] = read4(w.high + row * w.high_stride + pair * Format::kHigh + 4 * i);
        }
        words[0] = with_high_bits<Format::kHigh>(words[0], high, n);
        words[1] = with_high_bits<Format::kHigh>(words[1], high, n + 1);
      }
    } else {
      const uint2 raw = read8(w.codes + row * w.code_stride + pair * 64 + group * 32 + at);
      words[0] = raw.x;
      words[1] = raw.y;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int code = static_cast<std::int8_t>(words[i / 4] >> (8 * (i % 4)));
      out[i] = static_cast<float>(code - Format::kZero) * scale;
      if constexpr (Format::kKind == ScaleKind::minimum) out[i] = out[i] + m[group];
    }
  }
};

// Floats. kWhole: rows are whole chunks of eight, and so aligned; known beforehand it costs no branch.
template <typename Value, float (*to_float)(Value)>
struct LoadFloats {
  // Eight columns as they are stored, of rows that are whole chunks.
  struct Raw {
    uint4 part[sizeof(Value) / 2];
  };
  __device__ static Raw load(const DeviceMatrix& w, std::int64_t row, int chunk) {
    const std::uint8_t* p = w.codes + row * w.code_stride + chunk * std::int64_t{8 * sizeof(Value)};
    Raw raw;
#pragma unroll
    for (unsigned i = 0; i < sizeof(Value) / 2; ++i) raw.part[i] = read16(p + 16 * i);
    return raw;
  }
  __device__ static void convert(const Raw& raw, float* out) {
    const Value* values = reinterpret_cast<const Value*>(raw.part);
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = to_float(values[i]);
  }
  template <bool kWhole = false>
  __device__ static void eight(const DeviceMatrix& w, std::int64_t row, int chunk, float* out) {
    const Value* p = reinterpret_cast<const Value*>(w.codes + row * w.code_stride) + 8 * chunk;
    if (kWhole || w.cols % 8 == 0) {
      uint4 raw[sizeof(Value) / 2];
#pragma unroll
      for (unsigned i = 0; i < sizeof(Value) / 2; ++i) raw[i] = read16(reinterpret_cast<const std::uint8_t*>(p) + 16 * i);
      const Value* values = reinterpret_cast<const Value*>(raw);
#pragma unroll
      for (int i = 0; i < 8; ++i) out[i] = to_float(values[i]);
    } else {
      for (int i = 0; i < 8; ++i) out[i] = 8 * chunk + i < w.cols ? to_float(p[i]) : 0.0f;
    }
  }
};
__device__ inline float same_float(float v) { return v; }
using LoadF32 = LoadFloats<float, same_float>;
using LoadF16 = LoadFloats<std::uint16_t, half_bits_to_float>;
using LoadBf16 = LoadFloats<std::uint16_t, bf16_bits_to_float>;

}  // namespace kv::cuda
