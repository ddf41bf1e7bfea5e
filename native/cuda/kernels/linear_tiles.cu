// linear_tiles: quantized products of several tokens on the integer tensor cores. A cluster of four blocks computes 64 rows
// by 8 * kColumns tokens, a block one segment of them; a warp takes 16 rows and goes through its segment chunk by chunk.
// Every mma is one group of 32 columns (halves: of 16), so its integers meet the group's scales exactly as
// linear_quantized.cuh defines it: the bits are those of linear_vector.
//
// A weight is unpacked once for all tokens of the tile. The tokens' codes of a chunk come to shared memory a few chunks
// ahead, a warp's weights to registers one ahead. Inside a group the columns are dealt to lanes so that both operands are
// 8-byte loads: lane q of four takes columns 8q .. 8q+7 of each group (halves: 4q .. 4q+3 of each half).
#include <cooperative_groups.h>

#include "cuda/kernels/dispatch.h"
#include "cuda/kernels/launch.h"
#include "cuda/kernels/linear_quantized.cuh"

namespace kv::cuda {

namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kTileRows = 16 * kWarps;
constexpr int kStages = 3;  // chunks whose codes shared memory holds
// Bytes from token to token of staged codes and of staged group infos: other banks for neighbouring tokens.
constexpr int kCodeStride = kChunkPairs * 64 + 32;
constexpr int kInfoStride = kChunkPairs * 2 * static_cast<int>(sizeof(GroupInfo)) + 16;

// An mma adds to this, so that its int32 result read as a float is 1.5 * 2^23 + the sum: exact while |sum| < 2^22, and one
// subtraction instead of a conversion.
constexpr int kMagicBits = 0x4B400000;
__device__ inline float exact_sum(int bits) { return __int_as_float(bits) - 12582912.0f; }

// d = a (16 x 32, s8) * b (32 x 8, s8) + kMagicBits.
__device__ inline void mma32(int* d, const std::uint32_t* a, const std::uint32_t* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(kMagicBits));
}
// d = a (16 x 16, s8) * b (16 x 8, s8) + kMagicBits.
__device__ inline void mma16(int* d, std::uint32_t a0, std::uint32_t a1, std::uint32_t b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(a0), "r"(a1), "r"(b), "r"(kMagicBits));
}

// What a lane needs of one row's pair, as it is stored.
template <typename Format>
struct LanePair {
  std::uint32_t codes[Format::kNibbles ? 2 : 4], high[2], scales[4];

  __device__ void load(const DeviceMatrix& w, std::int64_t row, int pair, int q) {
    const auto pair8 = [](std::uint32_t* to, const std::uint8_t* p) {
      const uint2 both = read8(p);
      to[0] = both.x;
      to[1] = both.y;
    };
    if constexpr (!Format::kNibbles) {
      const std::uint8_t* p = w.codes + row * w.code_stride + pair * 64 + 8 * q;
      pair8(codes, p);
      pair8(codes + 2, p + 32);
    } else {
      const std::uint8_t* p = w.codes + row * w.code_stride + pair * 32;
      if constexpr (Format::kKind == ScaleKind::halves) {
        codes[0] = read4(p + 4 * q);
        codes[1] = read4(p + 16 + 4 * q);
      } else {
        pair8(codes, p + 8 * q);
      }
      if constexpr (Format::kHigh == 8) pair8(high, w.high + row * w.high_stride + pair * 8);
      if constexpr (Format::kHigh == 16) high[0] = read4(w.high + row * w.high_stride + pair * 16 + 4 * q);
    }
    Format::load_scales(w, row, pair, scales);
  }
  // Bits above the nibbles of words[group][i], at their place.
  __device__ std::uint32_t high_bits(int i, int group, int q) const {
    if constexpr (Format::kHigh == 8) return ((high[i] >> (4 * group + q)) & 0x01010101u) << 4;
    if constexpr (Format::kHigh == 16) return ((high[0] >> (4 * group + 2 * i)) & 0x03030303u) << 4;
    return 0;
  }
  // Code - zero point in each byte; codes are below 128.
  __device__ static std::uint32_t centred(std::uint32_t codes) {
    if constexpr (Format::kZero == 0) return codes;
    return ((codes | 0x80808080u) - 0x01010101u * Format::kZero) ^ 0x80808080u;
  }
  // words[group][i]: columns 8q + 4i .. (halves: 4q + 16i ..).
  __device__ void unpack(int q, std::uint32_t (*words)[2]) const {
    if constexpr (!Format::kNibbles) {
#pragma unroll
      for (int i = 0; i < 4; ++i) words[i / 2][i % 2] = codes[i];
    } else {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        std::uint32_t low = codes[i] & 0x0f0f0f0fu, up = (codes[i] >> 4) & 0x0f0f0f0fu;
        if constexpr (Format::kMxfp4) {
          low = shifted_mxfp4(low);
          up = shifted_mxfp4(up);
        }
        words[0][i] = centred(low | high_bits(i, 0, q));
        words[1][i] = centred(up | high_bits(i, 1, q));
      }
    }
  }
};

