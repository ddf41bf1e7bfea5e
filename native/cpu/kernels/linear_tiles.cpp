// linear_tiles: several tokens against block-quantized rows. A panel of row tiles is unpacked once into scratch, 16 rows
// in lanes, and all tokens pass over it; sums stay in lanes, so nothing is summed horizontally.
//   tile, codes   (pairs, 16 words, 16 rows, 4)  unsigned codes: word w of pair p holds columns 64p + 4w .. + 3
//   tile, scales  (groups or half groups, 16 rows) float32, then minima of the same shape where the format has them
// Scratch: corrections of a block of tokens, then the panel's tiles.
#include "cpu/kernels/linear_parts.h"
#include "cpu/kernels/linear_scratch.h"
#include "cpu/kernels/weight_formats.h"

namespace kv::cpu::KV_PATH {

namespace {

#if defined(KV_PATH_AVX512)
// 2 row tiles x 6 tokens: 12 integer and 12 float accumulators, 2 weight words and 1 activation word in 32 registers, and
// 12 independent chains where VNNI needs 10 (5 cycles, 2 a cycle).
constexpr int kRowTiles = 2, kTokens = 6;
#elif defined(KV_PATH_AVX2)
constexpr int kRowTiles = 1, kTokens = 3;
#else
constexpr int kRowTiles = 1, kTokens = 4;
#endif

struct Tile {
  std::byte* codes;
  float* scales;
  float* minima;
  SixteenRows rows;
  std::int64_t row;  // the weight's row that rows.first_lane holds
};

Tile make_tile(std::byte* memory, std::int64_t groups, const SixteenRows& rows, std::int64_t row) {
  const std::int64_t pairs = (groups + 1) / 2;
  float* scales = reinterpret_cast<float*>(memory + pairs * 1024);
  return {memory, scales, scales + 16 * 2 * pairs, rows, row};
}

// ------------------------------------------------------------------------------------------------------------ packing

template <typename Format, int pair>
inline void pack_pair(const RowCursor& at, int second, std::byte* to) {
  u8x64 v[16];
  at.each_row([&](int r, const std::uint8_t* p) { v[r] = Format::template codes<pair>(p, second); });
  transpose16(v);
  for (int w = 0; w < 16; ++w) store64(to + 64 * w, v[w]);
}

// Packs one span, whose first group is `group` of the row.
template <typename Format, int second>
inline void pack_span(const RowCursor& at, std::int64_t group, const Tile& tile) {
  constexpr int per_group = Format::kKind == ScaleKind::halves ? 2 : 1;
  constexpr int count = (Format::kPairs == 4 ? 8 : 1 + second) * per_group;
  i32x16 words[Format::kWords];
  f32x16 s[16], m[8];
  gather_scale_words<Format>(at, second, words);
  Format::scales(words, s, m);
  for (int i = 0; i < count; ++i) {
    store(tile.scales + (group * per_group + i) * 16, s[i]);
    if constexpr (Format::kKind == ScaleKind::minimum) store(tile.minima + (group + i) * 16, m[i]);
  }
  std::byte* codes = tile.codes + group * 512;
  pack_pair<Format, 0>(at, second, codes);
  if constexpr (Format::kPairs == 4) {
    pack_pair<Format, 1>(at, second, codes + 1024);
    pack_pair<Format, 2>(at, second, codes + 2048);
    pack_pair<Format, 3>(at, second, codes + 3072);
  }
}

template <typename Format>
void pack_tile(const Tile& tile, std::int64_t groups) {
  constexpr int per_span = 2 * Format::kPairs;
  RowCursor at(tile.rows);
  std::int64_t g = 0;
  for (; g + per_span <= groups; g += per_span) {
    pack_span<Format, 1>(at, g, tile);
    at.advance(Format::kSpanBytes);
  }
  if constexpr (Format::kPairs == 1) {
    if (g < groups) pack_span<Format, 0>(at, g, tile);
  }
}

// --------------------------------------------------------------------------------------------------------- multiplying

// What the product of a packed tile still has to know of its format.
template <ScaleKind kind, bool signed_codes, bool has_zero>
struct Recipe {
  static constexpr ScaleKind kKind = kind;
  static constexpr bool kHasZero = has_zero;
  static constexpr std::int64_t kHalves = kind == ScaleKind::halves ? 2 : 1;  // scales per group

