// linear_tiles: quantized products of several tokens on the integer tensor cores. A block computes 32 rows by 8 * kColumns
// tokens; its warps take different slices. Every mma is one group of 32 columns (halves: of 16), so its integers meet the
// group's scales exactly as linear_quantized.cuh defines it: the bits are those of linear_vector.
//
// Inside a group the columns are dealt to lanes so that both operands are 8-byte loads: lane q of four takes columns
// 8q .. 8q+7 of each group (halves: 4q .. 4q+3 of each half).
#include "cuda/kernels/dispatch.h"
#include "cuda/kernels/launch.h"
#include "cuda/kernels/linear_quantized.cuh"

namespace kv::cuda {

namespace {

constexpr int kTileRows = 32;

// d = a (16 x 32, s8) * b (32 x 8, s8), from zero.
__device__ inline void mma32(int* d, const std::uint32_t* a, const std::uint32_t* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(0));
}
// d = a (16 x 16, s8) * b (16 x 8, s8), from zero.
__device__ inline void mma16(int* d, std::uint32_t a0, std::uint32_t a1, std::uint32_t b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(a0), "r"(a1), "r"(b), "r"(0));
}

// Words of a lane for both groups of a pair: words[group][i], columns 8q + 4i .. (halves: 4q + 16i ..).
template <typename Format>
__device__ inline void lane_codes(const DeviceMatrix& w, std::int64_t row, int pair, int q, std::uint32_t (*words)[2]) {
  constexpr bool kHalves = Format::kKind == ScaleKind::halves;
  const int word0 = kHalves ? q : 2 * q, word1 = kHalves ? 4 + q : 2 * q + 1;
  if constexpr (Format::kNibbles) {
    const std::uint8_t* p = w.codes + row * w.code_stride + pair * 32;
    std::uint32_t raw[2];
    if constexpr (kHalves) {
      raw[0] = read4(p + 4 * word0);
      raw[1] = read4(p + 4 * word1);
    } else {
      const uint2 both = read8(p + 8 * q);
      raw[0] = both.x;
      raw[1] = both.y;
    }
    std::uint32_t high[4] = {0, 0, 0, 0};
    if constexpr (Format::kHigh == 8) {
      const uint2 h = read8(w.high + row * w.high_stride + pair * 8);
      high[0] = h.x;
      high[1] = h.y;
    }
    if constexpr (Format::kHigh == 16) {
      const uint4 h = read16(w.high + row * w.high_stride + pair * 16);
      high[0] = h.x;
      high[1] = h.y;
      high[2] = h.z;
      high[3] = h.w;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      std::uint32_t low = raw[i] & 0x0f0f0f0fu, up = (raw[i] >> 4) & 0x0f0f0f0fu;
      if constexpr (Format::kMxfp4) {
        low = shifted_mxfp4(low);
        up = shifted_mxfp4(up);
      }
      const int n = i == 0 ? word0 : word1;
      words[0][i] = with_high_bits<Format::kHigh>(low, high, n);
      words[1][i] = with_high_bits<Format::kHigh>(up, high, 8 + n);
    }
  } else {
    const std::uint8_t* p = w.codes + row * w.code_stride + pair * 64 + 8 * q;
    const uint2 g0 = read8(p), g1 = read8(p + 32);
    words[0][0] = g0.x;
    words[0][1] = g0.y;
    words[1][0] = g1.x;
    words[1][1] = g1.y;
  }
}

// One pair: acc[m][n][4] goes on by both groups.
template <typename Format, int kColumns>
__device__ inline void add_pair(float (*acc)[kColumns][4], const DeviceMatrix& w, const std::int64_t (*rows)[2],
                                int pair, const QuantizedInput& x, const std::int64_t* load_tokens,
                                const std::int64_t (*out_tokens)[2]) {
  constexpr bool kHalves = Format::kKind == ScaleKind::halves;
  const int q = threadIdx.x % 4;
  std::uint32_t a[2][2][2][2];  // m, row half, group, word
  float s[2][2][4], lo[2][2][2];
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      lane_codes<Format>(w, rows[m][h], pair, q, a[m][h]);
      read_scales<Format>(w, rows[m][h], pair, s[m][h], lo[m][h]);
    }
  }
#pragma unroll
  for (int g = 0; g < 2; ++g) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const std::int8_t* codes = x.codes + (load_tokens[n] * w.pairs + pair) * 64 + 32 * g;
      std::uint32_t b[2];
      if constexpr (kHalves) {
        b[0] = *reinterpret_cast<const std::uint32_t*>(codes + 4 * q);
        b[1] = *reinterpret_cast<const std::uint32_t*>(codes + 16 + 4 * q);
      } else {
        const uint2 both = *reinterpret_cast<const uint2*>(codes + 8 * q);
        b[0] = both.x;
        b[1] = both.y;
      }
      GroupInfo info[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) info[j] = x.groups[(out_tokens[n][j] * w.pairs + pair) * 2 + g];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        int d[4], e[4];
        if constexpr (kHalves) {
          mma16(d, a[m][0][g][0], a[m][1][g][0], b[0]);
          mma16(e, a[m][0][g][1], a[m][1][g][1], b[1]);
        } else {
          const std::uint32_t operand[4] = {a[m][0][g][0], a[m][1][g][0], a[m][0][g][1], a[m][1][g][1]};
          mma32(d, operand, b);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int h = i / 2, j = i % 2;
          float& sum = acc[m][n][i];
          if constexpr (kHalves) {
            sum = add_halves<Format>(sum, d[i], e[i], s[m][h][2 * g], s[m][h][2 * g + 1], info[j]);
          } else {
            sum = add_group<Format>(sum, d[i], s[m][h][g], lo[m][h][g], info[j]);
          }
        }
      }
    }
  }
}