// A row of a matrix as a matrix of its own.
__device__ inline DeviceMatrix row_of(const DeviceMatrix& w, std::int64_t row) {
  DeviceMatrix view = w;
  view.codes += row * w.code_stride;
  view.high += row * w.high_stride;
  view.scales += row * w.scale_stride;
  view.extra += row * w.extra_stride;
  return view;
}

__device__ inline void copy_async(std::uint8_t* to, const void* from) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
}

template <typename Format, int kColumns>
__global__ void __cluster_dims__(kSegments, 1, 1) __launch_bounds__(kThreads, kColumns == 8 ? 3 : kColumns == 4 ? 4 : 5)
    tile_kernel(ProductParts parts, QuantizedInput x, int tokens) {
  constexpr int kTokens = 8 * kColumns, kStageBytes = kTokens * (kCodeStride + kInfoStride);
  constexpr bool kHalves = Format::kKind == ScaleKind::halves;
  constexpr int kBytes = kStages * kStageBytes > kTokens * kTileRows * 4 ? kStages * kStageBytes : kTokens * kTileRows * 4;
  __shared__ alignas(16) std::uint8_t memory[kBytes];
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  int tile = blockIdx.z;
  const LinearPart& part = parts.part[find_part(parts, tile)];
  const DeviceMatrix& w = part.weight;
  const int t = threadIdx.x, lane = t % 32, warp = t / 32, q = lane % 4, segment = blockIdx.x;
  const int first_token = blockIdx.y * kTokens;
  const int pairs = w.pairs;
  const ChunkRange chunks = segment_chunks(pairs, segment);
  DeviceMatrix rows[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) rows[h] = row_of(w, min(tile * kTileRows + 16 * warp + 8 * h + lane / 4, w.rows - 1));

  // What a thread stages of every chunk: pieces of 16 bytes, codes of every 16th token and infos of every 32nd.
  constexpr int kCodeSlots = (kTokens + 15) / 16, kInfoSlots = (kTokens + 31) / 32;
  std::uint32_t code_from[kCodeSlots], info_from[kInfoSlots];
#pragma unroll
  for (int i = 0; i < kCodeSlots; ++i) {
    code_from[i] = static_cast<std::uint32_t>(min(first_token + t / 8 + 16 * i, tokens - 1) * pairs * 4 + t % 4);
  }
#pragma unroll
  for (int i = 0; i < kInfoSlots; ++i) {
    info_from[i] = static_cast<std::uint32_t>(min(first_token + t / 4 + 32 * i, tokens - 1) * pairs * 2 + t % 2);
  }
  const auto stage = [&](int chunk, int at) {
    const int code_pair = pair_of(chunk, t / 4 % 2), info_pair = pair_of(chunk, t / 2 % 2);
    std::uint8_t* to = memory + at * kStageBytes;
    if (chunk < chunks.end && code_pair < pairs && (kTokens >= 16 || t < 8 * kTokens)) {
#pragma unroll
      for (int i = 0; i < kCodeSlots; ++i) {
        copy_async(to + (t / 8 + 16 * i) * kCodeStride + t % 8 * 16,
                   x.codes + std::uint64_t{code_from[i] + static_cast<std::uint32_t>(code_pair) * 4} * 16);
      }
    }
    if (chunk < chunks.end && info_pair < pairs && (kTokens >= 32 || t < 4 * kTokens)) {
#pragma unroll
      for (int i = 0; i < kInfoSlots; ++i) {
        copy_async(to + kTokens * kCodeStride + (t / 4 + 32 * i) * kInfoStride + t % 4 * 16,
                   x.groups + (info_from[i] + static_cast<std::uint32_t>(info_pair) * 2));
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };

  float total[kColumns][4] = {};
  LanePair<Format> raw[kChunkPairs][2];  // [pair][row half]
  const auto load = [&](int chunk, int p) {
    const int pair = min(pair_of(chunk, p), pairs - 1);
#pragma unroll
    for (int h = 0; h < 2; ++h) raw[p][h].load(rows[h], 0, pair, q);
  };
  if (chunks.begin < chunks.end) {
#pragma unroll
    for (int p = 0; p < kChunkPairs; ++p) load(chunks.begin, p);
  }
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) stage(chunks.begin + i, i);
  int ready = 0, free = kStages - 1;  // stages
  for (int chunk = chunks.begin; chunk < chunks.end; ++chunk) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncthreads();
    stage(chunk + kStages - 1, free);
    const std::uint8_t* codes = memory + ready * kStageBytes + lane / 4 * kCodeStride + (kHalves ? 4 : 8) * q;
    const std::uint8_t* infos = memory + ready * kStageBytes + kTokens * kCodeStride + 2 * q * kInfoStride;
    ready = ready + 1 == kStages ? 0 : ready + 1;
    free = free + 1 == kStages ? 0 : free + 1;
    float acc[kColumns][4] = {};
#pragma unroll
    for (int p = 0; p < kChunkPairs; ++p) {
      const int pair = pair_of(chunk, p);
      if (pair >= pairs) break;
      std::uint32_t a[2][2][2];  // row half, group, word
      float s[2][4], lo[2][2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        raw[p][h].unpack(q, a[h]);
        Format::scales_of(raw[p][h].scales, pair, s[h], lo[h]);
      }
      load(min(chunk + 1, chunks.end - 1), p);
#pragma unroll
      for (int g = 0; g < 2; ++g) {
#pragma unroll
        for (int n = 0; n < kColumns; ++n) {
          const std::uint8_t* from = codes + 8 * n * kCodeStride + (2 * p + g) * 32;
          std::uint32_t b[2];
          if constexpr (kHalves) {
            b[0] = *reinterpret_cast<const std::uint32_t*>(from);
            b[1] = *reinterpret_cast<const std::uint32_t*>(from + 16);
          } else {
            const uint2 both = *reinterpret_cast<const uint2*>(from);
            b[0] = both.x;
            b[1] = both.y;
          }
          GroupInfo info[2];
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            info[j] = *reinterpret_cast<const GroupInfo*>(infos + (8 * n + j) * kInfoStride + (2 * p + g) * 16);
          }
          if constexpr (kHalves) {
            int d[4], e[4];
            mma16(d, a[0][g][0], a[1][g][0], b[0]);
            mma16(e, a[0][g][1], a[1][g][1], b[1]);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              acc[n][i] = __fmaf_rn(exact_sum(d[i]), s[i / 2][2 * g] * info[i % 2].scale, acc[n][i]);
              acc[n][i] = __fmaf_rn(exact_sum(e[i]), s[i / 2][2 * g + 1] * info[i % 2].scale, acc[n][i]);
            }
          } else {
            int d[4];
            const std::uint32_t operand[4] = {a[0][g][0], a[1][g][0], a[0][g][1], a[1][g][1]};
            mma32(d, operand, b);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              acc[n][i] = __fmaf_rn(exact_sum(d[i]), s[i / 2][g] * info[i % 2].scale, acc[n][i]);
              if constexpr (Format::kKind == ScaleKind::minimum) {
                acc[n][i] = __fmaf_rn(lo[i / 2][g], info[i % 2].scaled_sum, acc[n][i]);
              }
            }
          }
        }
      }
    }
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) total[n][i] = total[n][i] + acc[n][i];
    }
  }
  asm volatile("cp.async.wait_group 0;" ::: "memory");
  __syncthreads();
  float* sums = reinterpret_cast<float*>(memory);  // (kTokens, kTileRows) of this segment
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums[(8 * n + 2 * q + i % 2) * kTileRows + 16 * warp + 8 * (i / 2) + lane / 4] = total[n][i];
    }
  }
  cluster.sync();
  const float* all[kSegments];
