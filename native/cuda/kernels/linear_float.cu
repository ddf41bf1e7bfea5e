// linear_float: products with float32 activations, for F32 weights and for oracle mode. The one definition of an output:
// lane l of 32 takes the chunks of 8 columns with chunk mod 32 = l. Its chunks are cut into four runs of as many (the last
// may have fewer); over a run it adds w * x ascending by fma from 0, and 0 + run 0 + run 1 + run 2 + run 3 is its sum. Then
// the warp's butterfly over the lanes, + bias, y + it. Who computes which runs never shows in the bits.
#include "cuda/kernels/dispatch.h"
#include "cuda/kernels/launch.h"
#include "cuda/kernels/linear_halves.cuh"

namespace kv::cuda {

namespace {

constexpr int kWarps = 8;
constexpr int kRuns = 4;
// Rounds of 32 chunks in a run.
__device__ inline int run_rounds(int chunks) { return ((chunks + 31) / 32 + kRuns - 1) / kRuns; }

template <bool kWhole>
__device__ inline void load_input(const float* x, int chunk, int cols, float* out) {
  if (kWhole || cols % 8 == 0) {
    const float4* p = reinterpret_cast<const float4*>(x + 8 * chunk);
    const float4 a = p[0], b = p[1];
    out[0] = a.x; out[1] = a.y; out[2] = a.z; out[3] = a.w;
    out[4] = b.x; out[5] = b.y; out[6] = b.z; out[7] = b.w;
  } else {
    for (int i = 0; i < 8; ++i) out[i] = 8 * chunk + i < cols ? x[8 * chunk + i] : 0.0f;
  }
}

template <typename Loader, int kRows, int kTokens, bool kWhole>
__global__ void __launch_bounds__(32 * kWarps)
    float_kernel(ProductParts parts, const float* x, std::int64_t ldx, int tokens) {
  wait_for_previous();
  int tile = blockIdx.x;
  const LinearPart& part = parts.part[find_part(parts, tile)];
  const DeviceMatrix& w = part.weight;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_row = (tile * kWarps + warp) * kRows;
  if (first_row >= w.rows) return;
  const int first_token = blockIdx.y * kTokens;
  const int chunks = (w.cols + 7) / 8;
  const int rounds = run_rounds(chunks);
  float total[kRows][kTokens] = {};
#pragma unroll 1
  for (int run = 0; run < kRuns; ++run) {
  float acc[kRows][kTokens] = {};
  const int stop = min(chunks, (run + 1) * rounds * 32);
#pragma unroll(kTokens == 1 ? 4 : 1)
  for (int chunk = run * rounds * 32 + lane; chunk < stop; chunk += 32) {
    float weights[kRows][8];
#pragma unroll
    for (int r = 0; r < kRows; ++r) Loader::template eight<kWhole>(w, min(first_row + r, w.rows - 1), chunk, weights[r]);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      float input[8];
      load_input<kWhole>(x + min(first_token + t, tokens - 1) * ldx, chunk, w.cols, input);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int i = 0; i < 8; ++i) acc[r][t] = __fmaf_rn(weights[r][i], input[i], acc[r][t]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) total[r][t] = total[r][t] + acc[r][t];
  }
  }
  let_next_begin();
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float sum = warp_sum(total[r][t]);
      if (lane == 0 && first_row + r < w.rows && first_token + t < tokens) {
        store_product(part, first_token + t, first_row + r, sum);
      }
    }
  }
}

template <typename Loader, int kRows, int kTokens>
void launch(const LinearPart* parts, int n_parts, const float* x, std::int64_t ldx, int tokens, cudaStream_t stream) {
  ProductParts launch{};
  const int tiles = place_parts(launch, parts, n_parts, kWarps * kRows);
  const dim3 grid(static_cast<unsigned>(tiles), ceil_div(tokens, kTokens));
  const auto kernel = parts[0].weight.cols % 8 == 0 ? float_kernel<Loader, kRows, kTokens, true>
                                                    : float_kernel<Loader, kRows, kTokens, false>;
  launch_after("linear_float", kernel, grid, 32 * kWarps, 0, stream, launch, x, ldx, tokens);
}

}  // namespace

void linear_float(const LinearPart* parts, int n_parts, const float* x, std::int64_t ldx, int tokens,
                  cudaStream_t stream) {
  const DeviceMatrix& w = parts[0].weight;
  with_float_loader(w.dtype, [&]<typename Loader>() {
    if (tokens == 1) {
      launch<Loader, 2, 1>(parts, n_parts, x, ldx, tokens, stream);
    } else {
      launch<Loader, 4, 8>(parts, n_parts, x, ldx, tokens, stream);
    }
  });
}

bool takes_halves(const DeviceMatrix& weight) {
  return weight.dtype != KV_F32;
}

// Parts that share a dtype, a width and the kind of input go together.
void linear(const LinearArgs& args, cudaStream_t stream) {
  int begin = 0;
  while (begin < args.n_parts) {
    const DeviceMatrix& w = args.parts[begin].weight;
    int end = begin + 1;
    while (end < args.n_parts && args.parts[end].weight.dtype == w.dtype && args.parts[end].weight.cols == w.cols) ++end;
    const LinearPart* parts = args.parts + begin;
    const int n = end - begin;
    if (args.halves.codes == nullptr || !takes_halves(w)) {
      linear_float(parts, n, args.x, args.ldx, args.tokens, stream);
    } else if (strips_take(args.tokens, w.pairs)) {
      linear_strips(parts, n, args.halves, args.tokens, stream);
    } else {
      linear_tiles(parts, n, args.halves, args.tokens, stream);
    }
    begin = end;
  }
}

}  // namespace kv::cuda