  static i32x16 dot(i32x16 acc, u8x64 w, u8x64 a) {
    if constexpr (signed_codes) return dot_q8(acc, w, a);
    return kv::cpu::KV_PATH::dot(acc, w, a);
  }
};
template <typename Format>
using RecipeOf = Recipe<Format::kKind, Format::kSignedCodes, Format::kZero != 0>;

// Activations of the tokens of one tile, as seen from its first token.
struct TokenTile {
  const std::int8_t* codes;
  std::int64_t code_stride;
  const float* scales;
  const float* scaled_sums;
  const std::int32_t* corrections;  // -z * (sum of codes), (tokens, halves, group_stride)
  std::int64_t group_stride;
};

inline std::int32_t word_at(const std::int8_t* p) {
  std::int32_t word;
  copy_bytes(&word, p, 4);
  return word;
}

// One group (or half group): words first_word .. + n_words - 1 of the group, then the float chain.
template <typename Rule, int row_tiles, int tokens, int n_words>
inline void add_group(const Tile* tiles, const TokenTile& a, std::int64_t group, int half, f32x16 (*acc)[tokens]) {
  const std::int64_t scale_index = group * Rule::kHalves + half;
  i32x16 d[row_tiles][tokens];
  for (int t = 0; t < tokens; ++t) {
    const std::int32_t start = Rule::kHasZero ? a.corrections[(t * Rule::kHalves + half) * a.group_stride + group] : 0;
    for (int i = 0; i < row_tiles; ++i) d[i][t] = splat_i32(start);
  }
  const std::int64_t code_offset = group * 32 + half * 16;
  for (int w = 0; w < n_words; ++w) {
    u8x64 weights[row_tiles];
    for (int i = 0; i < row_tiles; ++i) weights[i] = load64(tiles[i].codes + (code_offset / 4 + w) * 64);
    for (int t = 0; t < tokens; ++t) {
      const u8x64 x = quad(word_at(a.codes + t * a.code_stride + code_offset + 4 * w));
      for (int i = 0; i < row_tiles; ++i) d[i][t] = Rule::dot(d[i][t], weights[i], x);
    }
  }
  for (int i = 0; i < row_tiles; ++i) {
    const f32x16 scale = load(tiles[i].scales + scale_index * 16);
    for (int t = 0; t < tokens; ++t) {
      acc[i][t] = fma(to_f32(d[i][t]), scale * splat(a.scales[t * a.group_stride + group]), acc[i][t]);
    }
    if constexpr (Rule::kKind == ScaleKind::minimum) {
      const f32x16 minimum = load(tiles[i].minima + scale_index * 16);
      for (int t = 0; t < tokens; ++t) {
        acc[i][t] = fma(minimum, splat(a.scaled_sums[t * a.group_stride + group]), acc[i][t]);
      }
    }
  }
}

// y of `tokens` tokens and the rows of `row_tiles` tiles. Meanwhile the stored rows of as many tiles of the next panel are
// fetched, ahead_bytes of each for every group, so that memory is not idle while a packed panel is worked on.
template <typename Rule, int row_tiles, int tokens>
void multiply_tile(const LinearArgs& args, const Tile* tiles, const TokenTile& a, std::int64_t token,
                   std::int64_t ahead_bytes, Prefetch<2>& ahead) {
  const std::int64_t groups = args.weight.cols / 32;
  f32x16 acc[row_tiles][tokens];
  for (int i = 0; i < row_tiles; ++i) {
    for (int t = 0; t < tokens; ++t) acc[i][t] = zero();
  }
  for (std::int64_t g = 0; g < groups; ++g) {
    ahead.advance(row_tiles * ahead_bytes);
    if constexpr (Rule::kKind == ScaleKind::halves) {
      add_group<Rule, row_tiles, tokens, 4>(tiles, a, g, 0, acc);
      add_group<Rule, row_tiles, tokens, 4>(tiles, a, g, 1, acc);
    } else {
      add_group<Rule, row_tiles, tokens, 8>(tiles, a, g, 0, acc);
    }
  }
  for (int i = 0; i < row_tiles; ++i) {
    const float* bias = args.bias != nullptr ? args.bias + tiles[i].row : nullptr;
    for (int t = 0; t < tokens; ++t) {
      store_rows(tiles[i].rows, acc[i][t], bias, args.y + (token + t) * args.ldy + tiles[i].row);
    }
  }
}

template <typename Rule, int row_tiles, int tokens = kTokens>
void multiply_tokens(int count, const LinearArgs& args, const Tile* tiles, const TokenTile& a, std::int64_t token,
                     std::int64_t ahead_bytes, Prefetch<2>& ahead) {
  if (count == tokens) return multiply_tile<Rule, row_tiles, tokens>(args, tiles, a, token, ahead_bytes, ahead);
  if constexpr (tokens > 1) multiply_tokens<Rule, row_tiles, tokens - 1>(count, args, tiles, a, token, ahead_bytes, ahead);
}

// corrections[t][half][g] = -z * (sum of that half's codes), for `tokens` tokens from `token`.
template <typename Rule>
void fill_corrections(const QuantizedActivations& a, int zero_point, std::int64_t token, std::int64_t tokens,
                      std::int32_t* out) {
  const i32x16 minus_zero = splat_i32(-zero_point);
  const std::int64_t n = a.group_stride;
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int32_t* sums = a.sums + (token + t) * n;
    const std::int32_t* half_sums = a.half_sums + (token + t) * n;
    for (std::int64_t g = 0; g < n; g += 16) {
      if constexpr (Rule::kKind == ScaleKind::halves) {
        const i32x16 first = load_i32(half_sums + g);
        store_i32(out + 2 * t * n + g, first * minus_zero);
        store_i32(out + (2 * t + 1) * n + g, (load_i32(sums + g) - first) * minus_zero);
      } else {
        store_i32(out + t * n + g, load_i32(sums + g) * minus_zero);
      }
    }
  }
}

template <typename Rule>
void multiply_panel(const LinearArgs& args, const QuantizedActivations& a, int zero_point, std::int32_t* corrections,
                    const Tile* tiles, int n_tiles, Prefetch<2> ahead) {
  const std::int64_t ahead_bytes = 16 * row_bytes(args.weight) / (args.weight.cols / 32);
  for (std::int64_t block = 0; block < args.tokens; block += kCorrectionTokens) {
    const std::int64_t block_tokens = args.tokens - block < kCorrectionTokens ? args.tokens - block : kCorrectionTokens;
    if constexpr (Rule::kHasZero) fill_corrections<Rule>(a, zero_point, block, block_tokens, corrections);
    const std::int64_t n_token_tiles = (block_tokens + kTokens - 1) / kTokens;
    for (std::int64_t i = 0; i < n_token_tiles; ++i) {  // of nearly equal size: 8 tokens are 4 + 4, not 6 + 2
      const std::int64_t begin = i * block_tokens / n_token_tiles, end = (i + 1) * block_tokens / n_token_tiles;
      const std::int64_t token = block + begin;
      const TokenTile tokens{a.codes + token * a.code_stride,
                             a.code_stride,
                             a.scales + token * a.group_stride,
                             a.scaled_sums + token * a.group_stride,
                             corrections + begin * Rule::kHalves * a.group_stride,
                             a.group_stride};
      const int count = static_cast<int>(end - begin);
      int k = 0;
      for (; k + kRowTiles <= n_tiles; k += kRowTiles) {
        multiply_tokens<Rule, kRowTiles>(count, args, tiles + k, tokens, token, ahead_bytes, ahead);
      }
      for (; k < n_tiles; ++k) multiply_tokens<Rule, 1>(count, args, tiles + k, tokens, token, ahead_bytes, ahead);
    }
  }
}

}  // namespace

