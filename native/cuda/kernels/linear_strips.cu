// linear_strips: products of one or two tokens. Memory bound: a block of threads takes strips of 16 rows one after another, a
// warp each segment of the columns, whose weights go from memory straight to the warp's registers; the place of a pair that
// was multiplied takes the one a stage or two later, in the next strip where this one ends, so that loads never pause. A warp
// keeps its segment of the input in shared memory.
#include <algorithm>

#include "cuda/kernels/dispatch.h"
#include "cuda/kernels/launch.h"
#include "cuda/kernels/linear_halves.cuh"
#include "cuda/kernels/matrix_units.cuh"

namespace kv::cuda {

namespace {

constexpr int kMostThreads = 32 * kSegments;
constexpr int kMostTokens = 2;
constexpr std::size_t kMostInput = 96 * 1024, kMostShared = 100 * 1024;
// Strips whose segments' sums wait for each other at once.
constexpr int kGroup = 8;
constexpr std::size_t kSharedBytes = 227 * 1024, kOwnBytes = 2 * kGroup * kSegments * kStripRows * kMostTokens * 4 + 1024;

// Floats are four times the bytes and hardly any arithmetic: fewer warps, each with two stages on their way.
template <typename Operand>
inline constexpr bool kIsFloat = Operand::Scales::kWords == 0;
template <typename Operand>
inline constexpr int kAhead = kIsFloat<Operand> ? 2 : 1;
// Blocks on a multiprocessor.
template <typename Operand>
inline constexpr int kResident = kIsFloat<Operand> ? 2 : 3;

// A stage of a segment in a lane's registers.
template <typename Operand>
struct HeldStage {
  typename Operand::Codes codes[Operand::kStagePairs];
  typename Operand::Scales scales;
  float factor[2];
};

template <typename Operand>
__global__ void __launch_bounds__(kMostThreads, kResident<Operand>)
    strip_kernel(const __grid_constant__ ProductParts parts, const HalfInput x, const int tokens, const int strips) {
  constexpr int kPairs = Operand::kStagePairs, kStagesOfBlock = kBlockPairs / kPairs;
  static_assert(kStagesOfBlock % kAhead<Operand> == 0);  // a segment is whole blocks
  using Held = HeldStage<Operand>;
  extern __shared__ __align__(128) std::uint8_t memory[];  // the input, (pair, token, 128 bytes)
  __shared__ float sums[2][kGroup][kSegments][kStripRows * kMostTokens];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int pairs = parts.part[0].weight.pairs;
  const int segments = blockDim.x / 32, segment = warp;
  const int first = segment_begin(pairs, segments, segment) * kStagesOfBlock;
  const int end = segment_begin(pairs, segments, segment + 1) * kStagesOfBlock;
  const int step = gridDim.x;
  // Where the next stage is loaded from: the lane's places of the segment's `stage` of `strip`.
  struct {
    const std::uint8_t *codes, *high, *scales, *extra;
    const float* factors;
    int strip, stage;
  } next{};
  const auto begin_strip = [&](int strip) {
    next.strip = strip;
    if (strip >= strips) return;
    int local = strip;
    const DeviceMatrix& w = parts.part[find_part(parts, local)].weight;
    next.stage = first;
    next.codes = w.codes + local * w.code_stride + std::int64_t{first} * kPairs * Operand::kCodeBytes;
    next.high = w.high + local * w.high_stride + std::int64_t{first} * kPairs * Operand::kHighBytes;
    next.scales = w.scales + local * w.scale_stride + std::int64_t{first} * Operand::Scales::kStageBytes;
    next.extra = w.extra + local * w.extra_stride + std::int64_t{first} * Operand::Scales::kExtraBytes;
    next.factors = w.factors + local * kStripRows + lane / 4;
  };
  const auto load_pair = [&](Held& to, int p) {
    if (next.strip >= strips) return;
    to.codes[p].template load<FromGlobal>(next.codes + p * Operand::kCodeBytes, next.high + p * Operand::kHighBytes, lane);
  };
  const auto load_scales = [&](Held& to) {
    if (next.strip >= strips) return;
    to.scales.template load<FromGlobal>(next.scales, next.extra, lane);
    if constexpr (Operand::kHasFactors) {
      to.factor[0] = __ldg(next.factors);
      to.factor[1] = __ldg(next.factors + 8);
    }
  };
  const auto advance = [&] {
    if (next.strip >= strips) return;
    if (++next.stage < end) {
      next.codes += kPairs * Operand::kCodeBytes;
      next.high += kPairs * Operand::kHighBytes;
      next.scales += Operand::Scales::kStageBytes;
      next.extra += Operand::Scales::kExtraBytes;
    } else {
      begin_strip(next.strip + step);
    }
  };
  begin_strip(blockIdx.x);
  Held held[kAhead<Operand>];
#pragma unroll
  for (Held& stage : held) {
    stage.factor[0] = stage.factor[1] = 1.0f;
    load_scales(stage);
#pragma unroll
    for (int p = 0; p < kPairs; ++p) load_pair(stage, p);
    advance();
  }
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
  for (int strip = blockIdx.x; strip < strips; strip += step, ++round) {
    const bool is_last = strip + step >= strips;
    if (is_last) let_next_begin();
    float acc[4] = {};
    std::uint32_t at = input_at;
    // Multiplies a stage; a later one takes its place.
    const auto multiply_stage = [&](Held& stage) {
      typename Operand::Scales scales = stage.scales;
      scales.prepare(stage.factor[0], stage.factor[1]);
      load_scales(stage);
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        std::uint32_t b[8];
        load_operands(b, at);
        load_operands(b + 4, at ^ 64);
        at += pair_bytes;
        const PairScales of_pair = scales.pair(p);
#pragma unroll
        for (int t = 0; t < 4; ++t) {
          std::uint32_t a[4];
          Operand::operand(stage.codes[p], t, of_pair, a);
          multiply_add<false>(acc, a, b[2 * t], b[2 * t + 1]);
        }
        load_pair(stage, p);
      }
      advance();
    };
#pragma unroll 1
    for (int stage = first; stage < end; stage += kAhead<Operand>) {
#pragma unroll
      for (Held& of : held) multiply_stage(of);
    }
    // Row lane / 4 (+ 8), token 2 * (lane % 4) (+ 1).
    const int in_group = round % kGroup;
    auto& group = sums[round / kGroup % 2];
    if (lane % 4 == 0) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        group[in_group][warp][i % 2 * kStripRows + lane / 4 + 8 * (i / 2)] = acc[i] * (i % 2 == 0 ? scale.x : scale.y);
      }
    }
    if (in_group == kGroup - 1 || is_last) {
      __syncthreads();
      for (int i = warp; i <= in_group; i += segments) {
        if (lane >= kStripRows * tokens) continue;
        int local = strip - (in_group - i) * step;
        const LinearPart& part = parts.part[find_part(parts, local)];
        const int row = local * kStripRows + lane % kStripRows;
        float sum = group[i][0][lane];
        for (int j = 1; j < segments; ++j) sum = sum + group[i][j][lane];
        if (row < part.weight.rows) store_product(part, lane / kStripRows, row, sum * undo_factor<Operand>(part.weight, row));
      }
    }
  }
}

