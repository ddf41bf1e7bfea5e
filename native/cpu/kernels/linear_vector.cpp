// linear_vector: one token, or two or three in turn, against block-quantized rows in their stored form. 16 rows lie in
// the lanes of the accumulator. Codes are multiplied where they are loaded; what is left of 16 rows is summed across
// lanes together.
//
// The scales of 16 rows lie far apart. They are copied word by word into a small buffer one span ahead of their use: the
// copies run on ports the products leave free, and are complete when the vector load that collects them comes. The rows
// of the next tile are fetched into the cache meanwhile, since 16 rows side by side are no stream a prefetcher follows.
#include "cpu/kernels/linear_parts.h"
#include "cpu/kernels/weight_formats.h"

namespace kv::cpu::KV_PATH {

namespace {

// Scale words of one span.
template <typename Format>
struct Staged {
  alignas(64) std::int32_t words[Format::kWords][16];

  void fill(const RowCursor& at, int second) {
    at.each_row([&](int r, const std::uint8_t* p) {
      for (int i = 0; i < Format::kWords; ++i) copy_bytes(&words[i][r], p + Format::word_offset(i, second), 4);
    });
  }
};

// One token's activations.
struct Activations {
  const std::int8_t* codes;
  const float* scales;
  const float* scaled_sums;
  const std::int32_t* sums;
  const std::int32_t* half_sums;
};

// acc after group g of 16 rows, whose integer products with unsigned codes are `products`; see linear.cpp.
template <typename Format>
inline f32x16 add_group(f32x16 acc, i32x16 products, const Activations& a, std::int64_t g, f32x16 s, f32x16 m) {
  const i32x16 exact = Format::kZero == 0 ? products : products - splat_i32(a.sums[g]) * splat_i32(Format::kZero);
  acc = fma(to_f32(exact), s * splat(a.scales[g]), acc);
  if constexpr (Format::kKind == ScaleKind::minimum) acc = fma(m, splat(a.scaled_sums[g]), acc);
  return acc;
}

// Pair `pair` of a span whose first group is `group` of the row. s and m are the span's scales and minima.
template <typename Format, int pair, int second>
inline f32x16 add_pair(f32x16 acc, const RowCursor& at, std::int64_t group, const Activations& a, const f32x16* s,
                       const f32x16* m) {
  group += 2 * pair;
  const u8x64 codes = load64(a.codes + 32 * group);
  i32x16 d[16];
  at.each_row([&](int r, const std::uint8_t* p) {
    d[r] = Format::dot(splat_i32(0), Format::template codes<pair>(p, second), codes);
  });
  if constexpr (Format::kKind == ScaleKind::halves) {
    i32x16 sums[4];
    row_sums16(d, sums);
    for (int h = 0; h < 4; ++h) {
      const std::int64_t g = group + h / 2;
      const std::int32_t codes_sum = h % 2 == 0 ? a.half_sums[g] : a.sums[g] - a.half_sums[g];
      const f32x16 exact = to_f32(sums[h] - splat_i32(codes_sum) * splat_i32(Format::kZero));
      acc = fma(exact, s[4 * pair + h] * splat(a.scales[g]), acc);
    }
  } else {
    i32x16 sums[2];
    row_sums32(d, sums);
    acc = add_group<Format>(acc, sums[0], a, group, s[2 * pair], m[2 * pair]);
    if (second != 0) acc = add_group<Format>(acc, sums[1], a, group + 1, s[2 * pair + 1], m[2 * pair + 1]);
  }
  return acc;
}

// The products of rows j, 4 + j, 8 + j and 12 + j with block g; bits are the fifth bits of all rows, where there are any.
template <typename Format, int g, int j>
inline i32x16 multiply_nibbles(const RowCursor& at, u8x64 low_codes, u8x64 high_codes, i32x16 bits) {
  const std::int64_t s4 = hidden(4 * at.stride);
  const std::uint8_t* p = hidden(at.row0 + j * at.stride);
  const auto nibbles = [&](std::int64_t offset) { return Format::blocks(p + offset)[g].q; };
  const u8x64 x = load16x4(nibbles(0), nibbles(s4), nibbles(2 * s4), nibbles(3 * s4));
  u8x64 low = Format::from_nibble(low_bits(x, 4));
  u8x64 high = Format::from_nibble(low_bits(shift_right_halves<4, 4>(x), 4));
  if constexpr (Format::kHighBits) {
    low = add_row_bits<j, false>(low, bits, 16);
    high = add_row_bits<j, true>(high, bits, 16);
  }
  return Format::dot(Format::dot(splat_i32(0), low, low_codes), high, high_codes);
}

// Block g of a span of a nibble format: four rows in one vector, so that only four words a row are left to sum.
template <typename Format, int g>
inline f32x16 add_nibbles(f32x16 acc, const RowCursor& at, std::int64_t group, const Activations& a,
                          const i32x16* words, const f32x16* s, const f32x16* m) {
  group += g;
  const u8x64 low_codes = load16_four_times(a.codes + 32 * group);
  const u8x64 high_codes = load16_four_times(a.codes + 32 * group + 16);
  const i32x16 bits = words[Format::kHighBits ? 2 + g : 0];
  const i32x16 d[4] = {multiply_nibbles<Format, g, 0>(at, low_codes, high_codes, bits),
                       multiply_nibbles<Format, g, 1>(at, low_codes, high_codes, bits),
                       multiply_nibbles<Format, g, 2>(at, low_codes, high_codes, bits),
                       multiply_nibbles<Format, g, 3>(at, low_codes, high_codes, bits)};
  return add_group<Format>(acc, quarter_sums4(d), a, group, s[g], m[g]);
}

// One span, whose scales lie staged in `now`.
template <typename Format, int second>
inline f32x16 add_span(f32x16 acc, const RowCursor& at, std::int64_t group, const Activations& a,
                       const Staged<Format>& now) {
  i32x16 words[Format::kWords];
  f32x16 s[16], m[8];
  for (int i = 0; i < Format::kWords; ++i) words[i] = load_i32(now.words[i]);
  Format::scales(words, s, m);
  if constexpr (Format::kNibbles) {
    acc = add_nibbles<Format, 0>(acc, at, group, a, words, s, m);
    if constexpr (second != 0) acc = add_nibbles<Format, 1>(acc, at, group, a, words, s, m);
  } else {
    acc = add_pair<Format, 0, second>(acc, at, group, a, s, m);
    if constexpr (Format::kPairs == 4) {
      acc = add_pair<Format, 1, 1>(acc, at, group, a, s, m);
      acc = add_pair<Format, 2, 1>(acc, at, group, a, s, m);
      acc = add_pair<Format, 3, 1>(acc, at, group, a, s, m);
    }
  }
  return acc;
}

template <typename Format>
f32x16 multiply_rows(const SixteenRows& rows, const Activations& a, std::int64_t groups, Prefetch<3>& prefetch) {
  constexpr int per_span = 2 * Format::kPairs;
  Staged<Format> staged[2];
  RowCursor at(rows), ahead(rows);
  const int whole = static_cast<int>(groups / per_span), odd = static_cast<int>(groups % per_span);
  f32x16 acc = zero();
  staged[0].fill(ahead, whole > 0 ? 1 : 0);
  for (int span = 0; span < whole; ++span) {
    ahead.advance(Format::kSpanBytes);
    if (span + 1 < whole) staged[(span + 1) % 2].fill(ahead, 1);
    prefetch.advance(16 * Format::kSpanBytes);
    acc = add_span<Format, 1>(acc, at, per_span * span, a, staged[span % 2]);
    at.advance(Format::kSpanBytes);
  }
  if constexpr (Format::kPairs == 1) {
    if (odd != 0) {
      staged[0].fill(at, 0);
      acc = add_span<Format, 0>(acc, at, 2 * whole, a, staged[0]);
    }
  }
  return acc;
}

}  // namespace

void linear_vector(const LinearArgs& args, const QuantizedActivations& a, std::int64_t row_begin,
                   std::int64_t row_end) {
  const std::int64_t stride = row_bytes(args.weight), groups = args.weight.cols / 32;
  const std::uint8_t* end = reinterpret_cast<const std::uint8_t*>(args.weight.data) + row_end * stride;
  with_format(args.weight.dtype, [&]<typename Format>() {
    for (std::int64_t r = row_begin; r < row_end;) {
      const SixteenRows rows = sixteen_rows(args.weight, stride, r, row_end);
      Prefetch<3> prefetch{rows.row(15) + rows.stride, end};
      for (std::int64_t t = 0; t < args.tokens; ++t) {
        const std::int64_t at = t * a.group_stride;
        const Activations token{a.codes + t * a.code_stride, a.scales + at, a.scaled_sums + at, a.sums + at,
                                a.half_sums + at};
        const f32x16 sum = multiply_rows<Format>(rows, token, groups, prefetch);
        store_rows(rows, sum, args.bias != nullptr ? args.bias + r : nullptr, args.y + t * args.ldy + r);
        prefetch.end = prefetch.next;  // once a tile
      }
      r += rows.count;
    }
  });
}

}  // namespace kv::cpu::KV_PATH
