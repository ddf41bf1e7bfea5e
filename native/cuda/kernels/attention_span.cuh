// One span of attention on the matrix units: 128 tokens of the context at a multiple of 128 against rows in tiles of 8, for
// heads of 64 and 128 and pools of F16, BF16, Q8 and Q4. Strict: every float operation of a row is fixed by the row and the
// span alone, whichever tile, warp or kernel the row is in.
//
// A float32 operand x is given to the units as a sum of 16-bit terms, whose products are summed apart:
//   F16 pool    x * 2^n = hi + lo, f16, 22 bits; n makes the row's largest |q| lie in [2^14, 2^15), weights get n = 14
//   others      x = hi + mid + lo, bf16, 24 bits
// With c(hi), c(lo) the units' float32 sums over 16 dimensions or tokens at a time, ascending (mid and lo share a sum, mid
// first), a product is c(hi) + c(lo). A quantized pool's codes are bf16 integers. Then, of a span:
//   s(r,t) = product(q(r), k(t)) * (2^-n * scale)                            softcap: c * tanh(s / c)
//     Q8: the product is an fma over groups g ascending of product(q, codes) * scale(t,g)
//     Q4: likewise, after each group fma of N(r,g) * minimum(t,g), N the sum of q over the group: 4 lanes, then a butterfly
//   m(r) = max of s over the row's tokens, p = e^(s - m), the device's 2^x of (s - m) * log2(e): within 2^-22
//   l(r) = of each 32 tokens: lane j of 4 adds p of tokens 8i + 2j, 8i + 2j + 1, then a butterfly; these four in order
//   o(r,d) = product(p, v(d)) * 2^-n
//     Q8: product(p * scale(t,g), codes)     Q4: the same + M(r,g), the sum of p * minimum(t,g) in the order of l
// A token a row does not see has p = 0. What slots outside the item's range hold is replaced by zeros. So an infinity in V
// may show, as NaN, in the rows of the same step that do not see it yet; nothing else of a token does.
#pragma once

#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/matrix_units.cuh"

namespace kv::cuda {

inline constexpr int kSpanThreads = 128;
inline constexpr int kSpanWarps = kSpanThreads / 32;
inline constexpr int kTileRows = 8;
inline constexpr int kPart = kMatrixSpan / kSpanWarps;  // tokens whose sums a row's l is made of
static_assert(kPart == 32 && kBlockTokens % kMatrixSpan == 0);

// Bytes from row to row of 16-bit values in shared memory: 16 past a multiple of 32, so that 8 rows meet all banks.
template <int kDtype, int D>
struct SpanShape {
  static constexpr bool kQuantized = kDtype == KV_Q8 || kDtype == KV_Q4;
  static constexpr bool kFourBits = kDtype == KV_Q4;
  static constexpr bool kBf16 = kDtype != KV_F16;
  static constexpr int kTerms = kBf16 ? 3 : 2;
  static constexpr int kGroups = kQuantized ? D / 64 : 1;  // of dimensions with a scale of their own
  static constexpr int kCodeBytes = kDtype == KV_Q4 ? D / 2 : kDtype == KV_Q8 ? D : 2 * D;
  static constexpr int kRecord = kDtype == KV_Q4 ? kCodeBytes + 4 * kGroups
                                 : kDtype == KV_Q8 ? kCodeBytes + 2 * kGroups
                                                   : kCodeBytes;
  static constexpr int kStride = 2 * D + 16;
  static constexpr int kWide = kMatrixSpan * kStride;  // K, and V, as 16-bit values
  static constexpr int kRaw = kQuantized ? kMatrixSpan * kRecord : 0;
  static_assert(kRaw % 16 == 0 && kRaw <= kWide);
  // Shared memory: K, V; of quantized pools the records of V (those of K wait in V's place), then scales and minima of K and
  // V as floats (2, kGroups, 128) each.
  static constexpr int kRawAt = 2 * kWide, kScalesAt = kRawAt + kRaw;
  static constexpr int kScaleFloats = 2 * kGroups * kMatrixSpan;
  static constexpr int kBytes = kScalesAt + (kQuantized ? 4 * kScaleFloats * (kFourBits ? 2 : 1) : 0);
};

// A stage of shared memory with one span's keys and values.
template <int kDtype, int D>
struct SpanStage {
  using Shape = SpanShape<kDtype, D>;
  std::uint8_t* memory;

