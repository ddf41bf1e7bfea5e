// quantize_activations: float32 rows to 8-bit codes, one scale per 32 values.
//   amax = max |x|    scale = amax / 127    code = round_half_even(x * (127 / amax)), all zero where amax < 2^-100
// (there 127 / amax nears the end of the float range, and a product with such a value is zero for every purpose).
// A group that holds a NaN or an infinity gets codes 0 and scale NaN, so that every product with it is NaN instead of a
// plausible number. 16 groups are worked on together, one in each lane.
#include "cpu/kernels/path_kernels.h"
#include "cpu/kernels/quantized_activations.h"
#include "cpu/simd/u8x64.h"

namespace kv::cpu::KV_PATH {

namespace {

// Lane g of the result is what `combine` makes of the 16 lanes of v[g]; its order does not matter to the result.
template <typename Combine>
i32x16 across_lanes(i32x16* v, Combine combine) {
  transpose16(v);
  for (int step = 8; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) v[i] = combine(v[i], v[i + step]);
  }
  return v[0];
}

i32x16 magnitude_bits(f32x16 x) { return bits_to_i32(abs(x)); }

// Quantizes the first `count` of 16 groups at x into the arrays at their places.
void quantize_groups(const float* x, int count, std::int8_t* codes, float* scales, float* scaled_sums,
                     std::int32_t* sums, std::int32_t* half_sums) {
  // Magnitudes compare as integers in the same order, with infinity and NaN above all numbers.
  i32x16 v[16];
  for (int g = 0; g < 16; ++g) {
    v[g] = g < count ? max(magnitude_bits(load(x + 32 * g)), magnitude_bits(load(x + 32 * g + 16))) : splat_i32(0);
  }
  const i32x16 bits = across_lanes(v, [](i32x16 a, i32x16 b) { return max(a, b); });
  const f32x16 amax = bits_to_f32(bits);
  const mask16 finite = lt(amax, bits_to_f32(splat_i32(0x7f800000)));
  const mask16 vanishing = lt(amax, splat(0x1p-100f));
  const f32x16 scale = select(finite, amax / splat(127.0f), bits_to_f32(splat_i32(0x7fc00000)));
  float inverse[16];
  store(inverse, select(vanishing, zero(), select(finite, splat(127.0f) / amax, zero())));

  i32x16 second[16];
  for (int g = 0; g < 16; ++g) {
    v[g] = second[g] = splat_i32(0);
    if (g >= count) continue;
    const f32x16 factor = splat(inverse[g]);
    v[g] = to_i32(load(x + 32 * g) * factor);
    second[g] = to_i32(load(x + 32 * g + 16) * factor);
    store_i8(codes + 32 * g, v[g]);
    store_i8(codes + 32 * g + 16, second[g]);
  }
  const auto add = [](i32x16 a, i32x16 b) { return a + b; };
  for (int g = 0; g < 16; ++g) second[g] = second[g] + v[g];
  const i32x16 half_sum = across_lanes(v, add), sum = across_lanes(second, add);
  store(scales, scale);
  store(scaled_sums, scale * to_f32(sum));
  store_i32(sums, sum);
  store_i32(half_sums, half_sum);
}

}  // namespace

void quantize_activations(const QuantizeActivationsArgs& args, std::int64_t token_begin, std::int64_t token_end) {
  const QuantizedActivations out = quantized_activations_view(args.quantized, args.tokens, args.cols);
  const std::int64_t groups = args.cols / 32;
  for (std::int64_t t = token_begin; t < token_end; ++t) {
    std::int8_t* codes = out.codes + t * out.code_stride;
    for (std::int64_t g = 0; g < groups; g += 16) {
      const std::int64_t at = t * out.group_stride + g;
      const int count = static_cast<int>(groups - g < 16 ? groups - g : 16);
      quantize_groups(args.x + t * args.ldx + 32 * g, count, codes + 32 * g, out.scales + at, out.scaled_sums + at,
                      out.sums + at, out.half_sums + at);
    }
    for (std::int64_t c = args.cols; c < out.code_stride; ++c) codes[c] = 0;
  }
}

}  // namespace kv::cpu::KV_PATH
