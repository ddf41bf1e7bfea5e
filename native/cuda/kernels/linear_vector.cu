// linear_vector: quantized products of one token a block row of the grid, by integer dot products. Memory bound: a warp
// takes 8 * kRows rows of four chunks, four lanes a row, each a chunk; warps of a block take different fours, whose sums
// meet in shared memory in ascending order.
#include "cuda/kernels/dispatch.h"
#include "cuda/kernels/launch.h"
#include "cuda/kernels/linear_quantized.cuh"

namespace kv::cuda {

namespace {

constexpr int kRows = 2;
constexpr int kProductWarps = 8;
constexpr int kTileRows = 8 * kRows;

// Blocks on a multiprocessor: more only where their registers hold a pair as it is stored and unpacked.
template <typename Format>
inline constexpr int kResident = Format::kNibbles && Format::kHigh == 0 && !Format::kMxfp4 ? 3 : 2;

template <typename Format>
__global__ void __launch_bounds__(32 * kProductWarps, kResident<Format>)
    vector_kernel(ProductParts parts, QuantizedInput x) {
  extern __shared__ float chunk_sums[];  // (chunks, kTileRows)
  int tile = blockIdx.x;
  const LinearPart& part = parts.part[find_part(parts, tile)];
  const DeviceMatrix& w = part.weight;
  const std::int64_t token = blockIdx.y;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int c = lane % 4;
  const int pairs = w.pairs, fours = (chunks_of_pairs(pairs) + 3) / 4;
  const std::int8_t* codes = x.codes + token * pairs * 64;
  const GroupInfo* groups = x.groups + token * pairs * 2;
  std::int64_t rows[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int row = tile * kTileRows + lane / 4 + 8 * i;
    rows[i] = row < w.rows ? row : w.rows - 1;
  }
  // The first chunk's weights are on their way before the input is there.
  RawPair<Format> raw[kChunkPairs][kRows];
  const auto load = [&](int four) {
#pragma unroll
    for (int k = 0; k < kChunkPairs; ++k) {
      const int pair = min((4 * four + c) * kChunkPairs + k, pairs - 1);
#pragma unroll
      for (int i = 0; i < kRows; ++i) raw[k][i].load(w, rows[i], pair);
    }
  };
  if (warp < fours) load(warp);
  wait_for_previous();
  for (int four = warp; four < fours; four += kProductWarps) {
    float acc[kRows] = {};
    if (four != warp) load(four);
#pragma unroll
    for (int k = 0; k < kChunkPairs; ++k) {
      const int pair = (4 * four + c) * kChunkPairs + k;
      if (pair >= pairs) continue;
      std::uint32_t wc[kRows][16];
      float s[kRows][4], m[kRows][2];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        Format::unpack(raw[k][i].codes, raw[k][i].high, wc[i]);
        Format::template scales_of<true>(raw[k][i].scales, pair, s[i], m[i]);
      }
      const uint4* a = reinterpret_cast<const uint4*>(codes + pair * 64);
#pragma unroll
      for (int g = 0; g < 2; ++g) {
        const GroupInfo info = groups[pair * 2 + g];
        const uint4 a0 = a[2 * g], a1 = a[2 * g + 1];
        const std::uint32_t ac[8] = {a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w};
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          int first = kMagicBits, second = Format::kKind == ScaleKind::halves ? kMagicBits : 0;
#pragma unroll
          for (int n = 0; n < 4; ++n) {
            first = __dp4a(static_cast<int>(wc[i][8 * g + n]), static_cast<int>(ac[n]), first);
            second = __dp4a(static_cast<int>(wc[i][8 * g + 4 + n]), static_cast<int>(ac[4 + n]), second);
          }
          if constexpr (Format::kKind == ScaleKind::halves) {
            first -= info.half_sum * Format::kZero;
            second -= (info.sum - info.half_sum) * Format::kZero;
            acc[i] = add_group<Format>(acc[i], first, s[i][2 * g], 0.0f, info.scale, 0.0f);
            acc[i] = add_group<Format>(acc[i], second, s[i][2 * g + 1], 0.0f, info.scale, 0.0f);
          } else {
            if constexpr (Format::kZero != 0) first -= info.sum * Format::kZero;
            acc[i] = add_group<Format>(acc[i], first + second, s[i][g], m[i][g], info.scale, info.scaled_sum);
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) chunk_sums[(4 * four + c) * kTileRows + lane / 4 + 8 * i] = acc[i];
  }
  let_next_begin();
  __syncthreads();
  if (threadIdx.x >= kTileRows * kSegments) return;
  const int own = threadIdx.x / kSegments, row = tile * kTileRows + own;
  const ChunkRange range = segment_chunks(pairs, threadIdx.x % kSegments);
  float sum = 0.0f;
#pragma unroll 4
  for (int chunk = range.begin; chunk < range.end; ++chunk) sum = sum + chunk_sums[chunk * kTileRows + own];
  const float own_sum = sum;
  sum = __shfl_sync(0xffffffffu, own_sum, 0, kSegments);
#pragma unroll
  for (int i = 1; i < kSegments; ++i) sum = sum + __shfl_sync(0xffffffffu, own_sum, i, kSegments);
  if (threadIdx.x % kSegments == 0 && row < w.rows) store_product(part, token, row, sum);
}

constexpr std::int64_t kMaxSharedBytes = 200 * 1024;

}  // namespace

std::int64_t max_quantized_columns() { return kMaxSharedBytes / (4 * kTileRows) * kChunkColumns; }

void linear_vector(const LinearPart* parts, int n_parts, const QuantizedInput& x, int tokens, cudaStream_t stream) {
  ProductParts launch{};
  launch.n_parts = n_parts;
  int tiles = 0;
  for (int i = 0; i < n_parts; ++i) {
    launch.part[i] = parts[i];
    tiles += static_cast<int>(ceil_div(parts[i].weight.rows, kTileRows));
    launch.tile_end[i] = tiles;
  }
  const auto chunks = static_cast<std::size_t>(chunks_of_pairs(parts[0].weight.pairs) + 3) / 4 * 4;
  const std::size_t shared = sizeof(float) * kTileRows * chunks;
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(tokens));
  with_quantized_format(parts[0].weight.dtype, [&]<typename Format>() {
    static const cudaError_t preferred =
        cudaFuncSetAttribute(vector_kernel<Format>, cudaFuncAttributePreferredSharedMemoryCarveout, kFewSharedPercent);
    check_cuda(preferred, "linear_vector");
    if (shared > 48 * 1024) {
      check_cuda(cudaFuncSetAttribute(vector_kernel<Format>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(kMaxSharedBytes)), "linear_vector");
    }
    launch_after("linear_vector", vector_kernel<Format>, grid, 32 * kProductWarps, shared, stream, launch, x);
  });
}

}  // namespace kv::cuda