#pragma unroll
  for (int i = 0; i < kSegments; ++i) all[i] = cluster.map_shared_rank(sums, i);
  for (int at = segment * kThreads + t; at < kTokens * kTileRows; at += kSegments * kThreads) {
    const int token = first_token + at / kTileRows, row = tile * kTileRows + at % kTileRows;
    if (token >= tokens || row >= w.rows) continue;
    store_product(part, token, row, (all[0][at] + all[1][at]) + (all[2][at] + all[3][at]));
  }
  cluster.sync();  // others still read this block's sums
}

template <typename Format, int kColumns>
void launch_tiles(const ProductParts& parts, int row_tiles, const QuantizedInput& x, int tokens, cudaStream_t stream) {
  const dim3 grid(kSegments, ceil_div(tokens, 8 * kColumns), static_cast<unsigned>(row_tiles));
  tile_kernel<Format, kColumns><<<grid, kThreads, 0, stream>>>(parts, x, tokens);
}

}  // namespace

void linear_tiles(const LinearPart* parts, int n_parts, const QuantizedInput& x, int tokens, cudaStream_t stream) {
  ProductParts launch{};
  launch.n_parts = n_parts;
  int tiles = 0;
  for (int i = 0; i < n_parts; ++i) {
    launch.part[i] = parts[i];
    tiles += static_cast<int>(ceil_div(parts[i].weight.rows, kTileRows));
    launch.tile_end[i] = tiles;
  }
  with_quantized_format(parts[0].weight.dtype, [&]<typename Format>() {
    if (tokens <= 8) {
      launch_tiles<Format, 1>(launch, tiles, x, tokens, stream);
    } else if (tokens <= 32) {
      launch_tiles<Format, 4>(launch, tiles, x, tokens, stream);
    } else {
      launch_tiles<Format, 8>(launch, tiles, x, tokens, stream);
    }
  });
  check_launch("linear_tiles");
}

}  // namespace kv::cuda
