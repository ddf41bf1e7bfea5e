// linear_strips: products of one or two tokens. Memory bound: a block of threads takes every n-th strip of 16 rows, so that all
// of them read neighbouring memory at any time, a warp each segment of the columns, whose weights go from memory straight to the warp's registers; the place of
// a pair that was multiplied takes the pair a stage later, in the next strip where this one ends, so that loads never pause.
// A warp keeps its segment of the input in shared memory.
#include <algorithm>

#include "cuda/kernels/dispatch.h"
#include "cuda/kernels/launch.h"
#include "cuda/kernels/linear_halves.cuh"
#include "cuda/kernels/matrix_units.cuh"

namespace kv::cuda {

namespace {

constexpr int kMostThreads = 32 * kSegments;
constexpr int kMostTokens = 2;
// Strips whose segments' sums wait for each other at once.
constexpr int kGroup = 8;
constexpr std::size_t kMostShared = 96 * 1024;  // so that two blocks fit on a multiprocessor

constexpr std::size_t kSharedBytes = 227 * 1024, kOwnBytes = 2 * kGroup * kSegments * kStripRows * kMostTokens * 4 + 1024;

template <typename Operand>
inline constexpr bool kIsFloat = Operand::Scales::kWords == 0;
// Blocks on a multiprocessor.
template <typename Operand>
inline constexpr int kResident = Operand::kRows ? 2 : 3;

template <typename Operand>
__global__ void __launch_bounds__(kMostThreads, kResident<Operand>)
    strip_kernel(const __grid_constant__ ProductParts parts, const HalfInput x, const int tokens, const int strips) {
  constexpr int kPairs = Operand::kStagePairs, kStagesOfBlock = kBlockPairs / kPairs;
  extern __shared__ __align__(128) std::uint8_t memory[];  // the input, (pair, token, 128 bytes)
  __shared__ float sums[2][kGroup][kSegments][kStripRows * kMostTokens];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int pairs = parts.part[0].weight.pairs, cols = parts.part[0].weight.cols;
  const int segments = blockDim.x / 32, segment = warp;
  const int first = segment_begin(pairs, segments, segment) * kStagesOfBlock;
  const int end = segment_begin(pairs, segments, segment + 1) * kStagesOfBlock;
  const int step = gridDim.x, last_strip = blockIdx.x + (strips - 1 - static_cast<int>(blockIdx.x)) / step * step;
  // Where the next stage is loaded from: the lane's places of the segment's `stage` of `strip`.
  struct {
    const std::uint8_t *codes, *high, *scales, *extra;
    const float* factors;
    int strip, stage;
  } next;
  const std::uint8_t* second_rows = nullptr;  // floats: of the lane's row eight below
  const auto begin_strip_at = [&](int strip) {
    int local = strip;
    const DeviceMatrix& w = parts.part[find_part(parts, local)].weight;
    if constexpr (Operand::kRows) {
      next.codes = w.codes + min(local * kStripRows + lane / 4, w.rows - 1) * w.code_stride + lane % 4 * 32;
      second_rows = w.codes + min(local * kStripRows + lane / 4 + 8, w.rows - 1) * w.code_stride + lane % 4 * 32;
    } else {
      next.codes = w.codes + local * w.code_stride + std::int64_t{first} * kPairs * Operand::kCodeBytes;
      next.high = w.high + local * w.high_stride + std::int64_t{first} * kPairs * Operand::kHighBytes;
      next.scales = w.scales + local * w.scale_stride + std::int64_t{first} * Operand::Scales::kStageBytes;
      next.extra = w.extra + local * w.extra_stride + std::int64_t{first} * Operand::Scales::kExtraBytes;
    }
    next.factors = w.factors + local * kStripRows + lane / 4;
  };
  typename Operand::Codes codes[kPairs];
  typename Operand::Scales next_scales;
  float next_factor[2] = {1.0f, 1.0f};
  const auto load_pair = [&](int p) {
    if constexpr (Operand::kRows) {
      const int column = (next.stage * kPairs + p) * kPairColumns + lane % 4 * 16;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          uint4 v{};
          if (column + 8 * i < cols) v = FromGlobal::four((h == 0 ? next.codes : second_rows) + (next.stage * kPairs + p) * (kPairColumns * 2) + 16 * i);
          put_four(v, codes[p].words + 8 * h + 4 * i);
        }
      }
    } else {
      codes[p].template load<FromGlobal>(next.codes + p * Operand::kCodeBytes, next.high + p * Operand::kHighBytes, lane);
    }
  };
  const auto load_scales = [&] {
    next_scales.template load<FromGlobal>(next.scales, next.extra, lane);
    if constexpr (Operand::kHasFactors) {
      next_factor[0] = __ldg(next.factors);
      next_factor[1] = __ldg(next.factors + 8);
    }
  };
  const auto advance = [&] {
    if (++next.stage < end) {
      next.codes += Operand::kRows ? 0 : kPairs * Operand::kCodeBytes;
      next.high += kPairs * Operand::kHighBytes;
      next.scales += Operand::Scales::kStageBytes;
      next.extra += Operand::Scales::kExtraBytes;
    } else {
      // Behind the last strip its own weights once more: nobody multiplies them.
      next.stage = first;
      next.strip = min(next.strip + step, last_strip);
      begin_strip_at(next.strip);
    }
  };
  next.stage = first;
  next.strip = blockIdx.x;
  begin_strip_at(next.strip);
  load_scales();
#pragma unroll
  for (int p = 0; p < kPairs; ++p) load_pair(p);
  advance();
  wait_for_previous();

