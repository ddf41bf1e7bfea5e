// attention_tensor: prefill attention of the fast mode on the matrix units. A block of threads walks an item's context in
// ascending tiles of 64 tokens with a running maximum; four warps take 32 query rows each. Q and the softmax's weights are
// rounded to the pool's 16-bit type, sums are float32. Its own definition: not the bits of the strict kernels.
//
// Shared memory: Q (128, D), and two stages of K and V (64, D) on their way while the tile before is worked on. Rows are
// swizzled in 16-byte chunks (chunk ^ row mod 8), so that ldmatrix meets no bank twice.
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/half.cuh"
#include "cuda/kernels/matrix_units.cuh"

namespace kv::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kTile = 64;   // tokens of the context
constexpr int kWarpRows = 32;
constexpr float kLog2e = 1.4426950408889634f;
static_assert(kBlockTokens % kTile == 0 && kTensorRows == kThreads / 32 * kWarpRows);

// Byte offset of 16-byte chunk `chunk` of a row.
template <int D>
__device__ inline std::uint32_t chunk_at(int row, int chunk) {
  return static_cast<std::uint32_t>(row * D * 2 + ((chunk ^ (row & 7)) * 16));
}

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// K and V of tile `tile` into a stage. end: tokens behind it were not written.
template <int D>
__device__ inline void fetch_tile(const AttentionArgs& args, const AttentionItem& item, int tile, int end,
                                  std::uint32_t keys, std::uint32_t values) {
  constexpr int kChunks = D / 8;
  const std::uint8_t* first = find_record(args, item, block_of(args, item, tile * kTile), tile * kTile, 2 * D);
#pragma unroll
  for (int i = 0; i < kTile * kChunks / kThreads; ++i) {
    const int n = i * kThreads + threadIdx.x, row = n / kChunks, chunk = n % kChunks;
    const bool valid = tile * kTile + row < end;
    const std::uint8_t* from = first + row * 2 * D + chunk * 16;
    copy_async(keys + chunk_at<D>(row, chunk), from, valid);
    copy_async(values + chunk_at<D>(row, chunk), from + args.value_offset, valid);
  }
  commit_copies();
}

template <int kDtype, int D, bool kCapped>
__global__ void __launch_bounds__(kThreads, 2) tensor_kernel(AttentionArgs args) {
  constexpr bool kBf16 = kDtype == KV_BF16;
  constexpr int kKeySteps = D / 16, kTileBytes = kTile * D * 2;
  extern __shared__ __align__(128) std::uint8_t memory[];
  __shared__ int begins[kTensorRows], ends[kTensorRows];
  follow_previous();
  const AttentionItem item = args.items[blockIdx.x];
  const std::uint32_t q_at = shared_address(memory), stages = q_at + kTensorRows * D * 2;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

  const auto [begin, end] = visible(args, item);
  const int first_tile = begin / kTile, n_tiles = (end + kTile - 1) / kTile;
  fetch_tile<D>(args, item, first_tile, end, stages, stages + kTileBytes);

  for (int n = threadIdx.x; n < kTensorRows * D / 8; n += kThreads) {
    const int r = n / (D / 8), chunk = n % (D / 8);
    uint4 packed = {0, 0, 0, 0};
    if (r < item.n_rows) {
      const float4* from = reinterpret_cast<const float4*>(args.q + output_row(args, item, r) * D + chunk * 8);
      const float4 a = from[0], b = from[1];
      const float values[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
      packed = pack_eight<kBf16>(values);
    }
    *reinterpret_cast<uint4*>(memory + chunk_at<D>(r, chunk)) = packed;
  }
  for (int r = threadIdx.x; r < kTensorRows; r += kThreads) {
    const int row = min(r, item.n_rows - 1);
    const RowRange range = visible_row(args, item, row);
    begins[r] = range.begin;
    ends[r] = range.end;
  }
  __syncthreads();

  // A thread's four rows: m tile 0 and 1, each lane/4 and 8 below.
  float o[2][D / 8][4] = {}, most[2][2], sums[2][2] = {};
#pragma unroll
  for (int m = 0; m < 2; ++m) most[m][0] = most[m][1] = kLowest;
  // Tiles every row sees in whole need no mask.
  const int common_begin = begins[kTensorRows - 1], common_end = ends[0];
  const float to_log2 = (kCapped ? 1.0f : args.scale) * kLog2e;

  for (int tile = first_tile; tile < n_tiles; ++tile) {
    const std::uint32_t stage = stages + ((tile - first_tile) % 2) * 2 * kTileBytes;
    if (tile + 1 < n_tiles) {
      const std::uint32_t next = stages + ((tile + 1 - first_tile) % 2) * 2 * kTileBytes;
      fetch_tile<D>(args, item, tile + 1, end, next, next + kTileBytes);
      wait_for_copies<1>();
    } else {
      wait_for_copies<0>();
    }
    __syncthreads();

    float s[2][kTile / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kKeySteps; ++k) {
      std::uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const int row = warp * kWarpRows + 16 * m + lane % 16;
        load_matrices(a[m], q_at + chunk_at<D>(row, 2 * k + lane / 16));
      }
#pragma unroll
      for (int n = 0; n < kTile / 16; ++n) {
        std::uint32_t b[4];
        load_matrices(b, stage + chunk_at<D>(16 * n + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          multiply_add<kBf16>(s[m][2 * n], a[m], b[0], b[1]);
          multiply_add<kBf16>(s[m][2 * n + 1], a[m], b[2], b[3]);
        }
      }
    }

    const int tile_begin = tile * kTile;
    const bool masked = tile_begin < common_begin || tile_begin + kTile > common_end;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float highest = kLowest;
        const int r = warp * kWarpRows + 16 * m + 8 * h + lane / 4;
        const int row_begin = begins[r], row_end = ends[r];
#pragma unroll
        for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            float& x = s[m][n][2 * h + j];
            if constexpr (kCapped) x = soft_cap(x * args.scale, args.softcap);
            if (masked) {
              const int token = tile_begin + 8 * n + lane % 4 * 2 + j;
              if (token < row_begin || token >= row_end) x = kLowest;
            }
            highest = fmaxf(highest, x);
          }
        }
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
        const float now = fmaxf(most[m][h], highest);
        // A row that has seen nothing yet keeps zeros, without infinity minus infinity.
        const float base = now == kLowest ? 0.0f : now * to_log2;
        const float keep = exp2_fast(__fmaf_rn(most[m][h], to_log2, -base));
        const bool moved = now != most[m][h];
        most[m][h] = now;
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            float& x = s[m][n][2 * h + j];
            x = exp2_fast(__fmaf_rn(x, to_log2, -base));
            sum += x;
          }
        }
        sums[m][h] = __fmaf_rn(sums[m][h], keep, sum);
        if (__any_sync(0xffffffffu, moved)) {
#pragma unroll
          for (int n = 0; n < D / 8; ++n) {
            o[m][n][2 * h] *= keep;
            o[m][n][2 * h + 1] *= keep;
          }
        }
      }
    }

