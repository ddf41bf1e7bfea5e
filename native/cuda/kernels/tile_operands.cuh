// What linear_tiles keeps in shared memory of a block of 256 columns, and how a warp reads operands of the integer tensor
// cores from there: codes by ldmatrix, whose rows of 16 bytes lie an odd multiple of 16 bytes apart so that eight of them
// touch every bank once; scales as they are stored, decoded where they are used.
#pragma once

#include "cuda/kernels/linear_quantized.cuh"

namespace kv::cuda {

inline constexpr int kBlockPairs = 4;  // pairs of a block of 256 columns
inline constexpr int kChunksOfBlock = kBlockPairs / kChunkPairs;

template <int kBytes>
__device__ inline void copy_async(std::uint8_t* to, const void* from) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(at), "l"(from), "n"(kBytes) : "memory");
  }
}

__device__ inline void load_matrices(std::uint32_t* to, const std::uint8_t* row) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(at));
}

// d = a (16 x 32, s8) * b (32 x 8, s8) + kMagicBits.
__device__ inline void mma32(int* d, const std::uint32_t* a, const std::uint32_t* b) {
  asm(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(kMagicBits));
}
// d = a (16 x 16, s8) * b (16 x 8, s8) + kMagicBits.
__device__ inline void mma16(int* d, const std::uint32_t* a, std::uint32_t b) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b), "r"(kMagicBits));
}

// A stage: one block of columns of kRows weight rows and kTokens tokens. Offsets in bytes. Piece i of row r of the codes and
// of the input lies at piece i ^ (r % 8), so that `offset ^ (bytes of columns)` moves along a row.
template <typename Format, int kRows, int kTokens>
struct StageLayout {
  static constexpr int kCodeBytes = Format::kNibbles ? 128 : 256;
  static constexpr int kHighBytes = kBlockPairs * Format::kHigh;
  static constexpr int kHighStride = kHighBytes == 0 ? 0 : kHighBytes + 16;
  static constexpr bool kExtra = Format::kKind == ScaleKind::halves;
  static constexpr int kInputBytes = 256;
  static constexpr int kInputAt = kRows * kCodeBytes;
  static constexpr int kInfosAt = kInputAt + kTokens * kInputBytes;  // (8 groups, kTokens): scale, scaled sum
  static constexpr int kScalesAt = kInfosAt + 8 * kTokens * 8;
  static constexpr int kHighAt = kScalesAt + kRows * Format::kScaleBytes;
  static constexpr int kExtraAt = kHighAt + kRows * kHighStride;
  static constexpr int kBytes = (kExtraAt + (kExtra ? kRows * 4 : 0) + 255) / 256 * 256;
};
__device__ inline int swizzled(int row, int piece) { return (piece ^ (row % 8)) * 16; }

// kByteBits in a register of the lane: as a constant it would be loaded again for every use.
__device__ inline std::uint32_t kept_byte_bits() {
  std::uint32_t zero;
  asm volatile("{ .reg .u32 lane; mov.u32 lane, %%laneid; shr.u32 %0, lane, 5; }" : "=r"(zero));
  return kByteBits + zero;
}

// Scales of one row for one chunk: s of group j (halves: of its two halves), m where there is one.
template <typename Format>
struct ChunkScales {
  std::uint32_t words[4];
  float d, d_offset, dmin, dmin_offset;