template <typename Format, int kColumns>
__global__ void __launch_bounds__(32 * kProductWarps)
    tile_kernel(ProductParts parts, QuantizedInput x, int tokens) {
  extern __shared__ float slice_sums[];  // (slices, 8 * kColumns tokens, kTileRows)
  follow_previous();
  constexpr int kTokens = 8 * kColumns;
  int tile = blockIdx.y;
  const LinearPart& part = parts.part[find_part(parts, tile)];
  const DeviceMatrix& w = part.weight;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_token = blockIdx.x * kTokens;
  const int pairs = w.pairs, slices = (pairs + kSlicePairs - 1) / kSlicePairs;
  std::int64_t rows[2][2], load_tokens[kColumns], out_tokens[kColumns][2];
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = tile * kTileRows + 16 * m + 8 * h + lane / 4;
      rows[m][h] = row < w.rows ? row : w.rows - 1;
    }
  }
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
    load_tokens[n] = min(first_token + 8 * n + lane / 4, tokens - 1);
#pragma unroll
    for (int j = 0; j < 2; ++j) out_tokens[n][j] = min(first_token + 8 * n + lane % 4 * 2 + j, tokens - 1);
  }
  for (int slice = warp; slice < slices; slice += kProductWarps) {
    float sum[2][kColumns][4], upper[2][kColumns][4];
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      float acc[2][kColumns][4] = {};
#pragma unroll 1
      for (int k = 0; k < kSlicePairs / 4; ++k) {
        const int pair = slice * kSlicePairs + 4 * k + c;
        if (pair < pairs) add_pair<Format, kColumns>(acc, w, rows, pair, x, load_tokens, out_tokens);
      }
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int n = 0; n < kColumns; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (c == 0) sum[m][n][i] = acc[m][n][i];
            if (c == 1) sum[m][n][i] = sum[m][n][i] + acc[m][n][i];
            if (c == 2) upper[m][n][i] = acc[m][n][i];
            if (c == 3) sum[m][n][i] = sum[m][n][i] + (upper[m][n][i] + acc[m][n][i]);
          }
        }
      }
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = 16 * m + 8 * (i / 2) + lane / 4, token = 8 * n + lane % 4 * 2 + i % 2;
          slice_sums[(slice * kTokens + token) * kTileRows + row] = sum[m][n][i];
        }
      }
    }
  }
  __syncthreads();
  for (int at = threadIdx.x; at < kTokens * kTileRows; at += 32 * kProductWarps) {
    const int token = first_token + at / kTileRows, row = tile * kTileRows + at % kTileRows;
    if (token >= tokens || row >= w.rows) continue;
    float total = 0.0f;
    for (int slice = 0; slice < slices; ++slice) total = total + slice_sums[slice * kTokens * kTileRows + at];
    store_product(part, token, row, total);
  }
}

constexpr std::int64_t kMaxSharedBytes = 200 * 1024;

std::int64_t shared_bytes(std::int64_t cols, int columns) {
  return (cols + kSliceColumns - 1) / kSliceColumns * 8 * columns * kTileRows * 4;
}

template <typename Format, int kColumns>
void launch_tiles(const ProductParts& parts, int row_tiles, std::int64_t shared, const QuantizedInput& x, int tokens,
                  cudaStream_t stream) {
  if (shared > 48 * 1024) {
    check_cuda(cudaFuncSetAttribute(tile_kernel<Format, kColumns>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(kMaxSharedBytes)), "linear_tiles");
  }
  const dim3 grid(ceil_div(tokens, 8 * kColumns), static_cast<unsigned>(row_tiles));
  launch_after("linear_tiles", tile_kernel<Format, kColumns>, grid, 32 * kProductWarps, static_cast<std::size_t>(shared),
               stream, parts, x, tokens);
}

}  // namespace

bool tiles_hold(std::int64_t cols) { return shared_bytes(cols, 2) <= kMaxSharedBytes; }

void linear_tiles(const LinearPart* parts, int n_parts, const QuantizedInput& x, int tokens, cudaStream_t stream) {
  ProductParts launch{};
  launch.n_parts = n_parts;
  int tiles = 0;
  for (int i = 0; i < n_parts; ++i) {
    launch.part[i] = parts[i];
    tiles += static_cast<int>(ceil_div(parts[i].weight.rows, kTileRows));
    launch.tile_end[i] = tiles;
  }
  const int cols = parts[0].weight.cols;
  with_quantized_format(parts[0].weight.dtype, [&]<typename Format>() {
    if (tokens <= 8) {
      launch_tiles<Format, 1>(launch, tiles, shared_bytes(cols, 1), x, tokens, stream);
    } else {
      launch_tiles<Format, 2>(launch, tiles, shared_bytes(cols, 2), x, tokens, stream);
    }
  });
}

}  // namespace kv::cuda
