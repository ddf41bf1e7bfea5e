// activation: the gated activations of feed-forward layers, and the sum of a residual.
//
//   silu        g / (1 + e^-g) * u
//   gelu_tanh   0.5 g (1 + tanh(z)) * u = g / (1 + e^-2z) * u with z = sqrt(2/pi) (g + 0.044715 g^3)
//   swiglu_oai  g' / (1 + e^(-1.702 g')) * (u' + 1), g' = min(g, 7), u' clamped to [-7, 7]
#include "cpu/kernels/exponential.h"
#include "cpu/kernels/transformer_path_kernels.h"

namespace kv::cpu::KV_PATH {

namespace {

f32x16 silu(f32x16 gate, f32x16 up) { return (gate / (splat(1.0f) + exp16(zero() - gate))) * up; }

f32x16 gelu_tanh(f32x16 gate, f32x16 up) {
  const f32x16 cubic = fma((gate * gate) * gate, splat(0.044715f), gate);
  return (gate / (splat(1.0f) + exp16(cubic * splat(-2.0f * 0.7978845608f)))) * up;
}

f32x16 swiglu_oai(f32x16 gate, f32x16 up) {
  const f32x16 g = min(gate, splat(7.0f));
  const f32x16 u = max(min(up, splat(7.0f)), splat(-7.0f));
  return (g / (splat(1.0f) + exp16(g * splat(-1.702f)))) * (u + splat(1.0f));
}

template <typename Combine>
void each(const ActivationArgs& args, Combine combine) {
  std::int64_t i = 0;
  for (; i + 16 <= args.n; i += 16) store(args.out + i, combine(load(args.gate + i), load(args.up + i)));
  const int rest = static_cast<int>(args.n - i);
  if (rest > 0) {
    store_first(args.out + i, combine(load_first(args.gate + i, rest), load_first(args.up + i, rest)), rest);
  }
}

}  // namespace

void activation(const ActivationArgs& args) {
  switch (args.kind) {
    case KV_ACT_SILU:
      return each(args, silu);
    case KV_ACT_GELU_TANH:
      return each(args, gelu_tanh);
    case KV_ACT_SWIGLU_OAI:
      return each(args, swiglu_oai);
  }
}

void add_to(float* x, const float* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) x[i] += y[i];
}

}  // namespace kv::cpu::KV_PATH
