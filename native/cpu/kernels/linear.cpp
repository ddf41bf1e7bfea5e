// linear: y[t, r] = sum over c of w[r, c] * x[t, c] (+ bias[r]).
#include "cpu/kernels/path_kernels.h"
#include "cpu/simd/f32x16.h"

namespace kv::cpu::KV_PATH {

void linear(const LinearArgs& args, std::int64_t row_begin, std::int64_t row_end, std::byte* scratch) {
  if (args.quantized != nullptr) __builtin_trap();
  const std::int64_t cols = args.weight.cols;
  float* w = reinterpret_cast<float*>(scratch);
  const std::int64_t bytes = row_bytes(args.weight);
  for (std::int64_t r = row_begin; r < row_end; ++r) {
    dequantize_row(args.weight.dtype, args.weight.data + r * bytes, cols, w);
    for (std::int64_t t = 0; t < args.tokens; ++t) {
      const float* x = args.x + t * args.ldx;
      f32x16 acc = zero();
      std::int64_t c = 0;
      for (; c + 16 <= cols; c += 16) acc = fma(load(w + c), load(x + c), acc);
      const int rest = static_cast<int>(cols - c);
      if (rest > 0) acc = select(first_lanes(rest), fma(load_first(w + c, rest), load_first(x + c, rest), acc), acc);
      const float sum = sum_tree(acc);
      args.y[t * args.ldy + r] = args.bias != nullptr ? sum + args.bias[r] : sum;
    }
  }
}

}  // namespace kv::cpu::KV_PATH
