// attention_block_quantized: one block of one KV head of a Q8 or Q4 pool (kv_layout.h) against a few query rows.
//
// A query is rounded once a block, each group to integers of 15 bits, so that its products with codes are exact integers
// and any order of summing them gives the same bits:
//   n = round_half_even(q * (16256 / max|q|)), step = max|q| / 16256          0 where max|q| < 2^-100
//   I(g,t) = sum over d of the group of n(d) * code(d,t)
//   Q8: s = fma over g ascending, from 0, of (I * scale(g,t)) * step(g)
//   Q4: s = the same of fma(I, scale(g,t), N(g) * minimum(g,t)) * step(g)     N = sum of n
// Softmax as for float pools. Then, with w(t) = p(t) * scale(g,t):
//   Q8: o(d) = fma over t ascending, from 0, of w(t) * code(t,d)
//   Q4: the same + M(g), M = 16 lane sums over t of p(t) * minimum(g,t), then the fixed tree
// Codes are finite whatever a slot holds, so tokens a row does not see take part with weight 0, which changes no bit of a
// sum that began at +0: rows share tiles whatever their ranges. Scales and minima of such tokens are never used.
#include "cpu/kernels/attention_parts.h"
#include "cpu/kernels/kv_layout.h"
#include "cpu/kernels/transformer_path_kernels.h"
#include "cpu/simd/wide_dot.h"

