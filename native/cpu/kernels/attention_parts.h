// What the attention kernels of float and of quantized pools share: the softmax of a row, and fetching ahead.
#pragma once

#include "cpu/kernels/exponential.h"
#include "cpu/kernels/transformer_path_kernels.h"

namespace kv::cpu::KV_PATH {

// Asks for the cache lines of `bytes` bytes. A context is far larger than the caches, its blocks lie anywhere in the pool
// and K is read in strips, which the hardware's prefetchers follow badly: one phase of a block fetches for the next.
template <int bytes>
static inline void fetch(const std::byte* from) {
  for (int i = 0; i < bytes; i += 64) __builtin_prefetch(from + i, 0, 2);
}

// Turns row r of the raw products into p and writes m and l. p is written for the row's tokens and is 0 for those around
// them up to multiples of 16; further out the raw products stay.
static inline void softmax_row(const AttentionBlockArgs& args, std::int32_t r) {
  float* row = args.scores + r * kAttentionBlockTokens;
  const std::int32_t begin = args.begins[r];
  const std::int32_t end = args.ends[r];
  const std::int32_t first = begin / 16 * 16;
  const f32x16 lowest = splat(-__builtin_inff());
  f32x16 most = lowest;
  for (std::int32_t t = first; t < end; t += 16) {
    f32x16 s = load(row + t) * splat(args.scale);
    if (args.softcap > 0) s = soft_cap(s, args.softcap);
    if (end - t < 16) s = select(first_lanes(end - t), s, lowest);
    if (begin > t) s = select(first_lanes(begin - t), lowest, s);
    store(row + t, s);
    most = max(s, most);
  }
  const float maximum = max_lanes(most);
  f32x16 sum = zero();
  for (std::int32_t t = first; t < end; t += 16) {
    f32x16 p = exp16(load(row + t) - splat(maximum));
    if (end - t < 16) p = select(first_lanes(end - t), p, zero());
    if (begin > t) p = select(first_lanes(begin - t), zero(), p);
    store(row + t, p);
    sum = sum + p;
  }
  args.out.maxima[r] = maximum;
  args.out.sums[r] = sum_tree(sum);
}

}  // namespace kv::cpu::KV_PATH
