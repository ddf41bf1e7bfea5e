// The kernel of linear_tiles: 32 * kRowWarps weight rows by 8 * kColumns * kTokenWarps tokens, a warp 32 rows by 8 * kColumns.
// Blocks of 256 columns come to shared memory kStages - 1 ahead, each weight once for all tokens of the tile. kSplit: a
// cluster of blocks, each one segment of the columns, else one block all of them one after another; the bits are
// the same. Every mma is one group of 32 columns (halves: of 16), so its integers meet the group's scales exactly as
// linear_quantized.cuh defines it: the bits are those of linear_vector.
#pragma once

#include <cooperative_groups.h>

#include "cuda/kernels/launch.h"
#include "cuda/kernels/tile_operands.cuh"

namespace kv::cuda {

template <int kRowWarpCount, int kTokenWarpCount, int kColumnCount, bool kIsSplit, int kStageCount, int kResidentBlocks>
struct TileShape {
  static constexpr int kRowWarps = kRowWarpCount, kTokenWarps = kTokenWarpCount, kColumns = kColumnCount;
  static constexpr bool kSplit = kIsSplit;
  static constexpr int kStages = kStageCount, kResident = kResidentBlocks;
  static constexpr int kThreads = 32 * kRowWarps * kTokenWarps;
  static constexpr int kRows = 32 * kRowWarps, kTokens = 8 * kColumns * kTokenWarps;
  // Sums of a segment, (kTokens, kRows); neighbouring pairs of tokens in other banks.
  static constexpr int kSumStride = kRows + 4;
  static constexpr int kSumBytes = kTokens * kSumStride * 4;
  static constexpr int kOwnBytes = 8 * kColumns * 4 * kThreads;  // of all threads, where they wait for later segments
};

template <typename Format, typename Shape>
constexpr int tile_shared_bytes() {
  constexpr int kStaged = Shape::kStages * StageLayout<Format, Shape::kRows, Shape::kTokens>::kBytes;
  if (!Shape::kSplit) return kStaged + Shape::kOwnBytes;
  return kStaged > Shape::kSumBytes ? kStaged : Shape::kSumBytes;
}

template <typename Format, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kResident)
    tile_kernel(const __grid_constant__ ProductParts parts, const QuantizedInput x, const int tokens, const int first_tile) {
  constexpr int kThreads = Shape::kThreads, kRows = Shape::kRows, kTokens = Shape::kTokens, kColumns = Shape::kColumns;
  constexpr int kStages = Shape::kStages;
  constexpr bool kHalves = Format::kKind == ScaleKind::halves;
  using Layout = StageLayout<Format, kRows, kTokens>;
  extern __shared__ __align__(256) std::uint8_t memory[];
  int tile = first_tile + static_cast<int>(blockIdx.z);
  const LinearPart& part = parts.part[find_part(parts, tile)];
  const DeviceMatrix& w = part.weight;
  const int t = threadIdx.x, lane = t % 32, q = lane % 4;
  const int row_warp = t / 32 % Shape::kRowWarps, token_warp = t / 32 / Shape::kRowWarps;
  const int first_row = tile * kRows, first_token = blockIdx.y * kTokens, last_row = w.rows - 1 - first_row;
  const int pairs = w.pairs;
  const int each = segment_length(pairs);
  const ChunkRange chunks = Shape::kSplit ? segment_chunks(pairs, static_cast<int>(blockIdx.x))
                                          : ChunkRange{0, chunks_of_pairs(pairs)};
  const int first_block = chunks.begin / kChunksOfBlock, end_block = (chunks.end + kChunksOfBlock - 1) / kChunksOfBlock;

  // A block of every row of a plane, in kCount pieces of kBytes; pieces before `valid` exist. Offsets inside a tile are 32 bits.
  const auto copy_rows = [&]<int kBytes, int kCount, bool kSwizzled>(std::uint8_t* to, int to_stride, const std::uint8_t* from,
                                                                     std::int64_t from_stride, int block, int valid) {
    constexpr int kRound = kThreads / kCount;
    static_assert(kThreads % kCount == 0 && (!kSwizzled || kRound % 8 == 0));
    const int piece = t % kCount;
    if (piece >= valid) return;
    from += first_row * from_stride + block * kBytes * kCount;
    to += kSwizzled ? swizzled(t / kCount, piece) : piece * kBytes;
#pragma unroll
    for (int i = 0; i < (kRows + kRound - 1) / kRound; ++i) {
      const int row = t / kCount + i * kRound;
      if (kRows % kRound != 0 && row >= kRows) break;
      copy_async<kBytes>(to + row * to_stride,
                         from + static_cast<std::uint32_t>(min(row, last_row) * static_cast<int>(from_stride) + piece * kBytes));
    }
  };
  const auto stage_weights = [&](int block, int at) {
    if (block >= end_block) return;
    std::uint8_t* to = memory + at * Layout::kBytes;
    const int left = pairs - block * kBlockPairs;
    constexpr int kPieces = Layout::kCodeBytes / 16;
    copy_rows.template operator()<16, kPieces, true>(
        to, Layout::kCodeBytes, w.codes, w.code_stride, block, left * (kPieces / kBlockPairs));
    if constexpr (Format::kHigh != 0) {
      copy_rows.template operator()<Format::kHigh, kBlockPairs, false>(
          to + Layout::kHighAt, Layout::kHighStride, w.high, w.high_stride, block, left);
    }
    constexpr int kScale = Format::kScaleBytes < 16 ? Format::kScaleBytes : 16;
    copy_rows.template operator()<kScale, Format::kScaleBytes / kScale, false>(
        to + Layout::kScalesAt, Format::kScaleBytes, w.scales, w.scale_stride, block, kBlockPairs);
    if constexpr (Layout::kExtra) {
      copy_rows.template operator()<4, 1, false>(to + Layout::kExtraAt, 4, w.extra, w.extra_stride, block / 2, 1);
    }
  };
  const int last_token = tokens - 1 - first_token;
  const auto stage_input = [&](int block, int at) {
    if (block >= end_block) return;
    std::uint8_t* to = memory + at * Layout::kBytes;
    const int left = pairs - block * kBlockPairs;
    constexpr int kCodeRound = kThreads / 16, kInfoRound = kThreads / 8;
    static_assert(kCodeRound % 8 == 0);
    const auto* codes = reinterpret_cast<const std::uint8_t*>(x.codes) +
                        (std::int64_t{first_token} * pairs + block * kBlockPairs) * 64;
    const auto* groups = reinterpret_cast<const std::uint8_t*>(x.groups) +
                         (std::int64_t{first_token} * pairs + block * kBlockPairs) * 32;
    if (t % 16 < left * 4) {
#pragma unroll
      for (int i = 0; i < (kTokens + kCodeRound - 1) / kCodeRound; ++i) {
        const int token = t / 16 + i * kCodeRound;
        if (kTokens % kCodeRound != 0 && token >= kTokens) break;
        copy_async<16>(to + Layout::kInputAt + token * Layout::kInputBytes + swizzled(t / 16, t % 16),
                       codes + static_cast<std::uint32_t>(min(token, last_token) * (pairs * 64) + t % 16 * 16));
      }
    }
    if (t % 8 < left * 2) {
#pragma unroll
      for (int i = 0; i < (kTokens + kInfoRound - 1) / kInfoRound; ++i) {
        const int token = t / 8 + i * kInfoRound;
        if (kTokens % kInfoRound != 0 && token >= kTokens) break;
        copy_async<8>(to + Layout::kInfosAt + (t % 8 * kTokens + token) * 8,
                      groups + static_cast<std::uint32_t>(min(token, last_token) * (pairs * 32) + t % 8 * 16));
      }
    }
  };
  const auto commit = [] { asm volatile("cp.async.commit_group;" ::: "memory"); };

  // Weights are on their way before the input is there.
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) stage_weights(first_block + i, i);
  let_next_begin();
  wait_for_previous();
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) {
    stage_input(first_block + i, i);
    commit();
  }

  const std::uint32_t byte_bits = kept_byte_bits();
  float total[2][kColumns][4] = {};
  // Where segments are not split, the sum of those before this one waits in shared memory, each thread's for itself.
  float4* own = reinterpret_cast<float4*>(memory + kStages * Layout::kBytes) + t;
  int segment_end = each;
  // What a lane's operands begin at in a stage.
  std::uint32_t code_rows[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    code_rows[r] = (row_warp * 32 + 16 * r + lane % 16) * Layout::kCodeBytes + swizzled(lane, lane / 16);
  }
  const int input_row = kColumns == 1 ? lane % 8 : lane / 16 * 8 + lane % 8;
  const int input_piece = kColumns == 1 ? lane / 8 : lane / 8 % 2;
  const std::uint32_t input_at = Layout::kInputAt + (token_warp * 8 * kColumns + input_row) * Layout::kInputBytes +
                                 swizzled(input_row, input_piece);
  int ready = 0, free = kStages - 1;  // stages
