// attention: one block of one KV head against a few query rows, and the merge of blocks in ascending order.
//
//   s(r,t) = (fma over d ascending, from 0, of q(r,d) * k(d,t)) * scale        softcap: c * tanh(s / c)
//   m(r) = max of s over the row's tokens, p = e^(s - m), l = 16 lane sums of p, then the fixed tree
//   o(r,d) = fma over t ascending, from 0, of p(r,t) * v(t,d)
//   merge: m' = max(m, mb), a = e^(m - m'), b = e^(mb - m'), l' = fma(l, a, lb * b), o' = fma(o, a, ob * b)
//   finish: o / l
// K lies as (D, 256) and V as (256, D), so both products run along vector lanes. Every output has one chain of
// operations whatever rows or tokens share a tile: tiling changes speed, never bits. Tokens outside a row's range are
// never multiplied into its output, since stale slots may hold anything.
#include "cpu/kernels/attention_parts.h"
#include "cpu/kernels/exponential.h"
#include "cpu/kernels/transformer_path_kernels.h"

namespace kv::cpu::KV_PATH {

namespace {

constexpr std::int32_t kTokens = kAttentionBlockTokens;

// Vectors of a tile: with kAttentionRows rows the accumulators and one strip of operands fill the register file.
#if defined(KV_PATH_AVX512)
constexpr int kStrip = 4;
#else
constexpr int kStrip = 1;
#endif

struct PoolF32 {
  using Value = float;
  static f32x16 get(const Value* p) { return load(p); }
  static f32x16 get_first(const Value* p, int n) { return load_first(p, n); }
};
struct PoolF16 {
  using Value = std::uint16_t;
  static f32x16 get(const Value* p) { return load_f16(p); }
  static f32x16 get_first(const Value* p, int n) { return load_first_f16(p, n); }
};
struct PoolBf16 {
  using Value = std::uint16_t;
  static f32x16 get(const Value* p) { return load_bf16(p); }
  static f32x16 get_first(const Value* p, int n) { return load_first_bf16(p, n); }
};

// Raw products of rows row .. row+kRows-1 with 16 * kStrip tokens.
template <typename Pool, int kRows, bool kFetch>
void score_tile(const AttentionBlockArgs& args, std::int32_t token) {
  constexpr int kBytes = 16 * kStrip * static_cast<int>(sizeof(typename Pool::Value));
  const std::byte* ahead = args.values + std::int64_t{token} / (16 * kStrip) * args.head_dim * kBytes;
  const typename Pool::Value* keys = reinterpret_cast<const typename Pool::Value*>(args.keys) + token;
  const float* queries[kRows];
  f32x16 sums[kRows][kStrip];
  for (int r = 0; r < kRows; ++r) {
    queries[r] = args.queries[r];
    for (int j = 0; j < kStrip; ++j) sums[r][j] = zero();
  }
  for (std::int32_t d = 0; d < args.head_dim; ++d) {
    f32x16 k[kStrip];
#pragma GCC unroll 8
    for (int j = 0; j < kStrip; ++j) k[j] = Pool::get(keys + 16 * j);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const f32x16 q = splat(queries[r][d]);
#pragma GCC unroll 8
      for (int j = 0; j < kStrip; ++j) sums[r][j] = fma(q, k[j], sums[r][j]);
    }
    keys += kTokens;
    if constexpr (kFetch) fetch<kBytes>(ahead + std::int64_t{d} * kBytes);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kStrip; ++j) store(args.scores + r * kTokens + token + 16 * j, sums[r][j]);
  }
}

// Continues o of rows row .. row+kRows-1 over tokens begin <= t < end, for kVectors * 16 dimensions from d, or for the
// `partial` last ones when kVectors is 1 and partial is not 0.
template <typename Pool, int kRows, int kVectors, bool kFetch>
void value_tile(const AttentionBlockArgs& args, std::int32_t row, std::int32_t d, std::int32_t begin, std::int32_t end,
                int partial) {
  const std::int64_t stride = attention_output_stride(args.head_dim);
  float* outputs = args.out.outputs + row * stride + d;
  const float* weights = args.scores + row * kTokens;
  const typename Pool::Value* values =
      reinterpret_cast<const typename Pool::Value*>(args.values) + std::int64_t{begin} * args.head_dim + d;
  constexpr int kBytes = 16 * kVectors * static_cast<int>(sizeof(typename Pool::Value));
  const std::byte* ahead =
      kFetch ? args.next_keys + std::int64_t{d} * kTokens * static_cast<int>(sizeof(typename Pool::Value)) : nullptr;
  f32x16 sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kVectors; ++j) sums[r][j] = load(outputs + r * stride + 16 * j);
  }
  for (std::int32_t t = begin; t < end; ++t) {
    f32x16 v[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      v[j] = partial != 0 ? Pool::get_first(values, partial) : Pool::get(values + 16 * j);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const f32x16 p = splat(weights[r * kTokens + t]);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sums[r][j] = fma(p, v[j], sums[r][j]);
    }
    values += args.head_dim;
    if constexpr (kFetch) fetch<kBytes>(ahead + std::int64_t{t} * kBytes);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kVectors; ++j) store(outputs + r * stride + 16 * j, sums[r][j]);
  }
}

