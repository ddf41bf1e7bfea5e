// linear_float: float activations. 16 lanes per output over ascending columns, then sum_tree; weights are converted to
// float32 exactly, on the fly for few tokens and once per tile of rows into scratch for many.
#include "cpu/kernels/linear_parts.h"
#include "cpu/kernels/linear_scratch.h"
#include "cpu/kernels/path_kernels.h"
#include "cpu/simd/f32x16.h"

namespace kv::cpu::KV_PATH {

namespace {

#if defined(KV_PATH_AVX512)
constexpr int kTokens = 6;  // 4 rows x 6 tokens: 24 accumulators of 32 registers
#else
constexpr int kTokens = 2;
#endif
constexpr int kRows = static_cast<int>(kFloatRows);

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

// rows x tokens outputs, row i at w + i * stride.
template <typename Load, int rows, int tokens>
void multiply_tile(const std::byte* w, std::int64_t stride, const LinearArgs& args, std::int64_t row,
                   std::int64_t token) {
  const std::int64_t cols = args.weight.cols;
  const float* x = args.x + token * args.ldx;
  f32x16 acc[rows][tokens];
  for (int i = 0; i < rows; ++i) {
    for (int t = 0; t < tokens; ++t) acc[i][t] = zero();
  }
  std::int64_t c = 0;
  for (; c + 16 <= cols; c += 16) {
    f32x16 xs[tokens];
    for (int t = 0; t < tokens; ++t) xs[t] = load(x + t * args.ldx + c);
    for (int i = 0; i < rows; ++i) {
      const f32x16 weight = Load::whole(w + i * stride + c * Load::kBytes);
      for (int t = 0; t < tokens; ++t) acc[i][t] = fma(weight, xs[t], acc[i][t]);
    }
  }
  const int rest = static_cast<int>(cols - c);
  if (rest > 0) {
    const mask16 present = first_lanes(rest);
    for (int i = 0; i < rows; ++i) {
      const f32x16 weight = Load::first(w + i * stride + c * Load::kBytes, rest);
      for (int t = 0; t < tokens; ++t) {
        const f32x16 sum = fma(weight, load_first(x + t * args.ldx + c, rest), acc[i][t]);
        acc[i][t] = select(present, sum, acc[i][t]);
      }
    }
  }
  for (int t = 0; t < tokens; ++t) {
    for (int i = 0; i < rows; ++i) {
      const float sum = sum_tree(acc[i][t]);
      args.y[(token + t) * args.ldy + row + i] = args.bias != nullptr ? sum + args.bias[row + i] : sum;
    }
  }
}

template <typename Load, int rows, int tokens = kTokens>
void multiply_tokens(int count, const std::byte* w, std::int64_t stride, const LinearArgs& args, std::int64_t row,
                     std::int64_t token) {
  if (count == tokens) return multiply_tile<Load, rows, tokens>(w, stride, args, row, token);
  if constexpr (tokens > 1) multiply_tokens<Load, rows, tokens - 1>(count, w, stride, args, row, token);
}

template <typename Load>
void multiply_rows(int rows, const std::byte* w, std::int64_t stride, const LinearArgs& args, std::int64_t row) {
  const std::int64_t n_tiles = (args.tokens + kTokens - 1) / kTokens;
  for (std::int64_t i = 0; i < n_tiles; ++i) {
    const std::int64_t token = i * args.tokens / n_tiles;
    const int count = static_cast<int>((i + 1) * args.tokens / n_tiles - token);
    if (rows == kRows) {
      multiply_tokens<Load, kRows>(count, w, stride, args, row, token);
    } else {
      for (int r = 0; r < rows; ++r) multiply_tokens<Load, 1>(count, w + r * stride, stride, args, row + r, token);
    }
  }
}

template <typename Load>
void multiply_stored(const LinearArgs& args, std::int64_t row_begin, std::int64_t row_end) {
  const std::int64_t stride = row_bytes(args.weight);
  for (std::int64_t r = row_begin; r < row_end; r += kRows) {
    const int rows = static_cast<int>(row_end - r < kRows ? row_end - r : kRows);
    multiply_rows<Load>(rows, args.weight.data + r * stride, stride, args, r);
  }
}

void multiply_converted(const LinearArgs& args, std::int64_t row_begin, std::int64_t row_end, std::byte* scratch) {
  const std::int64_t cols = args.weight.cols, stored = row_bytes(args.weight);
  const std::int64_t stride = (cols + 15) / 16 * 64;
  for (std::int64_t r = row_begin; r < row_end; r += kRows) {
    const int rows = static_cast<int>(row_end - r < kRows ? row_end - r : kRows);
    for (int i = 0; i < rows; ++i) {
      dequantize_row(args.weight.dtype, args.weight.data + (r + i) * stored, cols,
                     reinterpret_cast<float*>(scratch + i * stride));
    }
    multiply_rows<LoadF32>(rows, scratch, stride, args, r);
  }
}

}  // namespace

void linear_float(const LinearArgs& args, std::int64_t row_begin, std::int64_t row_end, std::byte* scratch) {
  const bool few_tokens = args.tokens <= kTokens;
  if (args.weight.dtype == KV_F32) return multiply_stored<LoadF32>(args, row_begin, row_end);
  if (args.weight.dtype == KV_F16 && few_tokens) return multiply_stored<LoadF16>(args, row_begin, row_end);
  if (args.weight.dtype == KV_BF16 && few_tokens) return multiply_stored<LoadBf16>(args, row_begin, row_end);
  multiply_converted(args, row_begin, row_end, scratch);
}

}  // namespace kv::cpu::KV_PATH
