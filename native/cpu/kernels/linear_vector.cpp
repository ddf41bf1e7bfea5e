// linear_vector: one token against block-quantized rows in their stored form. 16 rows lie in the lanes of the accumulator;
// each row's 64 codes are multiplied where they are loaded, and the products of 16 rows are summed across lanes together.
#include "cpu/kernels/linear_parts.h"
#include "cpu/kernels/weight_formats.h"

namespace kv::cpu::KV_PATH {

namespace {

// State of the float chains of 16 rows; see linear.cpp for the definition.
template <typename Format>
struct Chains {
  const QuantizedActivations& a;
  f32x16 acc = zero();

  // Adds one pair (groups 2*pair and 2*pair + 1) whose integer products with unsigned codes are d[row]. s and m point at
  // the pair's scales; groups says how many of the two exist.
  void add(const i32x16* d, std::int64_t pair, int groups, const f32x16* s, const f32x16* m) {
    if constexpr (Format::kKind == ScaleKind::halves) {
      i32x16 sums[4];
      row_sums16(d, sums);
      for (int h = 0; h < 4; ++h) {
        const std::int64_t g = 2 * pair + h / 2;
        const std::int32_t codes = h % 2 == 0 ? a.half_sums[g] : a.sums[g] - a.half_sums[g];
        const f32x16 exact = to_f32(sums[h] - splat_i32(Format::kZero * codes));
        acc = fma(exact, s[h] * splat(a.scales[g]), acc);
      }
    } else {
      i32x16 sums[2];
      row_sums32(d, sums);
      for (int h = 0; h < groups; ++h) {
        const std::int64_t g = 2 * pair + h;
        const i32x16 zeros = splat_i32(Format::kZero * a.sums[g]);
        const f32x16 exact = to_f32(Format::kZero == 0 ? sums[h] : sums[h] - zeros);
        acc = fma(exact, s[h] * splat(a.scales[g]), acc);
        if constexpr (Format::kKind == ScaleKind::minimum) acc = fma(m[h], splat(a.scaled_sums[g]), acc);
      }
    }
  }
};

template <typename Format, int pair>
inline void multiply_pair(const SixteenRows& rows, const QuantizedActivations& a, std::int64_t span, int second,
                          const f32x16* s, const f32x16* m, Chains<Format>& chains) {
  constexpr int per_pair = Format::kKind == ScaleKind::halves ? 4 : 2;
  const std::int64_t at = span * Format::kPairs + pair;
  const u8x64 codes = load64(a.codes + 64 * at);
  i32x16 d[16];
  for (int r = 0; r < 16; ++r) {
    d[r] = Format::dot(splat_i32(0), Format::template codes<pair>(rows.row(r), span, second), codes);
  }
  chains.add(d, at, 1 + second, s + per_pair * pair, m + per_pair * pair);
}

template <typename Format>
f32x16 multiply_rows(const SixteenRows& rows, const QuantizedActivations& a, std::int64_t groups) {
  Chains<Format> chains{a};
  f32x16 s[16], m[8];
  const std::int64_t spans = (groups + 2 * Format::kPairs - 1) / (2 * Format::kPairs);
  for (std::int64_t span = 0; span < spans; ++span) {
    const int second = Format::kPairs == 4 || 2 * span + 1 < groups ? 1 : 0;
    Format::scales(rows, span, second, s, m);
    multiply_pair<Format, 0>(rows, a, span, second, s, m, chains);
    if constexpr (Format::kPairs == 4) {
      multiply_pair<Format, 1>(rows, a, span, second, s, m, chains);
      multiply_pair<Format, 2>(rows, a, span, second, s, m, chains);
      multiply_pair<Format, 3>(rows, a, span, second, s, m, chains);
    }
  }
  return chains.acc;
}

}  // namespace

void linear_vector(const LinearArgs& args, const QuantizedActivations& a, std::int64_t row_begin,
                   std::int64_t row_end) {
  const std::int64_t stride = row_bytes(args.weight), groups = args.weight.cols / 32;
  with_format(args.weight.dtype, [&]<typename Format>() {
    for (std::int64_t r = row_begin; r < row_end;) {
      const SixteenRows rows = sixteen_rows(args.weight, stride, r, row_end);
      store_rows(rows, multiply_rows<Format>(rows, a, groups), args.bias != nullptr ? args.bias + r : nullptr,
                 args.y + r);
      r += rows.count;
    }
  });
}

}  // namespace kv::cpu::KV_PATH