#pragma unroll 1
  for (int block = first_block; block < end_block; ++block) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncthreads();
    stage_weights(block + kStages - 1, free);
    stage_input(block + kStages - 1, free);
    commit();
    const std::uint8_t* stage = memory + ready * Layout::kBytes;
    ready = ready + 1 == kStages ? 0 : ready + 1;
    free = free + 1 == kStages ? 0 : free + 1;
    const std::uint8_t* high = stage + Layout::kHighAt + row_warp * 32 * Layout::kHighStride;
    const std::uint8_t* infos = stage + Layout::kInfosAt + (token_warp * 8 * kColumns + 2 * q) * 8;
#pragma unroll
    for (int half = 0; half < kChunksOfBlock; ++half) {
      const int chunk = block * kChunksOfBlock + half;
      if (chunk < chunks.begin || chunk >= chunks.end) continue;
      ChunkScales<Format> scales[2][2];  // [16 rows][8 of them]
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int row = row_warp * 32 + 16 * r + 8 * h + lane / 4;
          scales[r][h].load(stage + Layout::kScalesAt + row * Format::kScaleBytes, stage + Layout::kExtraAt + row * 4, half,
                            block);
        }
      }
      float acc[2][kColumns][4] = {};
#pragma unroll
      for (int p = 0; p < kChunkPairs; ++p) {
        const int pair = half * kChunkPairs + p;  // of the block
        if (p > 0 && block * kBlockPairs + pair >= pairs) break;
        WarpPair<Format> raw[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          raw[r].load(stage, code_rows[r], high + 16 * r * Layout::kHighStride, Layout::kHighStride, pair, lane);
        }
        std::uint32_t both[4];  // one column of tokens: both groups at once
        if constexpr (kColumns == 1) load_matrices(both, stage + (input_at ^ (pair * 64)));
#pragma unroll
        for (int g = 0; g < 2; ++g) {
          std::uint32_t a[2][4], b[kColumns][2];
          float s[2][2][2], offset[2][2][2], m[2][2] = {};
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            raw[r].unpack(g, lane, a[r]);
#pragma unroll
            for (int h = 0; h < 2; ++h) {
              scales[r][h].group(2 * p + g, byte_bits, s[r][h], m[r][h]);
              offset[r][h][0] = magic_offset(s[r][h][0]);
              if constexpr (kHalves) offset[r][h][1] = magic_offset(s[r][h][1]);
            }
          }
          if constexpr (kColumns == 1) {
            b[0][0] = both[2 * g];
            b[0][1] = both[2 * g + 1];
          } else {
#pragma unroll
            for (int n = 0; n < kColumns; n += 2) {
              load_matrices(b[n], stage + (input_at ^ (pair * 64 + g * 32)) + 8 * n * Layout::kInputBytes);
            }
          }
#pragma unroll
          for (int n = 0; n < kColumns; ++n) {
            // Tokens 8n + 2q and the next: scale, scaled sum of each.
            const float4 info = *reinterpret_cast<const float4*>(infos + ((2 * pair + g) * kTokens + 8 * n) * 8);
#pragma unroll
            for (int r = 0; r < 2; ++r) {
              float* to = acc[r][n];
              if constexpr (kHalves) {
                int first[4], second[4];
                mma16(first, a[r], b[n][0]);
                mma16(second, a[r] + 2, b[n][1]);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                  const float scale = i % 2 == 0 ? info.x : info.z;
                  to[i] = __fmaf_rn(scaled_sum(first[i], s[r][i / 2][0], offset[r][i / 2][0]), scale, to[i]);
                  to[i] = __fmaf_rn(scaled_sum(second[i], s[r][i / 2][1], offset[r][i / 2][1]), scale, to[i]);
                }
              } else {
                int d[4];
                mma32(d, a[r], b[n]);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                  to[i] = __fmaf_rn(scaled_sum(d[i], s[r][i / 2][0], offset[r][i / 2][0]), i % 2 == 0 ? info.x : info.z,
                                    to[i]);
                  if constexpr (Format::kKind == ScaleKind::minimum) {
                    to[i] = __fmaf_rn(m[r][i / 2], i % 2 == 0 ? info.y : info.w, to[i]);
                  }
                }
              }
            }
          }
        }
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int n = 0; n < kColumns; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) total[r][n][i] = total[r][n][i] + acc[r][n][i];
        }
      }
      if (!Shape::kSplit && (chunk + 1 == segment_end || chunk + 1 == chunks.end)) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
          for (int n = 0; n < kColumns; ++n) {
            float* to = total[r][n];
            float4& sum = own[(r * kColumns + n) * kThreads];
            if (segment_end != each) {
              const float4 before = sum;
              to[0] = before.x + to[0];
              to[1] = before.y + to[1];
              to[2] = before.z + to[2];
              to[3] = before.w + to[3];
            }
            if (chunk + 1 != chunks.end) {
              sum = {to[0], to[1], to[2], to[3]};
              to[0] = to[1] = to[2] = to[3] = 0.0f;
            }
          }
        }
        segment_end += each;
      }
    }
  }

  // Element i of [r][n]: row 32 * row_warp + 16r + 8(i/2) + lane/4, token 8(kColumns * token_warp + n) + 2q + i%2.
  if constexpr (!Shape::kSplit) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = first_row + 32 * row_warp + 16 * r + 8 * (i / 2) + lane / 4;
          const int token = first_token + 8 * (kColumns * token_warp + n) + 2 * q + i % 2;
          if (token < tokens && row < w.rows) store_product(part, token, row, total[r][n][i]);
        }
      }
    }
  } else {
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    __syncthreads();
    float* sums = reinterpret_cast<float*>(memory);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sums[(8 * (kColumns * token_warp + n) + 2 * q + i % 2) * Shape::kSumStride + 32 * row_warp + 16 * r + 8 * (i / 2) +
               lane / 4] = total[r][n][i];
        }
      }
    }
    const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    cluster.sync();
    const int segments = static_cast<int>(gridDim.x);
    for (int at = static_cast<int>(blockIdx.x) * kThreads + t; at < kTokens * kRows; at += segments * kThreads) {
      const int token = at / kRows, row = at % kRows;
      float value[kSegments];
#pragma unroll
      for (int i = 0; i < kSegments; ++i) {
        value[i] = i < segments ? *cluster.map_shared_rank(sums + token * Shape::kSumStride + row, i) : 0.0f;
      }
#pragma unroll
      for (int i = 1; i < kSegments; ++i) value[0] = value[0] + value[i];
      if (first_token + token < tokens && first_row + row < w.rows) {
        store_product(part, first_token + token, first_row + row, value[0]);
      }
    }
    cluster.sync();  // others still read this block's sums
  }
}

