// linear: y[t, r] = sum over c of w[r, c] * x[t, c] (+ bias[r]), over a range of rows.
//
// Two definitions, each independent of tiling, thread count and instruction path:
//   float activations      lane l of 16 sums the columns c = l (mod 16) with fma in ascending order; then sum_tree
//   quantized activations  per group of 32 columns (16 for Q6_K) an exact integer I = sum of (u - z) * code; then in
//                          ascending order acc = fma((float)I, scale_w * scale_a, acc) and, for formats with a minimum m,
//                          acc = fma(m, scale_a * (float)(sum of codes), acc)
#include "cpu/kernels/linear_parts.h"
#include "cpu/kernels/path_kernels.h"

namespace kv::cpu::KV_PATH {

void linear(const LinearArgs& args, std::int64_t row_begin, std::int64_t row_end, std::byte* scratch) {
  if (row_begin >= row_end || args.tokens <= 0) return;
  if (args.quantized == nullptr || !uses_quantized_activations(args.weight.dtype)) {
    return linear_float(args, row_begin, row_end, scratch);
  }
  const QuantizedActivations a =
      quantized_activations_view(const_cast<std::byte*>(args.quantized), args.tokens, args.weight.cols);
  if (args.tokens <= 3) return linear_vector(args, a, row_begin, row_end);
  linear_tiles(args, a, row_begin, row_end, scratch);
}

}  // namespace kv::cpu::KV_PATH