  // The warp's segment of the input: rows of 128 bytes as they lie in the tile.
  const std::uint32_t input = shared_address(memory) + first * kPairs * tokens * 128;
  const std::uint8_t* from = reinterpret_cast<const std::uint8_t*>(x.codes) + std::int64_t{first} * kPairs * kInputPairBytes;
  for (int i = lane; i < (end - first) * kPairs * tokens * 8; i += 32) {
    const int row = i / 8;
    copy_async(input + i * 16, from + row / tokens * kInputPairBytes + row % tokens * 128 + i % 8 * 16);
  }
  commit_copies();
  const float2 scale = *reinterpret_cast<const float2*>(x.scales + segment * kTileTokens + lane % 4 * 2);
  wait_for_copies<0>();
  __syncwarp();
  // Tokens that do not exist read the last.
  const int token = min(lane % 8, tokens - 1);
  const std::uint32_t input_at = input + token * 128 + ((lane / 8) ^ token) * 16;
  const int pair_bytes = tokens * 128;

  int round = 0;
  for (int strip = blockIdx.x; strip <= last_strip; strip += step, ++round) {
    if (strip == last_strip) let_next_begin();
    float acc[4] = {};
    std::uint32_t at = input_at;
#pragma unroll 1
    for (int stage = first; stage < end; ++stage) {
      typename Operand::Scales scales = next_scales;
      scales.prepare(next_factor[0], next_factor[1]);
      load_scales();
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        std::uint32_t b[8];
        load_operands(b, at);
        load_operands(b + 4, at ^ 64);
        at += pair_bytes;
        const PairScales of_pair = scales.pair(p);
        const std::uint32_t s16[2] = {half2_mul(of_pair.s[0], 0x2c002c00u), half2_mul(of_pair.s[1], 0x2c002c00u)};
#pragma unroll
        for (int t = 0; t < 4; ++t) {
          std::uint32_t a[4];
          Operand::operand(codes[p], t, of_pair, s16, a);
          multiply_step(acc, a, b[2 * t], b[2 * t + 1]);
        }
        load_pair(p);
      }
      advance();
    }
    // Row lane / 4 (+ 8), token 2 * (lane % 4) (+ 1).
    if (lane % 4 == 0) {
      float* to = sums[round / kGroup % 2][round % kGroup][warp];
#pragma unroll
      for (int i = 0; i < 4; ++i) to[i % 2 * kStripRows + lane / 4 + 8 * (i / 2)] = acc[i] * (i % 2 == 0 ? scale.x : scale.y);
    }
    if (round % kGroup != kGroup - 1 && strip != last_strip) continue;
    __syncthreads();
    for (int i = warp; i <= round % kGroup; i += segments) {
      if (lane >= kStripRows * tokens) continue;
      int local = strip - (round % kGroup - i) * step;
      const LinearPart& part = parts.part[find_part(parts, local)];
      const int row = local * kStripRows + lane % kStripRows;
      const auto& of_strip = sums[round / kGroup % 2][i];
      float sum = of_strip[0][lane];
      for (int j = 1; j < segments; ++j) sum = sum + of_strip[j][lane];
      if (row < part.weight.rows) store_product(part, lane / kStripRows, row, sum * undo_factor<Operand>(part.weight, row));
    }
  }
}

std::size_t input_bytes(int tokens, int pairs) { return static_cast<std::size_t>(tokens) * static_cast<std::size_t>(pairs) * 128; }

}  // namespace

bool strips_take(int tokens, int pairs) { return tokens <= kMostTokens && input_bytes(tokens, pairs) <= kMostShared; }

void linear_strips(const LinearPart* parts, int n_parts, const HalfInput& x, int tokens, cudaStream_t stream) {
  ProductParts launch{};
  const int strips = place_parts(launch, parts, n_parts, kStripRows);
  const std::size_t shared = input_bytes(tokens, parts[0].weight.pairs);
  with_operand(parts[0].weight, [&]<typename Operand>() {
    static const bool prepared = [] {
      check_cuda(cudaFuncSetAttribute(strip_kernel<Operand>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kMostShared)),
                 "linear_strips");
      return true;
    }();
    static_cast<void>(prepared);
    const int multiprocessors = count_multiprocessors();
    int each = std::min(kResident<Operand>, static_cast<int>(kSharedBytes / (shared + kOwnBytes)));
    std::size_t room = shared;
    if constexpr (!kIsFloat<Operand>) {
      // Fewer blocks than fit, and then no room for more of them, so that none shares a multiprocessor while others are idle.
      each = std::min(static_cast<int>(ceil_div(strips, multiprocessors)), each);
      room = std::max(shared, kSharedBytes / static_cast<std::size_t>(each + 1) - kOwnBytes + 1024);
    }
    launch_after("linear_strips", strip_kernel<Operand>, static_cast<unsigned>(std::min(strips, each * multiprocessors)),
                 32 * static_cast<unsigned>(segments_of(parts[0].weight.pairs)), std::min(room, kMostShared), stream, launch, x, tokens,
                 strips);
  });
}

}  // namespace kv::cuda