void linear_tiles(const LinearArgs& args, const QuantizedActivations& a, std::int64_t row_begin, std::int64_t row_end,
                  std::byte* memory) {
  const TileScratch scratch = tile_scratch(memory, args.weight.cols);
  const std::int64_t stride = row_bytes(args.weight), groups = args.weight.cols / 32;
  const std::int64_t panel_rows = 16 * scratch.n_tiles;
  const std::uint8_t* data = reinterpret_cast<const std::uint8_t*>(args.weight.data);
  with_format(args.weight.dtype, [&]<typename Format>() {
    for (std::int64_t row = row_begin; row < row_end;) {
      Tile tiles[kMaxPanelTiles];
      int n_tiles = 0;
      for (; n_tiles < scratch.n_tiles && row < row_end; ++n_tiles) {
        const SixteenRows rows = sixteen_rows(args.weight, stride, row, row_end);
        tiles[n_tiles] = make_tile(scratch.tiles + n_tiles * scratch.tile_bytes, groups, rows, row);
        pack_tile<Format>(tiles[n_tiles], groups);
        row += rows.count;
      }
      const std::int64_t ahead_end = row_end - row < panel_rows ? row_end : row + panel_rows;
      multiply_panel<RecipeOf<Format>>(args, a, Format::kZero, scratch.corrections, tiles, n_tiles,
                                       {data + row * stride, data + ahead_end * stride});
    }
  });
}

}  // namespace kv::cpu::KV_PATH
