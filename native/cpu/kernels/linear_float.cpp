// linear_float: float activations. 16 lanes per output over ascending columns, then sum_tree.
//
// One token, or few: weights are converted to float32 where they are loaded. Many: a panel of rows is converted into
// scratch once, and tiles of kRows x kTokens pass over it in blocks of columns short enough for the first-level
// cache; the tiles' 16-lane sums wait in scratch between blocks, so their chains stay whole.
//   scratch   sums (panel rows, kTokens, 16), then panel (panel rows, cols padded to 16) float32
#include "cpu/kernels/linear_parts.h"
#include "cpu/kernels/linear_scratch.h"
#include "cpu/kernels/path_kernels.h"
#include "cpu/simd/f32x16.h"

namespace kv::cpu::KV_PATH {

namespace {

// Rows x tokens of one tile: as many 16-lane sums as leave registers for a row and a token.
#if defined(KV_PATH_AVX512)
constexpr int kRows = 4, kTokens = 6;  // 24 of 32 registers
#else
constexpr int kRows = 2, kTokens = 3;  // AVX2: 12 of 16 registers; NEON: 24 of 32
#endif
static_assert(kTokens <= kMaxFloatTokens);
// Tiles of so few tokens wait for memory: they fetch the next rows ahead.
constexpr int kFetchTokens = 2;
// Most columns of one pass: 6 tokens x 512 x 4 bytes stay in a 32 KB cache beside the sums of the panel and the four rows
// that stream by. Tuned on Cascade Lake: 1.2x of 768 columns at a row of 4864, the same at 896.
constexpr std::int64_t kBlockColumns = 512;

struct LoadF32 {
  static constexpr std::int64_t kBytes = 4;
  static f32x16 whole(const std::byte* p) { return load(p); }
  static f32x16 first(const std::byte* p, int n) { return load_first(p, n); }
};
struct LoadF16 {
  static constexpr std::int64_t kBytes = 2;
  static f32x16 whole(const std::byte* p) { return load_f16(p); }
  static f32x16 first(const std::byte* p, int n) { return load_first_f16(p, n); }
};
struct LoadBf16 {
  static constexpr std::int64_t kBytes = 2;
  static f32x16 whole(const std::byte* p) { return load_bf16(p); }
  static f32x16 first(const std::byte* p, int n) { return load_first_bf16(p, n); }
};

// Some rows of the weight and where their converted or stored form lies.
struct Rows {
  const std::byte* data;
  std::int64_t stride;  // bytes
  std::int64_t first;   // row of the weight
  std::int64_t ahead = 0;  // bytes from a row to what is fetched beside it, by tiles of few tokens
};

// Adds columns [begin, end) to acc[row][token]; without `tail` their number is a multiple of 16.
template <typename Load, int rows, int tokens, bool tail>
inline void add_columns(const Rows& w, const float* x, std::int64_t ldx, std::int64_t begin, std::int64_t end,
                        f32x16 (*acc)[tokens]) {
  std::int64_t c = begin;
  for (; c + 16 <= end; c += 16) {
    f32x16 xs[tokens];
    for (int t = 0; t < tokens; ++t) xs[t] = load(x + t * ldx + c);
    for (int i = 0; i < rows; ++i) {
      const std::byte* p = w.data + i * w.stride + c * Load::kBytes;
      if (tokens <= kFetchTokens) __builtin_prefetch(p + w.ahead, 0, 3);
      const f32x16 weight = Load::whole(p);
      for (int t = 0; t < tokens; ++t) acc[i][t] = fma(weight, xs[t], acc[i][t]);
    }
  }
  if constexpr (!tail) return;
  const int rest = static_cast<int>(end - c);
  const mask16 present = first_lanes(rest);
  for (int i = 0; i < rows; ++i) {
    const f32x16 weight = Load::first(w.data + i * w.stride + c * Load::kBytes, rest);
    for (int t = 0; t < tokens; ++t) {
      const f32x16 sum = fma(weight, load_first(x + t * ldx + c, rest), acc[i][t]);
      acc[i][t] = select(present, sum, acc[i][t]);
    }
  }
}

template <int rows, int tokens>
inline void finish(const LinearArgs& args, std::int64_t row, std::int64_t token, const f32x16 (*acc)[tokens]) {
  for (int t = 0; t < tokens; ++t) {
    float* y = args.y + (token + t) * args.ldy + row;
    float sums[kRows];
    if constexpr (rows == 4) {
      const f32x16 column[4] = {acc[0][t], acc[1][t], acc[2][t], acc[3][t]};
      store_sums4(sums, column);
    } else {
      for (int i = 0; i < rows; ++i) sums[i] = sum_tree(acc[i][t]);
    }
    for (int i = 0; i < rows; ++i) y[i] = args.bias != nullptr ? sums[i] + args.bias[row + i] : sums[i];
  }
}

// All columns of a tile at once.
template <typename Load, int rows, int tokens, bool tail>
void multiply_tile(const LinearArgs& args, const Rows& w, std::int64_t token) {
  f32x16 acc[rows][tokens];
  for (int i = 0; i < rows; ++i) {
    for (int t = 0; t < tokens; ++t) acc[i][t] = zero();
  }
  add_columns<Load, rows, tokens, tail>(w, args.x + token * args.ldx, args.ldx, 0, args.weight.cols, acc);
  finish<rows, tokens>(args, w.first, token, acc);
}

// One block of columns of a tile, its sums kept at `sums` in between.
template <int rows, int tokens, bool tail>
void multiply_block(const LinearArgs& args, const Rows& w, std::int64_t token, std::int64_t begin, std::int64_t end,
                    float* sums) {
  f32x16 acc[rows][tokens];
  for (int i = 0; i < rows; ++i) {
    for (int t = 0; t < tokens; ++t) acc[i][t] = begin == 0 ? zero() : load(sums + (i * tokens + t) * 16);
  }
  add_columns<LoadF32, rows, tokens, tail>(w, args.x + token * args.ldx, args.ldx, begin, end, acc);
  if (end == args.weight.cols) return finish<rows, tokens>(args, w.first, token, acc);
  for (int i = 0; i < rows; ++i) {
    for (int t = 0; t < tokens; ++t) store(sums + (i * tokens + t) * 16, acc[i][t]);
  }
}

// Calls f.template operator()<n, tail>() with n = count, 1 <= count <= most, and whether `columns` leave a tail.
template <int most, typename Function>
void with_shape(int count, std::int64_t columns, Function f) {
  if (count == most && columns % 16 == 0) return f.template operator()<most, false>();
  if (count == most) return f.template operator()<most, true>();
  if constexpr (most > 1) with_shape<most - 1>(count, columns, f);
}

// Tiles of tokens, of nearly equal size: 8 tokens are 4 + 4, not 6 + 2.
std::int64_t token_tiles(std::int64_t tokens) { return (tokens + kTokens - 1) / kTokens; }

// Weights as stored, converted on the fly.
template <typename Load>
void multiply_stored(const LinearArgs& args, std::int64_t row_begin, std::int64_t row_end) {
  const std::int64_t stride = row_bytes(args.weight), n_tiles = token_tiles(args.tokens);
  for (std::int64_t r = row_begin; r < row_end; r += kRows) {
    const int rows = static_cast<int>(row_end - r < kRows ? row_end - r : kRows);
    const Rows w{args.weight.data + r * stride, stride, r, r + 2 * kRows <= row_end ? kRows * stride : 0};
    for (std::int64_t tile = 0; tile < n_tiles; ++tile) {
      const std::int64_t token = tile * args.tokens / n_tiles;
      const int tokens = static_cast<int>((tile + 1) * args.tokens / n_tiles - token);
      with_shape<kTokens>(tokens, args.weight.cols, [&]<int n, bool tail>() {
        if (rows == kRows) return multiply_tile<Load, kRows, n, tail>(args, w, token);
        for (int i = 0; i < rows; ++i) {
          multiply_tile<Load, 1, n, tail>(args, {w.data + i * stride, stride, r + i}, token);
        }
      });
    }
  }
}

// All tokens against a panel of converted rows.
void multiply_panel(const LinearArgs& args, const Rows& panel, int rows, float* sums) {
  const std::int64_t cols = args.weight.cols;
  const std::int64_t n_tiles = token_tiles(args.tokens);
  const std::int64_t n_blocks = (cols + kBlockColumns - 1) / kBlockColumns;
  for (std::int64_t tile = 0; tile < n_tiles; ++tile) {
    const std::int64_t token = tile * args.tokens / n_tiles;
    const int tokens = static_cast<int>((tile + 1) * args.tokens / n_tiles - token);
    for (std::int64_t block = 0; block < n_blocks; ++block) {
      const std::int64_t begin = block * cols / n_blocks / 16 * 16;
      const std::int64_t end = block + 1 == n_blocks ? cols : (block + 1) * cols / n_blocks / 16 * 16;
      with_shape<kTokens>(tokens, end - begin, [&]<int n, bool tail>() {
        int i = 0;
        for (; i + kRows <= rows; i += kRows) {
          const Rows w{panel.data + i * panel.stride, panel.stride, panel.first + i};
          multiply_block<kRows, n, tail>(args, w, token, begin, end, sums + i * n * 16);
        }
        for (; i < rows; ++i) {
          const Rows w{panel.data + i * panel.stride, panel.stride, panel.first + i};
          multiply_block<1, n, tail>(args, w, token, begin, end, sums + i * n * 16);
        }
      });
    }
  }
}

void multiply_converted(const LinearArgs& args, std::int64_t row_begin, std::int64_t row_end, std::byte* memory) {
  const FloatScratch scratch = float_scratch(memory, args.weight.cols);
  const std::int64_t stored = row_bytes(args.weight);
  for (std::int64_t r = row_begin; r < row_end; r += scratch.panel_rows) {
    const int rows = static_cast<int>(row_end - r < scratch.panel_rows ? row_end - r : scratch.panel_rows);
    for (int i = 0; i < rows; ++i) {
      dequantize_row(args.weight.dtype, args.weight.data + (r + i) * stored, args.weight.cols,
                     reinterpret_cast<float*>(scratch.panel + i * scratch.row_stride));
    }
    multiply_panel(args, {scratch.panel, scratch.row_stride, r}, rows, scratch.sums);
  }
}

}  // namespace

void linear_float(const LinearArgs& args, std::int64_t row_begin, std::int64_t row_end, std::byte* scratch) {
  const bool few_tokens = args.tokens <= 8;
  if (args.weight.dtype == KV_F32 && few_tokens) return multiply_stored<LoadF32>(args, row_begin, row_end);
  if (args.weight.dtype == KV_F16 && few_tokens) return multiply_stored<LoadF16>(args, row_begin, row_end);
  if (args.weight.dtype == KV_BF16 && few_tokens) return multiply_stored<LoadBf16>(args, row_begin, row_end);
  multiply_converted(args, row_begin, row_end, scratch);
}

}  // namespace kv::cpu::KV_PATH
