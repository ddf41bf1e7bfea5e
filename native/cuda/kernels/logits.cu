// logits: scaling and soft-capping, the identity hash of a row, and what admission writes into a sampler's slot.
#include "cuda/kernels/arithmetic.cuh"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"

namespace kv::cuda {

namespace {

__global__ void scale_kernel(float* logits, std::int64_t n, float scale, float softcap) {
  follow_previous();
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float x = logits[i] * scale;
  if (softcap > 0) x = soft_cap(x, softcap);
  logits[i] = x;
}

__device__ inline std::uint64_t rotate(std::uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

// native/host/logits_hash.h: four lanes of one multiply chain each, here four threads; the others fetch for them.
__global__ void __launch_bounds__(256) hash_kernel(SampleArgs args) {
  constexpr std::uint64_t kFirst = 0x9E3779B97F4A7C15ull, kSecond = 0xC2B2AE3D27D4EB4Full;
  constexpr int kWords = 2048;
  __shared__ std::uint64_t words[kWords];
  __shared__ std::uint64_t lanes[4];
  const WantedRow row = args.rows[blockIdx.x];
  if (row.hash == 0) return;
  const std::int64_t n = args.vocabulary;
  const float* logits = args.logits + blockIdx.x * n;
  const int lane = threadIdx.x;
  std::uint64_t state = lane == 0 ? kFirst : lane == 1 ? kSecond : lane == 2 ? kFirst ^ kSecond
                                                                             : static_cast<std::uint64_t>(n);
  const std::int64_t total = (n + 7) / 8 * 4;  // 8-byte words, padded to whole rounds of four with zeros
  for (std::int64_t begin = 0; begin < total; begin += kWords) {
    const int count = static_cast<int>(total - begin < kWords ? total - begin : kWords);
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += 256) {
      const std::int64_t at = 2 * (begin + i);
      const std::uint64_t low = at < n ? __float_as_uint(logits[at]) : 0u;
      const std::uint64_t high = at + 1 < n ? __float_as_uint(logits[at + 1]) : 0u;
      words[i] = low | high << 32;
    }
    __syncthreads();
    if (lane < 4) {
      for (int i = lane; i < count; i += 4) state = rotate((state ^ words[i]) * kSecond, 31) * kFirst;
    }
  }
  if (lane < 4) lanes[lane] = state;
  __syncthreads();
  if (lane != 0) return;
  std::uint64_t hash = static_cast<std::uint64_t>(n) * sizeof(float);
  for (int i = 0; i < 4; ++i) hash = rotate(hash ^ lanes[i], 27) * kFirst + kSecond;
  hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9ull;
  hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EBull;
  hash ^= hash >> 31;
  args.hashes[row.sequence] = hash == 0 ? 1 : hash;
}

__global__ void count_kernel(std::uint32_t* counts, const std::int32_t* entries, std::int32_t n) {
  const std::int32_t i = static_cast<std::int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) counts[entries[2 * i]] = static_cast<std::uint32_t>(entries[2 * i + 1]);
}

// One thread: an id may come twice, and float sums are ordered.
__global__ void bias_kernel(float* biases, const std::int32_t* entries, std::int32_t n) {
  for (std::int32_t i = 0; i < n; ++i) {
    biases[entries[2 * i]] = biases[entries[2 * i]] + __int_as_float(entries[2 * i + 1]);
  }
}

__global__ void clear_kernel(std::uint32_t* words, std::int32_t n_ones, std::int32_t n) {
  follow_previous();
  const std::int32_t i = static_cast<std::int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) words[i] = i < n_ones ? 0xffffffffu : 0u;
}

}  // namespace

void clear_output(std::uint8_t* output, std::int64_t one_bytes, std::int64_t bytes, cudaStream_t stream) {
  const auto ones = static_cast<std::int32_t>(one_bytes / 4), n = static_cast<std::int32_t>(bytes / 4);
  launch_after("clear output", clear_kernel, ceil_div(n, 256), 256, 0, stream, reinterpret_cast<std::uint32_t*>(output),
               ones, n);
}

void scale_logits(float* logits, std::int64_t n, float scale, float softcap, cudaStream_t stream) {
  launch_after("scale logits", scale_kernel, ceil_div(n, 256), 256, 0, stream, logits, n, scale, softcap);
}

void hash_rows(const SampleArgs& args, cudaStream_t stream) {
  hash_kernel<<<static_cast<unsigned>(args.n_rows), 256, 0, stream>>>(args);
  check_launch("hash logits");
}

void clear_slot(std::uint32_t* counts, float* biases, std::int32_t vocabulary, cudaStream_t stream) {
  const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(vocabulary);
  check_cuda(cudaMemsetAsync(counts, 0, bytes, stream), "clear a sampler slot");
  check_cuda(cudaMemsetAsync(biases, 0, bytes, stream), "clear a sampler slot");
}

void set_counts(std::uint32_t* counts, const std::int32_t* entries, std::int32_t n, cudaStream_t stream) {
  if (n == 0) return;
  count_kernel<<<ceil_div(n, 256), 256, 0, stream>>>(counts, entries, n);
  check_launch("set counts");
}

void add_biases(float* biases, const std::int32_t* entries, std::int32_t n, cudaStream_t stream) {
  if (n == 0) return;
  bias_kernel<<<1, 1, 0, stream>>>(biases, entries, n);
  check_launch("add biases");
}

}  // namespace kv::cuda