  __device__ std::uint32_t keys() const { return shared_address(memory); }
  __device__ std::uint32_t values() const { return keys() + Shape::kWide; }
  __device__ const float* scales(bool is_value, int group) const {
    const float* all = reinterpret_cast<const float*>(memory + Shape::kScalesAt);
    return all + ((is_value ? Shape::kGroups : 0) + group) * kMatrixSpan;
  }
  __device__ const float* minima(bool is_value, int group) const { return scales(is_value, group) + Shape::kScaleFloats; }

  // Copies of tokens begin .. end - 1 of a span, from its first record on; zeros where they lie outside low .. high - 1.
  __device__ void fetch(bool is_value, const std::uint8_t* from, int begin, int end, int low, int high) const {
    if constexpr (Shape::kQuantized) {
      // Whole pieces of 16 bytes: one that holds a later token's bytes too goes with that one.
      const std::uint32_t to = shared_address(memory) + (is_value ? Shape::kRawAt : Shape::kWide);
      const int stop = end == kMatrixSpan ? Shape::kRaw / 16 : end * Shape::kRecord / 16;
      for (int i = begin * Shape::kRecord / 16 + static_cast<int>(threadIdx.x); i < stop; i += kSpanThreads) {
        copy_async(to + 16 * i, from + 16 * i);
      }
    } else {
      constexpr int kChunks = D / 8, kRows = kSpanThreads / kChunks;
      const int chunk = threadIdx.x % kChunks;
      const std::uint32_t to = (is_value ? values() : keys()) + 16 * chunk;
      from += 16 * chunk;
      if (begin == 0 && end == kMatrixSpan && low <= 0 && high == kMatrixSpan) {
        const int first = threadIdx.x / kChunks;
#pragma unroll
        for (int i = 0; i < kMatrixSpan / kRows; ++i) {
          copy_async(to + (first + i * kRows) * Shape::kStride, from + (first + i * kRows) * Shape::kRecord);
        }
        return;
      }
#pragma unroll 8
      for (int row = threadIdx.x / kChunks; row < kMatrixSpan; row += kRows) {
        if (row < begin || row >= end) continue;
        copy_async(to + row * Shape::kStride, from + row * Shape::kRecord, row >= low && row < high);
      }
    }
  }

  // Quantized records, which have arrived, to 16-bit codes and float scales. Every thread; ends behind a barrier.
  __device__ void widen() const {
    if constexpr (Shape::kQuantized) {
      widen_one(false, memory + Shape::kWide);
      __syncthreads();
      widen_one(true, memory + Shape::kRawAt);
      __syncthreads();
    }
  }

