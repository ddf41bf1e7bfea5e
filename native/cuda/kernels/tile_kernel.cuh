// The kernel of linear_tiles: 64 * kGroups weight rows by 8 * kTiles tokens, four warps for each 64 rows. Stages of columns
// are copied to shared memory ahead; every warp makes operands of a strip in its registers and has them multiplied with the
// tokens where those lie. kSplit: a cluster of blocks, each one segment of the columns, else one block all of them one after
// another; the bits are the same (linear_halves.cuh).
#pragma once

#include <cooperative_groups.h>

#include "cuda/kernels/launch.h"
#include "cuda/kernels/linear_halves.cuh"
#include "cuda/kernels/warpgroup_units.cuh"

namespace kv::cuda {

template <int kGroupCount, int kTileCount, bool kIsSplit, int kStageCount, int kResidentBlocks>
struct TileShape {
  static constexpr int kGroups = kGroupCount, kTiles = kTileCount;
  static constexpr bool kSplit = kIsSplit;
  static constexpr int kStages = kStageCount, kResident = kResidentBlocks;
  static constexpr int kWarps = 4 * kGroups, kThreads = 32 * kWarps;
  static constexpr int kStrips = kWarps, kRows = kStripRows * kStrips, kTokens = kTileTokens * kTiles;
  // Sums of a segment, (kTokens, kRows); neighbouring pairs of tokens in other banks.
  static constexpr int kSumStride = kRows + 4;
  static constexpr int kSumBytes = kTokens * kSumStride * 4;
};

// A stage in shared memory, offsets in bytes.
template <typename Operand, int kStrips, int kTiles>
struct StageLayout {
  static constexpr int kPairs = Operand::kStagePairs;
  static constexpr int kStripCodes = kPairs * Operand::kCodeBytes;
  static constexpr int kStripHigh = kPairs * Operand::kHighBytes;
  static constexpr int kStripScales = Operand::Scales::kStageBytes, kStripExtra = Operand::Scales::kExtraBytes;
  static constexpr int kTileInput = kPairs * kInputPairBytes;
  static constexpr int kCodesAt = kTiles * kTileInput;
  static constexpr int kHighAt = kCodesAt + kStrips * kStripCodes;
  static constexpr int kScalesAt = kHighAt + kStrips * kStripHigh;
  static constexpr int kExtraAt = kScalesAt + kStrips * kStripScales;
  static constexpr int kEnd = kExtraAt + kStrips * kStripExtra;
  static constexpr int kBytes = (kEnd + 1023) / 1024 * 1024;
};

inline constexpr int kStagesAskedAhead = 4;

// 1,024 more bytes align the stages.
template <typename Operand, typename Shape>
constexpr int tile_shared_bytes() {
  constexpr int kStaged = Shape::kStages * StageLayout<Operand, Shape::kStrips, Shape::kTiles>::kBytes;
  return (Shape::kSplit && kStaged < Shape::kSumBytes ? Shape::kSumBytes : kStaged) + 1024;
}

template <typename Operand, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kResident)
    tile_kernel(const __grid_constant__ ProductParts parts, const HalfInput x, const int tokens, const int first_tile) {
  constexpr int kTiles = Shape::kTiles, kStages = Shape::kStages, kPairs = Operand::kStagePairs, kWarps = Shape::kWarps;
  constexpr int kStagesOfBlock = kBlockPairs / kPairs;
  using Layout = StageLayout<Operand, Shape::kStrips, kTiles>;
  extern __shared__ std::uint8_t unaligned[];
  __shared__ std::uint64_t barriers[2 * kStages];  // a stage has come; it has been read
  __shared__ float scales_of_input[kTiles * kSegments * kTileTokens];
  std::uint8_t* memory = unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
  const std::uint32_t memory_at = shared_address(memory);
  const auto came = [&](int at) { return shared_address(barriers + at); };
  const auto was_read = [&](int at) { return shared_address(barriers + kStages + at); };
  int tile = first_tile + static_cast<int>(blockIdx.z);
  const LinearPart& part = parts.part[find_part(parts, tile)];
  const DeviceMatrix& w = part.weight;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, q = lane % 4;
  const int first_strip = tile * Shape::kStrips, last_strip = (w.rows - 1) / kStripRows - first_strip;
  const int first_token_tile = blockIdx.y * kTiles, last_token_tile = (tokens - 1) / kTileTokens - first_token_tile;
  const int pairs = w.pairs, n_segments = segments_of(pairs);
  int segment = Shape::kSplit ? static_cast<int>(blockIdx.x) : 0;
  const auto segment_stage = [&](int i) { return segment_begin(pairs, n_segments, i) * kStagesOfBlock; };
  const int first = segment_stage(segment), end = Shape::kSplit ? segment_stage(segment + 1) : pairs / kPairs;

  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      begin_barrier(came(i), 1);
      begin_barrier(was_read(i), kWarps);
    }
    show_barriers();
  }
  __syncthreads();
  let_next_begin();

  // Every warp copies its own strip and its share of the token tiles, each copy by a lane of its own.
  const int own_strip = first_strip + min(warp, last_strip);
  const auto tile_of = [&](int i) { return std::int64_t{first_token_tile + min(i, last_token_tile)}; };
  const auto copy_input = [&](int stage, int at) {
    const int i = warp + kWarps * lane;
    if (i < kTiles) {
      bulk_copy(memory_at + at * Layout::kBytes + i * Layout::kTileInput,
                reinterpret_cast<const std::uint8_t*>(x.codes) + (tile_of(i) * pairs + stage * kPairs) * kInputPairBytes,
                Layout::kTileInput, came(at));
    }
  };
  const auto copy_weights = [&](int stage, int at) {
    const std::uint32_t to = memory_at + at * Layout::kBytes;
    if (threadIdx.x == 0) arrive_expecting(came(at), kTiles * Layout::kTileInput + Layout::kEnd - Layout::kCodesAt);
    const auto copy_plane = [&]<int kBytes>(int plane_at, const std::uint8_t* plane, std::int64_t stride, int of_lane) {
      if (kBytes != 0 && lane == of_lane) {
        bulk_copy(to + plane_at + warp * kBytes, plane + own_strip * stride + std::int64_t{stage} * kBytes, kBytes, came(at));
      }
    };
    copy_plane.template operator()<Layout::kStripCodes>(Layout::kCodesAt, w.codes, w.code_stride, 31);
    copy_plane.template operator()<Layout::kStripScales>(Layout::kScalesAt, w.scales, w.scale_stride, 30);
    copy_plane.template operator()<Layout::kStripHigh>(Layout::kHighAt, w.high, w.high_stride, 29);
    copy_plane.template operator()<Layout::kStripExtra>(Layout::kExtraAt, w.extra, w.extra_stride, 28);
  };
  // Weights are on their way before the input is there, those of a few more stages to the second-level cache.
  for (int i = 0; i < kStages && first + i < end; ++i) copy_weights(first + i, i);
  const int more = min(kStagesAskedAhead, end - first - kStages);
  if (lane == 0 && more > 0) {
    ask_ahead(w.codes + own_strip * w.code_stride + std::int64_t{first + kStages} * Layout::kStripCodes,
              more * Layout::kStripCodes);
  }
  wait_for_previous();
  for (int i = 0; i < kStages && first + i < end; ++i) copy_input(first + i, i);
  for (int i = threadIdx.x; i < kTiles * kSegments * kTileTokens; i += Shape::kThreads) {
    constexpr int kTileScales = kSegments * kTileTokens;
    scales_of_input[i] = x.scales[tile_of(i / kTileScales) * kTileScales + i % kTileScales];
  }
  __syncthreads();

  float acc[kTiles * 4];
  float sum[Shape::kSplit ? 1 : kTiles * 4];  // of the segments before
  float factor[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) factor[h] = row_factor<Operand>(w, own_strip * kStripRows + lane / 4 + 8 * h);
  const int first_segment = segment;
  int segment_end = segment_stage(segment + 1);
  int goes_on = 0;  // whether a step adds to the segment's earlier ones
  int at = 0;
  std::uint32_t parity = 0;
