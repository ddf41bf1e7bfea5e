// dequantize_row: one row of a weight in float32, exactly as the format defines it.
//
// Formats with a scale of a scale (K formats) round d*scale, dmin*minimum and the product with the code to float32 one
// by one, in that order; no step is fused. The values are those of the format's reference reader, bit for bit.
//   row  cols values of `dtype`          out  (cols) float32
#include "common/formats/blocks.h"
#include "cpu/kernels/path_kernels.h"
#include "cpu/kernels/block_fields.h"
#include "cpu/simd/f32x16.h"

namespace kv::cpu::KV_PATH {

namespace {

void dequantize(const BlockQ8_0& b, float* out) {
  const float d = load_half(b.d);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(b.q[i]) * d;
}

void dequantize(const BlockQ4_0& b, float* out) {
  const float d = load_half(b.d);
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>((b.q[i] & 15) - 8) * d;
    out[i + 16] = static_cast<float>((b.q[i] >> 4) - 8) * d;
  }
}

void dequantize(const BlockQ4_1& b, float* out) {
  const float d = load_half(b.d), m = load_half(b.m);
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>(b.q[i] & 15) * d + m;
    out[i + 16] = static_cast<float>(b.q[i] >> 4) * d + m;
  }
}

void dequantize(const BlockQ5_0& b, float* out) {
  const float d = load_half(b.d);
  const std::uint32_t h = load_word(b.h);
  for (int i = 0; i < 16; ++i) {
    const int lo = static_cast<int>((b.q[i] & 15u) | (((h >> i) & 1u) << 4));
    const int hi = static_cast<int>((b.q[i] >> 4) | (((h >> (i + 16)) & 1u) << 4));
    out[i] = static_cast<float>(lo - 16) * d;
    out[i + 16] = static_cast<float>(hi - 16) * d;
  }
}

void dequantize(const BlockQ5_1& b, float* out) {
  const float d = load_half(b.d), m = load_half(b.m);
  const std::uint32_t h = load_word(b.h);
  for (int i = 0; i < 16; ++i) {
    const int lo = static_cast<int>((b.q[i] & 15u) | (((h >> i) & 1u) << 4));
    const int hi = static_cast<int>((b.q[i] >> 4) | (((h >> (i + 16)) & 1u) << 4));
    out[i] = static_cast<float>(lo) * d + m;
    out[i + 16] = static_cast<float>(hi) * d + m;
  }
}

void dequantize(const BlockQ4_K& b, float* out) {
  const float d = load_half(b.d), dmin = load_half(b.dmin);
  for (int g = 0; g < 8; ++g) {
    const float scale = d * static_cast<float>(k_scale(b.scales, g));
    const float minimum = dmin * static_cast<float>(k_minimum(b.scales, g));
    for (int i = 0; i < 32; ++i) {
      const int code = (b.q[32 * (g / 2) + i] >> (4 * (g % 2))) & 15;
      out[32 * g + i] = scale * static_cast<float>(code) - minimum;
    }
  }
}

void dequantize(const BlockQ5_K& b, float* out) {
  const float d = load_half(b.d), dmin = load_half(b.dmin);
  for (int g = 0; g < 8; ++g) {
    const float scale = d * static_cast<float>(k_scale(b.scales, g));
    const float minimum = dmin * static_cast<float>(k_minimum(b.scales, g));
    for (int i = 0; i < 32; ++i) {
      const int low = (b.q[32 * (g / 2) + i] >> (4 * (g % 2))) & 15;
      const int code = low | (((b.h[i] >> g) & 1) << 4);
      out[32 * g + i] = scale * static_cast<float>(code) - minimum;
    }
  }
}

void dequantize(const BlockQ6_K& b, float* out) {
  const float d = load_half(b.d);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, a = (i / 64) % 2, j = i % 64;
    const int low = (b.ql[64 * half + j] >> (4 * a)) & 15;
    const int high = (b.h[32 * half + j % 32] >> (2 * (2 * a + j / 32))) & 3;
    out[i] = (d * static_cast<float>(b.scales[i / 16])) * static_cast<float>((low | (high << 4)) - 32);
  }
}

void dequantize(const BlockMxfp4& b, float* out) {
  const float d = load_e8m0_half(b.e);
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>(kMxfp4Values[b.q[i] & 15]) * d;
    out[i + 16] = static_cast<float>(kMxfp4Values[b.q[i] >> 4]) * d;
  }
}

template <typename Block>
void dequantize_blocks(const std::byte* row, std::int64_t cols, float* out) {
  constexpr std::int64_t values = Block::kValues;
  const Block* blocks = reinterpret_cast<const Block*>(row);
  for (std::int64_t i = 0; i < cols / values; ++i) dequantize(blocks[i], out + i * values);
}

template <typename Load, typename LoadFirst>
void convert_floats(std::int64_t cols, float* out, Load load_at, LoadFirst load_first_at) {
  std::int64_t c = 0;
  for (; c + 16 <= cols; c += 16) store(out + c, load_at(c));
  const int rest = static_cast<int>(cols - c);
  if (rest > 0) store_first(out + c, load_first_at(c, rest), rest);
}

}  // namespace

void dequantize_row(kv_dtype dtype, const std::byte* row, std::int64_t cols, float* out) {
  switch (dtype) {
    case KV_F32:
      copy_bytes(out, row, cols * 4);
      return;
    case KV_F16:
      convert_floats(
          cols, out, [=](std::int64_t c) { return load_f16(row + 2 * c); },
          [=](std::int64_t c, int n) { return load_first_f16(row + 2 * c, n); });
      return;
    case KV_BF16:
      convert_floats(
          cols, out, [=](std::int64_t c) { return load_bf16(row + 2 * c); },
          [=](std::int64_t c, int n) { return load_first_bf16(row + 2 * c, n); });
      return;
    case KV_Q8_0:
      return dequantize_blocks<BlockQ8_0>(row, cols, out);
    case KV_Q4_0:
      return dequantize_blocks<BlockQ4_0>(row, cols, out);
    case KV_Q4_1:
      return dequantize_blocks<BlockQ4_1>(row, cols, out);
    case KV_Q5_0:
      return dequantize_blocks<BlockQ5_0>(row, cols, out);
    case KV_Q5_1:
      return dequantize_blocks<BlockQ5_1>(row, cols, out);
    case KV_Q4_K:
      return dequantize_blocks<BlockQ4_K>(row, cols, out);
    case KV_Q5_K:
      return dequantize_blocks<BlockQ5_K>(row, cols, out);
    case KV_Q6_K:
      return dequantize_blocks<BlockQ6_K>(row, cols, out);
    case KV_MXFP4:
      return dequantize_blocks<BlockMxfp4>(row, cols, out);
    case KV_Q8:
    case KV_Q4:
      return;  // never a weight: refused when the runner is created
  }
}

}  // namespace kv::cpu::KV_PATH