 private:
  __device__ void widen_one(bool is_value, const std::uint8_t* raw) const {
    std::uint8_t* wide = memory + (is_value ? Shape::kWide : 0);
    constexpr int kWords = Shape::kCodeBytes / 4, kGroupWords = kWords / Shape::kGroups;
    for (int i = threadIdx.x; i < kMatrixSpan * kWords; i += kSpanThreads) {
      const int token = i / kWords, word = i % kWords;
      // Records of Q8 heads of 64 are 66 bytes.
      const std::uint16_t* from = reinterpret_cast<const std::uint16_t*>(raw + token * Shape::kRecord + 4 * word);
      const std::uint32_t codes = Shape::kRecord % 4 == 0 ? *reinterpret_cast<const std::uint32_t*>(from)
                                                          : from[0] | static_cast<std::uint32_t>(from[1]) << 16;
      std::uint8_t* row = wide + token * Shape::kStride;
      if constexpr (Shape::kFourBits) {
        uint2* to = reinterpret_cast<uint2*>(row + 2 * (word / kGroupWords * 64 + 4 * (word % kGroupWords)));
        to[0] = four_codes(codes & 0x0f0f0f0fu, 0);
        to[8] = four_codes(codes >> 4 & 0x0f0f0f0fu, 0);
      } else {
        *reinterpret_cast<uint2*>(row + 8 * word) = four_codes(codes ^ 0x80808080u, 128);
      }
    }
    constexpr int kHeaders = Shape::kGroups * (Shape::kFourBits ? 2 : 1);
    float* scales_at = const_cast<float*>(scales(is_value, 0));
    for (int i = threadIdx.x; i < kMatrixSpan * kHeaders; i += kSpanThreads) {
      const int token = i % kMatrixSpan, header = i / kMatrixSpan;
      const std::uint16_t bits =
          *reinterpret_cast<const std::uint16_t*>(raw + token * Shape::kRecord + Shape::kCodeBytes + 2 * header);
      const int at = header < Shape::kGroups ? header * kMatrixSpan
                                             : Shape::kScaleFloats + (header - Shape::kGroups) * kMatrixSpan;
      scales_at[at + token] = half_bits_to_float(bits);
    }
  }
  // Four unsigned bytes, each less `offset`, as bf16: 2^23 + n is exact in float32, and what is left of n is in bf16.
  __device__ static uint2 four_codes(std::uint32_t bytes, int offset) {
    std::uint32_t bits[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float raised = __uint_as_float(__byte_perm(bytes, 0x4b000000u, 0x7440 + i));
      bits[i] = __float_as_uint(raised - (0x1p23f + static_cast<float>(offset)));
    }
    return {__byte_perm(bits[0], bits[1], 0x7632), __byte_perm(bits[2], bits[3], 0x7632)};
  }
};

// Terms of two neighbouring values, packed.
template <int kDtype>
struct Terms {
  static constexpr bool kBf16 = kDtype != KV_F16;
  std::uint32_t term[kBf16 ? 3 : 2];

  __device__ void split(float x, float y) {
    term[0] = pack_rounded<kBf16>(x, y);
    rest(term[0], x, y);
    term[1] = pack_rounded<kBf16>(x, y);
    if constexpr (kBf16) {
      rest(term[1], x, y);
      term[2] = pack_rounded<true>(x, y);
    }
  }