#pragma unroll 1
  for (int stage = first; stage < end; ++stage) {
    const std::uint8_t* staged = memory + at * Layout::kBytes;
    const std::uint64_t input = input_descriptor(memory_at + at * Layout::kBytes, Layout::kTileInput);
    wait_barrier(came(at), parity);
    typename Operand::Scales scales;
    scales.template load<FromShared>(staged + Layout::kScalesAt + warp * Layout::kStripScales,
                                     staged + Layout::kExtraAt + warp * Layout::kStripExtra, lane);
    scales.prepare(factor[0], factor[1]);
    const auto load_codes = [&](int p) {
      typename Operand::Codes codes;
      codes.template load<FromShared>(staged + Layout::kCodesAt + warp * Layout::kStripCodes + p * Operand::kCodeBytes,
                                      staged + Layout::kHighAt + warp * Layout::kStripHigh + p * Operand::kHighBytes, lane);
      return codes;
    };
    typename Operand::Codes next_codes = load_codes(0);
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const typename Operand::Codes codes = next_codes;
      if (p + 1 < kPairs) next_codes = load_codes(p + 1);
      const PairScales of_pair = scales.pair(p);
      // Two steps' operands are made while the two before are multiplied: two arrays in turn, so that none is written while
      // the units still read it, unrolled or not.
      const auto multiply_two = [&]<int kFirst>(std::uint32_t(&a)[2][4]) {
        Operand::operand(codes, kFirst, of_pair, a[0]);
        Operand::operand(codes, kFirst + 1, of_pair, a[1]);
        pin<8>(&a[0][0]);
        begin_multiplying();
        multiply_tiles<kTiles>(acc, a[0], input + p * (kInputPairBytes / 16) + kFirst * 2, p == 0 && kFirst == 0 ? goes_on : 1);
        multiply_tiles<kTiles>(acc, a[1], input + p * (kInputPairBytes / 16) + kFirst * 2 + 2, 1);
        commit_multiplying();
      };
      std::uint32_t even[2][4], odd[2][4];
      multiply_two.template operator()<0>(even);
      // The place of the stage before is free when all have read it; by now they have, or nearly.
      if (p == 0 && stage > first && stage - 1 + kStages < end) {
        const int before = at == 0 ? kStages - 1 : at - 1;
        wait_barrier(was_read(before), at == 0 ? parity ^ 1 : parity);
        copy_weights(stage - 1 + kStages, before);
        copy_input(stage - 1 + kStages, before);
      }
      wait_multiplying<1>();  // for `odd` of the pair before
      multiply_two.template operator()<2>(odd);
      wait_multiplying<1>();  // for `even`
    }
    wait_multiplying<0>();
    pin<4 * kTiles>(acc);
    goes_on = 1;
    __syncwarp();
    if (lane == 0) arrive(was_read(at));
    if (++at == kStages) {
      at = 0;
      parity ^= 1;
    }
    if (stage + 1 == segment_end) {
      goes_on = 0;
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const float* scales = scales_of_input + (n * kSegments + segment) * kTileTokens;
        const float2 scale = *reinterpret_cast<const float2*>(scales + 2 * q);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float whole = acc[4 * n + i] * (i % 2 == 0 ? scale.x : scale.y);
          if constexpr (Shape::kSplit) {
            acc[4 * n + i] = whole;
          } else {
            sum[4 * n + i] = segment == first_segment ? whole : sum[4 * n + i] + whole;
          }
        }
      }
      if constexpr (!Shape::kSplit) {
        ++segment;
        segment_end = segment_stage(segment + 1);
      }
    }
  }

  const int first_row = first_strip * kStripRows, first_token = first_token_tile * kTileTokens;
  // Element i of tile n: row 16 * warp + 8(i/2) + lane/4, token 8n + 2q + i%2.
  if constexpr (!Shape::kSplit) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + kStripRows * warp + 8 * h + lane / 4;
      if (row >= w.rows) continue;
      const float undo = undo_factor<Operand>(w, row);
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int token = first_token + 8 * n + 2 * q + i;
          if (token < tokens) store_product(part, token, row, sum[4 * n + 2 * h + i] * undo);
        }
      }
    }
  } else {
    __syncthreads();  // all stages have been read
    float* sums = reinterpret_cast<float*>(memory);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sums[(8 * n + 2 * q + i % 2) * Shape::kSumStride + kStripRows * warp + 8 * (i / 2) + lane / 4] = acc[4 * n + i];
      }
    }
    const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    cluster.sync();
    const int segments = static_cast<int>(gridDim.x);
    for (int at = static_cast<int>(blockIdx.x * Shape::kThreads + threadIdx.x); at < Shape::kTokens * Shape::kRows;
         at += segments * Shape::kThreads) {
      const int token = at / Shape::kRows, row = at % Shape::kRows;
      if (first_token + token >= tokens || first_row + row >= w.rows) continue;
      float value[kSegments];
#pragma unroll
      for (int i = 0; i < kSegments; ++i) {
        if (i < segments) value[i] = *cluster.map_shared_rank(sums + token * Shape::kSumStride + row, i);
      }
#pragma unroll
      for (int i = 1; i < kSegments; ++i) {
        if (i < segments) value[0] = value[0] + value[i];
      }
      store_product(part, first_token + token, first_row + row, value[0] * undo_factor<Operand>(w, first_row + row));
    }
    cluster.sync();  // others still read this block's sums
  }
}