  // scales: the row's bytes of the block; chunk 0 or 1 of it; block parity chooses the half of an extra word.
  __device__ void load(const std::uint8_t* scales, const std::uint8_t* extra, int chunk, int block) {
    if constexpr (Format::kScaleBytes == 32) {
      store4(*reinterpret_cast<const uint4*>(scales + 16 * chunk), words);
    } else if constexpr (Format::kScaleBytes == 8) {
      words[0] = *reinterpret_cast<const std::uint32_t*>(scales + 4 * chunk);
    } else if constexpr (Format::kKind == ScaleKind::minimum) {  // Q4_K, Q5_K
      std::uint32_t raw[4];
      store4(*reinterpret_cast<const uint4*>(scales), raw);
      d = half_bits_to_float(static_cast<std::uint16_t>(raw[0]));
      dmin = -half_bits_to_float(static_cast<std::uint16_t>(raw[0] >> 16));
      d_offset = d * -8388608.0f;
      dmin_offset = dmin * -8388608.0f;
      words[0] = chunk == 0 ? raw[1] & 0x3f3f3f3fu : (raw[3] & 0x0f0f0f0fu) | ((raw[1] >> 2) & 0x30303030u);
      words[1] = chunk == 0 ? raw[2] & 0x3f3f3f3fu : ((raw[3] >> 4) & 0x0f0f0f0fu) | ((raw[2] >> 2) & 0x30303030u);
    } else {
      const uint2 both = *reinterpret_cast<const uint2*>(scales + 8 * chunk);
      words[0] = both.x;
      words[1] = both.y;
      if constexpr (Format::kKind == ScaleKind::halves) {
        const std::uint32_t pair = *reinterpret_cast<const std::uint32_t*>(extra);
        d = half_bits_to_float(static_cast<std::uint16_t>(block % 2 == 0 ? pair : pair >> 16));
        words[0] ^= 0x80808080u;
        words[1] ^= 0x80808080u;
      }
    }
  }
  __device__ void group(int j, std::uint32_t byte_bits, float* s, float& m) const {
    if constexpr (Format::kScaleBytes == 32) {
      s[0] = half_bits_to_float(static_cast<std::uint16_t>(words[j]));
      m = half_bits_to_float(static_cast<std::uint16_t>(words[j] >> 16));
    } else if constexpr (Format::kScaleBytes == 8) {
      s[0] = e8m0_half((words[0] >> (8 * j)) & 255);
    } else if constexpr (Format::kKind == ScaleKind::minimum) {
      s[0] = times_byte(d, d_offset, words[0], byte_bits, j);
      m = times_byte(dmin, dmin_offset, words[1], byte_bits, j);
    } else if constexpr (Format::kKind == ScaleKind::halves) {
      s[0] = times_signed_byte(d, words[j / 2], byte_bits, 2 * j % 4);
      s[1] = times_signed_byte(d, words[j / 2], byte_bits, 2 * j % 4 + 1);
    } else {
      s[0] = half_bits_to_float(static_cast<std::uint16_t>(words[j / 2] >> (16 * (j % 2))));
    }
  }
};

// Codes of 16 rows for a pair. Word i of a group: rows lane/4 + 8 * (i % 2), columns 4q + 16 * (i / 2) .. of the group.
template <typename Format>
struct WarpPair {
  std::uint32_t codes[Format::kNibbles ? 4 : 8], high[2];

  // row: the lane's first piece of 16 rows of codes (row lane % 16, piece lane / 16); pair of the block.
  __device__ void load(const std::uint8_t* stage, std::uint32_t row, const std::uint8_t* high_rows, int high_stride, int pair,
                       int lane) {
    if constexpr (Format::kNibbles) {
      load_matrices(codes, stage + (row ^ (pair * 32)));
    } else {
      load_matrices(codes, stage + (row ^ (pair * 64)));
      load_matrices(codes + 4, stage + (row ^ (pair * 64 + 32)));
    }
    if constexpr (Format::kHigh != 0) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int word = Format::kHigh == 8 ? lane % 2 : lane % 4;
        high[h] = *reinterpret_cast<const std::uint32_t*>(high_rows + (lane / 4 + 8 * h) * high_stride +
                                                          pair * Format::kHigh + 4 * word);
      }
    }
  }
  // Code - zero point in each byte; codes are below 128.
  __device__ static std::uint32_t centred(std::uint32_t codes) {
    if constexpr (Format::kZero == 0) return codes;
    return ((codes | 0x80808080u) - 0x01010101u * Format::kZero) ^ 0x80808080u;
  }
  __device__ void unpack(int group, int lane, std::uint32_t* words) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (!Format::kNibbles) {
        words[i] = codes[4 * group + i];
      } else {
        std::uint32_t word = (codes[i] >> (4 * group)) & 0x0f0f0f0fu;
        if constexpr (Format::kMxfp4) word = shifted_mxfp4(word);
        if constexpr (Format::kHigh == 8) {
          word |= ((high[i % 2] >> (4 * group + 2 * (i / 2) + lane % 4 / 2)) & 0x01010101u) << 4;
        }
        if constexpr (Format::kHigh == 16) word |= ((high[i % 2] >> (4 * group + 2 * (i / 2))) & 0x03030303u) << 4;
        words[i] = centred(word);
      }
    }
  }
};

}  // namespace kv::cuda
