// rms_norm: y = (x * inv) * w with inv = 1 / sqrt(mean(x^2) + epsilon).
//
// The sum of squares: lane l adds x[k]^2 for k = l mod 16 in ascending k by fma, then the fixed tree over lanes.
#include "cpu/kernels/transformer_path_kernels.h"
#include "cpu/simd/f32x16.h"

namespace kv::cpu::KV_PATH {

void rms_norm(const RmsNormArgs& args) {
  const std::int64_t whole = args.n / 16 * 16;
  const int rest = static_cast<int>(args.n - whole);
  f32x16 squares = zero();
  for (std::int64_t i = 0; i < whole; i += 16) {
    const f32x16 x = load(args.x + i);
    squares = fma(x, x, squares);
  }
  if (rest > 0) {
    const f32x16 x = load_first(args.x + whole, rest);
    squares = fma(x, x, squares);
  }
  const float mean = sum_tree(squares) / static_cast<float>(args.n);
  const f32x16 inverse = splat(1.0f / __builtin_sqrtf(mean + args.epsilon));
  for (std::int64_t i = 0; i < whole; i += 16) {
    store(args.y + i, (load(args.x + i) * inverse) * load(args.weight + i));
  }
  if (rest > 0) {
    const f32x16 y = (load_first(args.x + whole, rest) * inverse) * load_first(args.weight + whole, rest);
    store_first(args.y + whole, y, rest);
  }
}

}  // namespace kv::cpu::KV_PATH
