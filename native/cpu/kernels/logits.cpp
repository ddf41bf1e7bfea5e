// Reductions over logits that sampling is made of: scaling, maxima and sums of exponentials per chunk of kLogitChunk.
//
//   scale_logits    x * scale, then cap * tanh(x / cap) = cap - 2 cap / (e^(2 x / cap) + 1) where cap > 0
//   chunk_maxima    maximum of each chunk; NaN counts as -infinity
//   chunk_exp_sums  sum of e^((x - maximum) * scale) of each chunk: 16 lane sums in ascending order, then the fixed tree
#include "cpu/kernels/exponential.h"
#include "cpu/kernels/transformer_path_kernels.h"

namespace kv::cpu::KV_PATH {

namespace {

// Lanes past n get `fill`.
f32x16 load_filled(const float* x, std::int64_t n, float fill) {
  if (n >= 16) return load(x);
  const int count = static_cast<int>(n);
  return select(first_lanes(count), load_first(x, count), splat(fill));
}

}  // namespace

void scale_logits(float* logits, std::int64_t n, float scale, float softcap) {
  for (std::int64_t i = 0; i < n; i += 16) {
    f32x16 x = load_filled(logits + i, n - i, 0.0f) * splat(scale);
    if (softcap > 0) x = soft_cap(x, softcap);
    store_first(logits + i, x, n - i < 16 ? static_cast<int>(n - i) : 16);
  }
}

void chunk_maxima(const float* logits, std::int64_t n, float* maxima) {
  const float lowest = -__builtin_inff();
  for (std::int64_t chunk = 0; chunk * kLogitChunk < n; ++chunk) {
    const std::int64_t begin = chunk * kLogitChunk;
    const std::int64_t end = begin + kLogitChunk < n ? begin + kLogitChunk : n;
    f32x16 most = splat(lowest);
    for (std::int64_t i = begin; i < end; i += 16) most = max(load_filled(logits + i, end - i, lowest), most);
    maxima[chunk] = max_lanes(most);
  }
}

void chunk_exp_sums(const float* logits, std::int64_t n, float maximum, float scale, float* sums) {
  const float lowest = -__builtin_inff();
  for (std::int64_t chunk = 0; chunk * kLogitChunk < n; ++chunk) {
    const std::int64_t begin = chunk * kLogitChunk;
    const std::int64_t end = begin + kLogitChunk < n ? begin + kLogitChunk : n;
    f32x16 sum = zero();
    for (std::int64_t i = begin; i < end; i += 16) {
      sum = sum + exp16((load_filled(logits + i, end - i, lowest) - splat(maximum)) * splat(scale));
    }
    sums[chunk] = sum_tree(sum);
  }
}

}  // namespace kv::cpu::KV_PATH