template <typename Pool, int kRows, bool kFetch>
void value_range(const AttentionBlockArgs& args, std::int32_t row, std::int32_t begin, std::int32_t end) {
  if (begin >= end) return;
  std::int32_t d = 0;
  for (; d + 16 * kStrip <= args.head_dim; d += 16 * kStrip) {
    value_tile<Pool, kRows, kStrip, kFetch>(args, row, d, begin, end, 0);
  }
  if constexpr (kStrip > 2) {
    if (d + 32 <= args.head_dim) {
      value_tile<Pool, kRows, 2, kFetch>(args, row, d, begin, end, 0);
      d += 32;
    }
  }
  for (; d < args.head_dim; d += 16) {
    value_tile<Pool, kRows, 1, false>(args, row, d, begin, end, args.head_dim - d < 16 ? args.head_dim - d : 0);
  }
}

// Rows of a tile end at different tokens where a chunk's own causal edge runs through the block: the tokens all rows
// see are done together, each row's own ones before and after that alone, so that every row goes upwards in t.
template <typename Pool, int kRows>
void attend(const AttentionBlockArgs& args) {
  std::int32_t least_begin = kTokens, most_begin = 0, least_end = kTokens, most_end = 0;
  bool empty_row = false;
  for (int r = 0; r < kRows; ++r) {
    if (args.begins[r] >= args.ends[r]) {
      empty_row = true;
      continue;
    }
    least_begin = args.begins[r] < least_begin ? args.begins[r] : least_begin;
    most_begin = args.begins[r] > most_begin ? args.begins[r] : most_begin;
    least_end = args.ends[r] < least_end ? args.ends[r] : least_end;
    most_end = args.ends[r] > most_end ? args.ends[r] : most_end;
  }
  for (std::int32_t t = least_begin / (16 * kStrip) * (16 * kStrip); t < most_end; t += 16 * kStrip) {
    args.next_keys != nullptr ? score_tile<Pool, kRows, true>(args, t) : score_tile<Pool, kRows, false>(args, t);
  }
  const std::int64_t stride = attention_output_stride(args.head_dim);
  for (int r = 0; r < kRows; ++r) {
    for (std::int64_t d = 0; d < stride; d += 16) store(args.out.outputs + r * stride + d, zero());
    if (args.begins[r] < args.ends[r]) softmax_row(args, r);
  }
  if (empty_row || most_begin >= least_end) {
    for (int r = 0; r < kRows; ++r) value_range<Pool, 1, false>(args, r, args.begins[r], args.ends[r]);
    return;
  }
  for (int r = 0; r < kRows; ++r) value_range<Pool, 1, false>(args, r, args.begins[r], most_begin);
  args.next_keys != nullptr ? value_range<Pool, kRows, true>(args, 0, most_begin, least_end)
                            : value_range<Pool, kRows, false>(args, 0, most_begin, least_end);
  for (int r = 0; r < kRows; ++r) value_range<Pool, 1, false>(args, r, least_end, args.ends[r]);
}

#if defined(KV_PATH_SCALAR)
// Without vector registers a tile of rows saves nothing; one row at a time keeps the code a tenth of the size.
template <typename Pool>
void attend_rows(const AttentionBlockArgs& args) {
  const std::int64_t stride = attention_output_stride(args.head_dim);
  for (std::int32_t r = 0; r < args.rows; ++r) {
    AttentionBlockArgs row = args;
    row.rows = 1;
    row.queries += r;
    row.begins += r;
    row.ends += r;
    row.out = {args.out.maxima + r, args.out.sums + r, args.out.outputs + r * stride};
    attend<Pool, 1>(row);
  }
}
#else
template <typename Pool>
void attend_rows(const AttentionBlockArgs& args) {
  static_assert(kAttentionRows == 6, "one case per number of rows");
  switch (args.rows) {
    case 1:
      return attend<Pool, 1>(args);
    case 2:
      return attend<Pool, 2>(args);
    case 3:
      return attend<Pool, 3>(args);
    case 4:
      return attend<Pool, 4>(args);
    case 5:
      return attend<Pool, 5>(args);
    default:
      return attend<Pool, 6>(args);
  }
}
#endif

}  // namespace

void attention_block(const AttentionBlockArgs& args) {
  if (args.dtype == KV_Q8 || args.dtype == KV_Q4) return attention_block_quantized(args);
  if (args.dtype == KV_F16) return attend_rows<PoolF16>(args);
  if (args.dtype == KV_BF16) return attend_rows<PoolBf16>(args);
  attend_rows<PoolF32>(args);
}

void attention_merge(const AttentionMergeArgs& args) {
  const float before = *args.into_maximum;
  const float most = before > args.from_maximum ? before : args.from_maximum;
  float exponents[16] = {before - most, args.from_maximum - most};
  store(exponents, exp16(load(exponents)));
  const f32x16 a = splat(exponents[0]);
  const f32x16 b = splat(exponents[1]);
  *args.into_maximum = most;
  *args.into_sum = __builtin_fmaf(*args.into_sum, exponents[0], args.from_sum * exponents[1]);
  for (std::int32_t d = 0; d < args.head_dim; d += 16) {
    const int n = args.head_dim - d < 16 ? args.head_dim - d : 16;
    const f32x16 from = args.from_output == nullptr ? zero() : load_first(args.from_output + d, n);
    store_first(args.into_output + d, fma(load_first(args.into_output + d, n), a, from * b), n);
  }
}

void attention_finish(const float* output, float sum, std::int32_t head_dim, float* out) {
  for (std::int32_t d = 0; d < head_dim; d += 16) {
    const int n = head_dim - d < 16 ? head_dim - d : 16;
    store_first(out + d, load_first(output + d, n) / splat(sum), n);
  }
}

}  // namespace kv::cpu::KV_PATH