// Tiles first .. first + count of a launch's rows.
template <typename Format, typename Shape>
void launch_tiles(const LinearPart* parts, int n_parts, const QuantizedInput& x, int tokens, int first, int count,
                  cudaStream_t stream) {
  ProductParts launch{};
  launch.n_parts = n_parts;
  int tiles = 0;
  for (int i = 0; i < n_parts; ++i) {
    launch.part[i] = parts[i];
    tiles += static_cast<int>(ceil_div(parts[i].weight.rows, Shape::kRows));
    launch.tile_end[i] = tiles;
  }
  const auto segments = static_cast<unsigned>(Shape::kSplit ? used_segments(parts[0].weight.pairs) : 1);
  const dim3 grid(segments, ceil_div(tokens, Shape::kTokens), static_cast<unsigned>(count));
  launch_clusters_after("linear_tiles", tile_kernel<Format, Shape>, grid, Shape::kThreads,
                        tile_shared_bytes<Format, Shape>(), stream, segments, launch, x, tokens, first);
}

// Blocks that the card runs at once; prepares the kernel when first asked.
template <typename Format, typename Shape>
int tile_slots() {
  static const int slots = [] {
    constexpr int kShared = tile_shared_bytes<Format, Shape>();
    const auto kernel = tile_kernel<Format, Shape>;
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared), "linear_tiles");
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
               "linear_tiles");
    int each = 0, device = 0, multiprocessors = 0;
    check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, Shape::kThreads, kShared), "linear_tiles");
    check_cuda(cudaGetDevice(&device), "linear_tiles");
    check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "linear_tiles");
    return each * multiprocessors;
  }();
  return slots;
}