namespace kv::cpu::KV_PATH {

namespace {

constexpr std::int32_t kTokens = kAttentionBlockTokens;
constexpr std::int32_t kMaxGroups = kMaxHeadDim / 64;

// Rows that pass over codes together, and strips of 16 tokens or values beside them: what the register file holds.
#if defined(KV_PATH_AVX512)
constexpr int kScoreRows = 6;
constexpr int kValueRows = 6;
template <int kRows>
constexpr int kScoreStrips = kRows <= 2 ? 4 : 2;
constexpr int kValueVectors = 4;
#elif defined(KV_PATH_SCALAR)
constexpr int kScoreRows = 1;
constexpr int kValueRows = 1;
template <int kRows>
constexpr int kScoreStrips = 1;
constexpr int kValueVectors = 2;
#else
constexpr int kScoreRows = 2;
constexpr int kValueRows = 3;
template <int kRows>
constexpr int kScoreStrips = 1;
constexpr int kValueVectors = 2;
#endif

struct Query {
  wide_query<kMaxHeadDim> n;
  float steps[kMaxGroups];
  std::int32_t sums[kMaxGroups];  // of n
};

void round_query(const float* q, const KvHeadLayout& layout, Query& out) {
  for (std::int32_t g = 0; g < layout.groups; ++g) {
    const float* x = q + g * layout.group;
    i32x16 bits = splat_i32(0);
    for (std::int32_t i = 0; i < layout.group; i += 16) {
      const int count = layout.group - i < 16 ? layout.group - i : 16;
      bits = max(bits, bits_to_i32(abs(load_first(x + i, count))));
    }
    std::int32_t lanes[16];
    store_i32(lanes, bits);
    std::int32_t largest = 0;
    for (const std::int32_t lane : lanes) largest = lane > largest ? lane : largest;
    float magnitude;
    copy_bytes(&magnitude, &largest, 4);
    const bool finite = magnitude < __builtin_inff();
    const float factor = finite && magnitude >= 0x1p-100f ? 16256.0f / magnitude : 0.0f;
    out.steps[g] = finite ? magnitude / 16256.0f : __builtin_nanf("");
    i32x16 sum = splat_i32(0);
    for (std::int32_t i = 0; i < layout.group; i += 16) {
      const int count = layout.group - i < 16 ? layout.group - i : 16;
      // Without a factor the values are not multiplied at all: infinity times 0 is no number.
      const i32x16 n = factor > 0.0f ? to_i32(load_first(x + i, count) * splat(factor)) : splat_i32(0);
      put(out.n, g * layout.group + i, n);
      sum = sum + n;
    }
    out.sums[g] = sum_lanes(sum);
  }
}

// Products of rows row .. row+kRows-1 with 16 * kScoreStrips tokens; queries begins with that row's.
template <bool kFourBits, int kRows, bool kFetch>
void score_tile(const AttentionBlockArgs& args, const KvHeadLayout& layout, const Query* queries, std::int32_t row,
                std::int32_t token) {
  constexpr int kStrips = kScoreStrips<kRows>;
  const std::int32_t quads = layout.code_bytes / 4 / layout.groups;
  const std::byte* codes = args.keys + 4 * token;
  const std::byte* ahead = args.values + std::int64_t{token} * layout.code_bytes;
  for (std::int32_t g = 0; g < layout.groups; ++g) {
    wide_sum sums[kRows][kStrips];
    for (int r = 0; r < kRows; ++r) {
      for (int s = 0; s < kStrips; ++s) sums[r][s] = no_sum();
    }
    for (std::int32_t j = 0; j < quads; ++j) {
      const std::int32_t d = g * layout.group + 4 * j;
      wide_codes first[kStrips], second[kStrips];
#pragma GCC unroll 8
      for (int s = 0; s < kStrips; ++s) {
        if constexpr (kFourBits) {
          nibble_codes(codes + 64 * s, first[s], second[s]);
        } else {
          first[s] = signed_codes(codes + 64 * s);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const wide_quad n = quad_at(queries[r].n, d);
#pragma GCC unroll 8
        for (int s = 0; s < kStrips; ++s) {
          sums[r][s] = kFourBits ? add_nibbles(sums[r][s], first[s], n) : add_signed(sums[r][s], first[s], n);
        }
        if constexpr (kFourBits) {
          const wide_quad m = quad_at(queries[r].n, d + layout.group / 2);
#pragma GCC unroll 8
          for (int s = 0; s < kStrips; ++s) sums[r][s] = add_nibbles(sums[r][s], second[s], m);
        }
      }
      codes += 4 * kTokens;
      if constexpr (kFetch) {
        fetch<64 * kStrips>(ahead);
        ahead += 64 * kStrips;
      }
    }
    for (int s = 0; s < kStrips; ++s) {
      const std::int64_t at = 2 * (std::int64_t{g} * kTokens + token + 16 * s);
      const f32x16 scale = load_f16(args.keys + layout.scales + at);
      const f32x16 minimum = kFourBits ? load_f16(args.keys + layout.minima + at) : zero();
      for (int r = 0; r < kRows; ++r) {
        const std::int32_t of_n = queries[r].sums[g];
        const f32x16 sum = to_f32(kFourBits ? total_nibbles(sums[r][s]) : total_signed(sums[r][s], of_n));
        const f32x16 product =
            kFourBits ? fma(sum, scale, splat(static_cast<float>(of_n)) * minimum) : sum * scale;
        float* to = args.scores + (row + r) * kTokens + token + 16 * s;
        store(to, fma(product, splat(queries[r].steps[g]), g == 0 ? zero() : load(to)));
      }
    }
  }
}

// Weights of row r's tokens within begin <= t < end, multiples of 16; Q4: returns M.
template <bool kFourBits>
float weigh_row(const AttentionBlockArgs& args, const KvHeadLayout& layout, std::int32_t r, std::int32_t g,
                std::int32_t begin, std::int32_t end) {
  const float* row = args.scores + r * kTokens;
  float* weights = args.scores + (kAttentionRows + r) * kTokens;
  const bool empty = args.begins[r] >= args.ends[r];
  f32x16 sum = zero();
  for (std::int32_t t = begin; t < end; t += 16) {
    if (empty || t + 16 <= args.begins[r] || t >= args.ends[r]) {
      store(weights + t, zero());
      continue;
    }
    const std::int64_t at = 2 * (std::int64_t{g} * kTokens + t);
    const f32x16 p = load(row + t);
    // p is 0 for tokens the row does not see.
    const mask16 seen = lt(zero(), p);
    store(weights + t, select(seen, p * load_f16(args.values + layout.scales + at), zero()));
    if constexpr (kFourBits) sum = sum + select(seen, p * load_f16(args.values + layout.minima + at), zero());
  }
  return sum_tree(sum);
}

// o of rows row .. row+kRows-1 for 16 * kLoads code bytes from byte i of group g on, over tokens begin <= t < end.
template <bool kFourBits, int kRows, int kLoads, bool kFetch>
void value_tile(const AttentionBlockArgs& args, const KvHeadLayout& layout, std::int32_t row, std::int32_t g,
                std::int32_t i, std::int32_t begin, std::int32_t end, const float* offsets) {
  constexpr int kVectors = kFourBits ? 2 * kLoads : kLoads;
  const std::int32_t span = layout.code_bytes / layout.groups;
  const std::byte* codes = args.values + std::int64_t{begin} * layout.code_bytes + g * span + i;
  const std::byte* ahead = kFetch ? args.next_keys + std::int64_t{g} * kTokens * span : nullptr;
  const float* weights = args.scores + (kAttentionRows + row) * kTokens;
  f32x16 sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kVectors; ++j) sums[r][j] = zero();
  }
  for (std::int32_t t = begin; t < end; ++t) {
    f32x16 v[kVectors];
    // The last bytes of a group may be fewer than 16: those after them belong to the pool too and are not kept.
#pragma GCC unroll 8
    for (int j = 0; j < kLoads; ++j) {
      if constexpr (kFourBits) {
        const i32x16 pairs = load_u8(codes + 16 * j);
        v[2 * j] = to_f32(pairs & splat_i32(15));
        v[2 * j + 1] = to_f32(shift_right<4>(pairs));
      } else {
        v[j] = to_f32(load_i8(codes + 16 * j));
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const f32x16 w = splat(weights[r * kTokens + t]);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sums[r][j] = fma(w, v[j], sums[r][j]);
    }
    codes += layout.code_bytes;
    if constexpr (kFetch) __builtin_prefetch(ahead + std::int64_t{t} * span, 0, 2);
  }
  const std::int64_t stride = attention_output_stride(args.head_dim);
  for (int r = 0; r < kRows; ++r) {
    float* output = args.out.outputs + (row + r) * stride + g * layout.group;
    for (int j = 0; j < kVectors; ++j) {
      const std::int32_t byte = i + 16 * (kFourBits ? j / 2 : j);
      const std::int32_t d = kFourBits && j % 2 == 1 ? layout.group / 2 + byte : byte;
      const std::int32_t count = span - byte < 16 ? span - byte : 16;
      store_first(output + d, kFourBits ? sums[r][j] + splat(offsets[row + r]) : sums[r][j], count);
    }
  }
}

template <bool kFourBits, int kRows, bool kFetch>
void value_group(const AttentionBlockArgs& args, const KvHeadLayout& layout, std::int32_t row, std::int32_t g,
                 std::int32_t begin, std::int32_t end, const float* offsets) {
  constexpr int kLoads = kFourBits ? kValueVectors / 2 : kValueVectors;
  const std::int32_t span = layout.code_bytes / layout.groups;
  std::int32_t i = 0;
  for (; i + 16 * kLoads <= span; i += 16 * kLoads) {
    kFetch && i == 0 ? value_tile<kFourBits, kRows, kLoads, kFetch>(args, layout, row, g, i, begin, end, offsets)
                     : value_tile<kFourBits, kRows, kLoads, false>(args, layout, row, g, i, begin, end, offsets);
  }
  for (; i < span; i += 16) {
    value_tile<kFourBits, kRows, 1, false>(args, layout, row, g, i, begin, end, offsets);
  }
}

// Calls call.operator()<n>(row) for tiles of at most kMost rows, as even as they get.
template <int kMost, typename Call>
void in_tiles(std::int32_t rows, Call&& call) {
  const std::int32_t tiles = (rows + kMost - 1) / kMost;
  const std::int32_t step = (rows + tiles - 1) / tiles;
  for (std::int32_t row = 0; row < rows; row += step) {
    const std::int32_t count = rows - row < step ? rows - row : step;
    if (count == 1) call.template operator()<1>(row);
    if constexpr (kMost >= 2) {
      if (count == 2) call.template operator()<2>(row);
    }
    if constexpr (kMost >= 3) {
      if (count == 3) call.template operator()<3>(row);
    }
    if constexpr (kMost >= 6) {
      if (count == 4) call.template operator()<4>(row);
      if (count == 5) call.template operator()<5>(row);
      if (count == 6) call.template operator()<6>(row);
    }
  }
}

template <bool kFourBits>
void attend(const AttentionBlockArgs& args) {
  const KvHeadLayout layout = kv_head_layout(args.dtype, args.head_dim, kTokens);
  const bool fetches = args.next_keys != nullptr;
  Query queries[kAttentionRows];
  std::int32_t begin = kTokens, end = 0;
  for (std::int32_t r = 0; r < args.rows; ++r) {
    if (args.begins[r] >= args.ends[r]) continue;
    begin = args.begins[r] < begin ? args.begins[r] : begin;
    end = args.ends[r] > end ? args.ends[r] : end;
  }
  for (std::int32_t r = 0; r < args.rows; ++r) round_query(args.queries[r], layout, queries[r]);
  if (fetches) {
    for (std::int64_t at = layout.scales; at < layout.bytes; at += 64) fetch<64>(args.values + at);
  }
  in_tiles<kScoreRows>(args.rows, [&]<int kRows>(std::int32_t row) {
    constexpr int kWidth = 16 * kScoreStrips<kRows>;
    for (std::int32_t t = begin / kWidth * kWidth; t < end; t += kWidth) {
      fetches && row == 0 ? score_tile<kFourBits, kRows, true>(args, layout, queries + row, row, t)
                          : score_tile<kFourBits, kRows, false>(args, layout, queries + row, row, t);
    }
  });
  for (std::int32_t r = 0; r < args.rows; ++r) {
    if (args.begins[r] < args.ends[r]) softmax_row(args, r);
  }
  if (fetches) {
    for (std::int64_t at = layout.scales; at < layout.bytes; at += 64) fetch<64>(args.next_keys + at);
  }
  const std::int32_t whole_begin = begin / 16 * 16, whole_end = (end + 15) / 16 * 16;
  for (std::int32_t g = 0; g < layout.groups; ++g) {
    float offsets[kAttentionRows];
    for (std::int32_t r = 0; r < args.rows; ++r) {
      offsets[r] = weigh_row<kFourBits>(args, layout, r, g, whole_begin, whole_end);
    }
    in_tiles<kValueRows>(args.rows, [&]<int kRows>(std::int32_t row) {
      fetches && row == 0 ? value_group<kFourBits, kRows, true>(args, layout, row, g, begin, end, offsets)
                          : value_group<kFourBits, kRows, false>(args, layout, row, g, begin, end, offsets);
    });
  }
}

}  // namespace

void attention_block_quantized(const AttentionBlockArgs& args) {
  args.dtype == KV_Q4 ? attend<true>(args) : attend<false>(args);
}

}  // namespace kv::cpu::KV_PATH