std::size_t input_bytes(int tokens, int pairs) {
  return static_cast<std::size_t>(tokens) * static_cast<std::size_t>(pairs) * 128;
}

}  // namespace

bool strips_take(int tokens, int pairs) { return tokens <= kMostTokens && input_bytes(tokens, pairs) <= kMostInput; }

void linear_strips(const LinearPart* parts, int n_parts, const HalfInput& x, int tokens, cudaStream_t stream) {
  ProductParts launch{};
  const int strips = place_parts(launch, parts, n_parts, kStripRows);
  const std::size_t shared = input_bytes(tokens, parts[0].weight.pairs);
  with_operand(parts[0].weight.dtype, [&]<typename Operand>() {
    allow_shared(strip_kernel<Operand>, kMostShared, "linear_strips");
    const int multiprocessors = count_multiprocessors();
    // Fewer blocks than fit, and then no room for more of them, so that none shares a multiprocessor while others are idle.
    const int each = std::min({static_cast<int>(ceil_div(strips, multiprocessors)), kResident<Operand>,
                               static_cast<int>(kSharedBytes / (shared + kOwnBytes))});
    const std::size_t room = std::max(shared, kSharedBytes / static_cast<std::size_t>(each + 1) - kOwnBytes + 1024);
    launch_after("linear_strips", strip_kernel<Operand>, static_cast<unsigned>(std::min(strips, each * multiprocessors)),
                 32 * static_cast<unsigned>(segments_of(parts[0].weight.pairs)), std::min(room, kMostShared), stream, launch, x,
                 tokens, strips);
  });
}

}  // namespace kv::cuda