#pragma unroll
    for (int k = 0; k < kTile / 16; ++k) {
      std::uint32_t p[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        p[m][0] = pack_rounded<kBf16>(s[m][2 * k][0], s[m][2 * k][1]);
        p[m][1] = pack_rounded<kBf16>(s[m][2 * k][2], s[m][2 * k][3]);
        p[m][2] = pack_rounded<kBf16>(s[m][2 * k + 1][0], s[m][2 * k + 1][1]);
        p[m][3] = pack_rounded<kBf16>(s[m][2 * k + 1][2], s[m][2 * k + 1][3]);
      }
#pragma unroll
      for (int n = 0; n < D / 16; ++n) {
        std::uint32_t b[4];
        load_transposed(b, stage + kTileBytes + chunk_at<D>(16 * k + lane % 16, 2 * n + lane / 16));
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          multiply_add<kBf16>(o[m][2 * n], p[m], b[0], b[1]);
          multiply_add<kBf16>(o[m][2 * n + 1], p[m], b[2], b[3]);
        }
      }
    }
    __syncthreads();
  }

#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = sums[m][h];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const int r = warp * kWarpRows + 16 * m + 8 * h + lane / 4;
      if (r >= item.n_rows) continue;
      float keep = 1.0f;
      if (args.sinks != nullptr) {
        const float sink = args.sinks[query_head(args, item, r)] * kLog2e;
        const float held = most[m][h] * to_log2, now = fmaxf(held, sink);
        keep = exp2_fast(held - now);
        sum = __fmaf_rn(sum, keep, exp2_fast(sink - now));
      }
      const float inverse = keep / sum;
      float* out = args.out + output_row(args, item, r) * D + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        *reinterpret_cast<float2*>(out + 8 * n) = {o[m][n][2 * h] * inverse, o[m][n][2 * h + 1] * inverse};
      }
    }
  }
}

template <int kDtype, int D, bool kCapped>
void launch(const AttentionArgs& args, cudaStream_t stream) {
  const std::size_t bytes = (kTensorRows + 4 * kTile) * D * 2;
  allow_shared(tensor_kernel<kDtype, D, kCapped>, bytes + 2 * kTensorRows * sizeof(int), "attention");
  launch_after("tensor attention", tensor_kernel<kDtype, D, kCapped>, static_cast<unsigned>(args.n_items), kThreads, bytes,
               stream, args);
}

template <int kDtype, int D>
void launch_shape(const AttentionArgs& args, cudaStream_t stream) {
  args.softcap > 0 ? launch<kDtype, D, true>(args, stream) : launch<kDtype, D, false>(args, stream);
}

}  // namespace

bool tensor_attention_applies(std::int32_t head_dim, std::int32_t dtype) {
  return (head_dim == 64 || head_dim == 128) && (dtype == KV_F16 || dtype == KV_BF16);
}

void tensor_attention(const AttentionArgs& args, cudaStream_t stream) {
  if (args.dtype == KV_BF16) {
    return args.head_dim == 64 ? launch_shape<KV_BF16, 64>(args, stream) : launch_shape<KV_BF16, 128>(args, stream);
  }
  args.head_dim == 64 ? launch_shape<KV_F16, 64>(args, stream) : launch_shape<KV_F16, 128>(args, stream);
}

}  // namespace kv::cuda