// Whole waves of blocks with all columns; the rest, which would leave most of the card idle, cut into segments: in blocks of
// Split or, where those take more waves, of Dense, more of which fit on a multiprocessor and each of which is slower.
template <typename Format, typename Whole, typename Split, typename Dense>
void launch_product(const LinearPart* parts, int n_parts, const QuantizedInput& x, int tokens, cudaStream_t stream) {
  static_assert(Whole::kRows == Split::kRows && Whole::kRows == Dense::kRows);
  int tiles = 0;
  for (int i = 0; i < n_parts; ++i) tiles += static_cast<int>(ceil_div(parts[i].weight.rows, Whole::kRows));
  const int columns = static_cast<int>(ceil_div(tokens, Whole::kTokens));
  const int slots = tile_slots<Format, Whole>();
  // Clusters of the largest size; some multiprocessors of a group of them stay free.
  const int split_slots = tile_slots<Format, Split>() / kSegments, dense_slots = tile_slots<Format, Dense>() / kSegments;
  int whole = tiles * columns / slots * slots / columns;
  // Nearly a wave runs as one.
  if ((tiles - whole) * columns * 4 > slots * 3) whole = tiles;
  if (whole > 0) launch_tiles<Format, Whole>(parts, n_parts, x, tokens, 0, whole, stream);
  if (whole == tiles) return;
  const int clusters = (tiles - whole) * columns;
  const int split_waves = static_cast<int>(ceil_div(clusters, split_slots)), dense_waves = static_cast<int>(ceil_div(clusters, dense_slots));
  if (split_waves * 4 <= dense_waves * 5) {
    launch_tiles<Format, Split>(parts, n_parts, x, tokens, whole, tiles - whole, stream);
  } else {
    launch_tiles<Format, Dense>(parts, n_parts, x, tokens, whole, tiles - whole, stream);
  }
}

}  // namespace kv::cuda
