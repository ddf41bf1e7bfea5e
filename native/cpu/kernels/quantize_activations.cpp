// quantize_activations: float32 rows to 8-bit codes, one scale per 32 values.
//   amax = max |x|    scale = amax / 127    code = round_half_even(x * (127 / amax)), all zero where amax < 2^-100
// (there 127 / amax nears the end of the float range, and a product with such a value is zero for every purpose).
// A group that holds a NaN or an infinity gets scale NaN, so that every product with it is NaN instead of a plausible
// number. Codes stay within -127 .. 127.
#include "cpu/kernels/path_kernels.h"
#include "cpu/kernels/quantized_activations.h"
#include "cpu/simd/f32x16.h"

namespace kv::cpu::KV_PATH {

namespace {

i32x16 codes_of(f32x16 x, f32x16 inverse) {
  const f32x16 rounded = round_even(x * inverse);
  return to_i32(min(max(rounded, splat(-127.0f)), splat(127.0f)));
}

void quantize_group(const float* x, const QuantizedActivations& out, std::int64_t token, std::int64_t group) {
  const f32x16 a = load(x), b = load(x + 16);
  const float amax = max_lanes(max(abs(a), abs(b)));
  // 0 for finite values (x*0 + 0), NaN otherwise: 0 * inf and 0 * NaN are NaN.
  const float poison = sum_tree(fma(a, zero(), b * zero()));
  const f32x16 inverse = splat(amax >= 0x1p-100f ? 127.0f / amax : 0.0f);
  const i32x16 code_a = codes_of(a, inverse), code_b = codes_of(b, inverse);
  std::int8_t* codes = out.codes + token * out.code_stride + group * 32;
  store_i8(codes, code_a);
  store_i8(codes + 16, code_b);
  const std::int64_t g = token * out.group_stride + group;
  const float scale = amax / 127.0f + poison;
  const std::int32_t half_sum = sum_lanes(code_a);
  const std::int32_t sum = half_sum + sum_lanes(code_b);
  out.scales[g] = scale;
  out.scaled_sums[g] = scale * static_cast<float>(sum);
  out.sums[g] = sum;
  out.half_sums[g] = half_sum;
}

}  // namespace

void quantize_activations(const QuantizeActivationsArgs& args, std::int64_t token_begin, std::int64_t token_end) {
  const QuantizedActivations out = quantized_activations_view(args.quantized, args.tokens, args.cols);
  const std::int64_t groups = args.cols / 32;
  for (std::int64_t t = token_begin; t < token_end; ++t) {
    for (std::int64_t g = 0; g < groups; ++g) quantize_group(args.x + t * args.ldx + g * 32, out, t, g);
    for (std::int64_t g = groups; g < out.group_stride; ++g) {
      const std::int64_t at = t * out.group_stride + g;
      out.scales[at] = 0.0f;
      out.scaled_sums[at] = 0.0f;
      out.sums[at] = 0;
      out.half_sums[at] = 0;
    }
    for (std::int64_t c = args.cols; c < out.code_stride; ++c) out.codes[t * out.code_stride + c] = 0;
  }
}

}  // namespace kv::cpu::KV_PATH