// Tiles first .. first + count of a launch's rows.
template <typename Operand, typename Shape>
void launch_tiles(const LinearPart* parts, int n_parts, const HalfInput& x, int tokens, int first, int count,
                  cudaStream_t stream) {
  ProductParts launch{};
  place_parts(launch, parts, n_parts, Shape::kRows);
  const auto segments = static_cast<unsigned>(Shape::kSplit ? segments_of(parts[0].weight.pairs) : 1);
  const dim3 grid(segments, ceil_div(tokens, Shape::kTokens), static_cast<unsigned>(count));
  launch_clusters_after("linear_tiles", tile_kernel<Operand, Shape>, grid, Shape::kThreads,
                        tile_shared_bytes<Operand, Shape>(), stream, segments, launch, x, tokens, first);
}

// Blocks that the card runs at once; prepares the kernel when first asked.
template <typename Operand, typename Shape>
int tile_slots() {
  static const int slots = [] {
    constexpr int kShared = tile_shared_bytes<Operand, Shape>();
    const auto kernel = tile_kernel<Operand, Shape>;
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared), "linear_tiles");
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
               "linear_tiles");
    return resident_blocks(kernel, Shape::kThreads, kShared, "linear_tiles");
  }();
  return slots;
}

// Whole waves of blocks with all columns; the rest, which would leave most of the card idle, cut into segments.
template <typename Operand, typename Whole, typename Split>
void launch_product(const LinearPart* parts, int n_parts, const HalfInput& x, int tokens, cudaStream_t stream) {
  static_assert(Whole::kRows == Split::kRows && Whole::kTokens == Split::kTokens);
  int tiles = 0;
  for (int i = 0; i < n_parts; ++i) tiles += static_cast<int>(ceil_div(parts[i].weight.rows, Whole::kRows));
  const int columns = static_cast<int>(ceil_div(tokens, Whole::kTokens));
  const int slots = tile_slots<Operand, Whole>();
  tile_slots<Operand, Split>();
  int whole = tiles * columns / slots * slots / columns;
  // Nearly a wave runs as one.
  if ((tiles - whole) * columns * 4 > slots * 3) whole = tiles;
  if (whole > 0) launch_tiles<Operand, Whole>(parts, n_parts, x, tokens, 0, whole, stream);
  if (whole < tiles) launch_tiles<Operand, Split>(parts, n_parts, x, tokens, whole, tiles - whole, stream);
}

}  // namespace kv::cuda