 private:
  __device__ static void rest(std::uint32_t packed, float& x, float& y) {
    if constexpr (kBf16) {
      x = x - __uint_as_float(packed << 16);
      y = y - __uint_as_float(packed & 0xffff0000u);
    } else {
      x = x - half_bits_to_float(static_cast<std::uint16_t>(packed));
      y = y - half_bits_to_float(static_cast<std::uint16_t>(packed >> 16));
    }
  }
};

// c += a * b for 8 rows' terms: hi in the tile's upper half, the others in the lower. low, high: the terms of the first 8
// and the last 8 of the 16 dimensions or tokens.
template <int kDtype>
__device__ inline void multiply_terms(float* c, const Terms<kDtype>& low, const Terms<kDtype>& high, std::uint32_t b0,
                                      std::uint32_t b1) {
  const std::uint32_t a[4] = {low.term[0], low.term[1], high.term[0], high.term[1]};
  multiply_add<kDtype != KV_F16>(c, a, b0, b1);
  if constexpr (kDtype != KV_F16) {
    const std::uint32_t last[4] = {0, low.term[2], 0, high.term[2]};
    multiply_add<true>(c, last, b0, b1);
  }
}

__device__ inline float quad_sum(float x) {
  x = x + __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

// A tile of 8 queries as a warp's operand: lane / 4 is the row.
template <int kDtype, int D>
struct QueryTile {
  using Shape = SpanShape<kDtype, D>;
  Terms<kDtype> terms[D / 8];
  float factor;                                       // 2^-n * scale
  float sums[Shape::kFourBits ? Shape::kGroups : 1];  // N

  // A lane's values of its row of q; zeros where `row` is NULL.
  struct Values {
    float2 x[D / 8];
    __device__ void load(const float* row) {
#pragma unroll
      for (int i = 0; i < D / 8; ++i) {
        x[i] = row == nullptr ? float2{0.0f, 0.0f} : *reinterpret_cast<const float2*>(row + 8 * i + threadIdx.x % 4 * 2);
      }
    }
  };

  __device__ void take(const Values& values, float scale) {
    const float2* x = values.x;
    std::uint32_t largest = 0;
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
      largest = max(largest, max(__float_as_uint(x[i].x) & 0x7fffffffu, __float_as_uint(x[i].y) & 0x7fffffffu));
    }
    float up = 1.0f;
    factor = scale;
    if constexpr (!Shape::kBf16) {
      largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      // Exponents as stored; a row with an infinity or a NaN gives NaN as it is.
      const std::uint32_t exponent = largest >> 23, field = exponent == 255 ? 127 : min(268 - exponent, 253u);
      up = __uint_as_float(field << 23);
      factor = __uint_as_float((254 - field) << 23) * scale;
    }
#pragma unroll
    for (int i = 0; i < D / 8; ++i) terms[i].split(x[i].x * up, x[i].y * up);
    if constexpr (Shape::kFourBits) {
#pragma unroll
      for (int g = 0; g < Shape::kGroups; ++g) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) sum = (sum + x[8 * g + i].x) + x[8 * g + i].y;
        sums[g] = quad_sum(sum);
      }
    }
  }

  // Scores of 16 tokens from `token` on: s[2 * n + j] is of token + 8n + 2 * (lane % 4) + j.
  __device__ void scores(const AttentionArgs& args, const SpanStage<kDtype, D>& stage, int token, float* s) const {
    const int lane = threadIdx.x % 32;
    const std::uint32_t at = stage.keys() + (token + lane % 8 + lane / 16 * 8) * Shape::kStride + lane / 8 % 2 * 16;
    constexpr int kSteps = D / 16 / Shape::kGroups;
#pragma unroll
    for (int g = 0; g < Shape::kGroups; ++g) {
      float c[2][4] = {};
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        const int k = g * kSteps + i;
        std::uint32_t b[4];
        load_matrices(b, at + 32 * k);
        multiply_terms(c[0], terms[2 * k], terms[2 * k + 1], b[0], b[1]);
        multiply_terms(c[1], terms[2 * k], terms[2 * k + 1], b[2], b[3]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float product = c[i / 2][i % 2] + c[i / 2][i % 2 + 2];
        if constexpr (Shape::kQuantized) {
          const int t = token + 8 * (i / 2) + lane % 4 * 2 + i % 2;
          s[i] = __fmaf_rn(product, stage.scales(false, g)[t], g == 0 ? 0.0f : s[i]);
          if constexpr (Shape::kFourBits) s[i] = __fmaf_rn(sums[g], stage.minima(false, g)[t], s[i]);
        } else {
          s[i] = product;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      s[i] = s[i] * factor;
      if (args.softcap > 0) s[i] = soft_cap(s[i], args.softcap);
    }
  }
};

// e^x for x <= 0.
__device__ inline float weight_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 0x1.715476p0f));
  return y;
}

// The weights of a lane's tokens for V's group g, from p; a token the row does not see keeps 0 whatever its scale is.
template <int kDtype, int D>
__device__ inline float value_weight(const SpanStage<kDtype, D>& stage, int g, int token, float p, bool seen) {
  if constexpr (SpanShape<kDtype, D>::kQuantized) return seen ? p * stage.scales(true, g)[token] : 0.0f;
  return SpanShape<kDtype, D>::kBf16 ? p : p * 0x1p14f;
}

// A lane's two outputs of a tile of sums.
template <int kDtype>
__device__ inline float2 joined(const float* c) {
  constexpr float kDown = kDtype == KV_F16 ? 0x1p-14f : 1.0f;
  return {(c[0] + c[2]) * kDown, (c[1] + c[3]) * kDown};
}

// Calls f.template operator()<dtype, D>() for what these kernels take.
template <typename Function>
void with_span_shape(const AttentionArgs& args, Function f) {
  const auto with_head = [&]<int kDtype>() {
    args.head_dim == 64 ? f.template operator()<kDtype, 64>() : f.template operator()<kDtype, 128>();
  };
  switch (args.dtype) {
    case KV_F16: return with_head.template operator()<KV_F16>();
    case KV_BF16: return with_head.template operator()<KV_BF16>();
    case KV_Q8: return with_head.template operator()<KV_Q8>();
    default: return with_head.template operator()<KV_Q4>();
  }
}

}  // namespace kv::cuda
