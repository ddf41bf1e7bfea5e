// sampling: rows of logits to tokens, as each row's slot asks, and log-probabilities.
//
// Order: mask, bias, repetition, frequency and presence penalties, temperature, top-k, top-p, min-p, draw, as in the CPU
// backend. Sums over the vocabulary that decide a cut are of weights in fixed point (2^-40), so that their order does not
// matter: a cut is found by descending through the bits of an ordered key instead of sorting.
#include <climits>

#include "cuda/kernels/arithmetic.cuh"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"

namespace kv::cuda {

namespace {

using U64 = unsigned long long;

constexpr int kThreads = 1024;
constexpr float kLowest = -INFINITY;

__host__ __device__ inline int chunks_of(int vocabulary) { return (vocabulary + kLogitChunk - 1) / kLogitChunk; }

// ------------------------------------------------------------------------------------------- modified logits, maxima

__device__ inline bool is_modified(const SampleArgs& args, const WantedRow& row) {
  if (row.slot < 0) return false;
  return row.mask >= 0 || args.slots[row.slot].has_bias != 0 || args.slots[row.slot].has_penalty != 0;
}

__device__ float modified_logit(const SampleArgs& args, const WantedRow& row, const SlotParams& slot, int id, float x) {
  const std::int64_t V = args.vocabulary;
  if (row.mask >= 0 && (args.masks[row.mask * ((V + 31) / 32) + id / 32] >> (id % 32) & 1u) == 0) x = kLowest;
  if (slot.has_bias != 0 && x != kLowest) {
    const float bias = args.biases[row.slot * V + id];
    if (bias != 0.0f) x = x + bias;
  }
  if (slot.has_penalty != 0) {
    const std::uint32_t count = args.counts[row.slot * V + id];
    if (count != 0) {
      x = x > 0 ? x / slot.repetition : x * slot.repetition;
      const std::uint32_t outputs = count & 0x7fffffffu;
      if (outputs != 0) {
        x = x - slot.frequency * static_cast<float>(outputs);
        x = x - slot.presence;
      }
    }
  }
  return x;
}

// A warp a chunk.
__global__ void __launch_bounds__(256) prepare_kernel(SampleArgs args) {
  follow_previous();
  const WantedRow row = args.rows[blockIdx.y];
  if (row.slot < 0 && row.target < 0) return;
  const int chunks = chunks_of(args.vocabulary);
  const int chunk = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (chunk >= chunks) return;
  const std::int64_t V = args.vocabulary;
  const float* logits = args.logits + blockIdx.y * V;
  const bool modify = is_modified(args, row);
  float most = kLowest;
  for (int i = lane; i < kLogitChunk; i += 32) {
    const int id = chunk * kLogitChunk + i;
    if (id >= V) break;
    float x = logits[id];
    if (modify) {
      x = modified_logit(args, row, args.slots[row.slot], id, x);
      args.modified[blockIdx.y * V + id] = x;
    }
    most = x > most ? x : most;  // NaN counts as the lowest
  }
  most = warp_max(most);
  if (lane == 0) args.maxima[std::int64_t{blockIdx.y} * chunks + chunk] = most;
}

// ------------------------------------------------------------------------------------------- one block a row

__device__ float block_max(const float* values, int n, float* shared) {
  float most = kLowest;
  for (int i = threadIdx.x; i < n; i += kThreads) most = values[i] > most ? values[i] : most;
  most = warp_max(most);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = most;
  __syncthreads();
  return warp_max(shared[threadIdx.x % 32]);
}

__device__ U64 block_min_key(U64 value, U64* shared) {
  for (int mask = 16; mask > 0; mask /= 2) value = min(value, __shfl_xor_sync(0xffffffffu, value, mask));
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  value = shared[threadIdx.x % 32];
  for (int mask = 16; mask > 0; mask /= 2) value = min(value, __shfl_xor_sync(0xffffffffu, value, mask));
  return value;
}

// Sum of e^((x - maximum) * scale) of each chunk, the CPU backend's order: 16 lanes ascending, then the tree. A half warp
// a chunk.
__device__ void chunk_sums(const float* logits, int V, float maximum, float scale, float* sums) {
  const int lane = threadIdx.x % 16, chunks = chunks_of(V);
  // Both halves of a warp take part in the shuffles to the end.
  for (int first = threadIdx.x / 32 * 2; first < chunks; first += kThreads / 16) {
    const int chunk = first + threadIdx.x / 16 % 2;
    float sum = 0.0f;
    if (chunk < chunks) {
      const int begin = chunk * kLogitChunk, end = min(V, begin + kLogitChunk);
      for (int i = begin + lane; i - lane < end; i += 16) {
        const float x = i < end ? logits[i] : kLowest;
        sum = sum + exponential((x - maximum) * scale);
      }
    }
    for (int half = 8; half > 0; half /= 2) sum = sum + __shfl_xor_sync(0xffffffffu, sum, half);
    if (lane == 0 && chunk < chunks) sums[chunk] = sum;
  }
  __syncthreads();
}

// Lowest id with the highest logit. With nothing above -infinity: the first the mask allows.
__device__ int first_best(const SampleArgs& args, const WantedRow& row, const float* logits, float most, U64* shared) {
  const int V = args.vocabulary;
  U64 best = ULLONG_MAX;
  if (most == kLowest) {
    if (row.mask < 0) return 0;
    const std::uint32_t* mask = args.masks + std::int64_t{row.mask} * ((V + 31) / 32);
    for (int id = threadIdx.x; id < V; id += kThreads) {
      if ((mask[id / 32] >> (id % 32) & 1u) != 0) {
        best = id;
        break;
      }
    }
  } else {
    const float* maxima = args.maxima + std::int64_t{blockIdx.x} * chunks_of(V);
    for (int chunk = threadIdx.x; chunk < chunks_of(V); chunk += kThreads) {
      if (maxima[chunk] == most) {
        best = chunk;
        break;
      }
    }
    const int begin = static_cast<int>(block_min_key(best, shared)) * kLogitChunk;
    const int id = begin + threadIdx.x;
    best = threadIdx.x < kLogitChunk && id < V && logits[id] == most ? static_cast<U64>(id) : ULLONG_MAX;
  }
  best = block_min_key(best, shared);
  return best == ULLONG_MAX ? 0 : static_cast<int>(best);
}

// Philox4x32-10; see native/host/random_stream.h.
__device__ double uniform(std::uint64_t seed, std::uint32_t index) {
  std::uint32_t counter[4] = {index, 0, 0, 0};
  std::uint32_t key[2] = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t first = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t second = std::uint64_t{0xCD9E8D57} * counter[2];
    const std::uint32_t next[4] = {static_cast<std::uint32_t>(second >> 32) ^ counter[1] ^ key[0],
                                   static_cast<std::uint32_t>(second),
                                   static_cast<std::uint32_t>(first >> 32) ^ counter[3] ^ key[1],
                                   static_cast<std::uint32_t>(first)};
    for (int i = 0; i < 4; ++i) counter[i] = next[i];
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  const std::uint64_t bits = (std::uint64_t{counter[0]} << 32 | counter[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

__device__ inline double weight_of(float logit, float maximum, float inverse_temperature) {
  return exp((static_cast<double>(logit) - maximum) * inverse_temperature);
}

// One draw from all of the vocabulary by cumulative probability in order of ids.
__device__ int draw_from_all(const SampleArgs& args, const float* logits, float maximum, float inverse_temperature,
                             double u, float* sums, double* shared) {
  const int V = args.vocabulary, chunks = chunks_of(V);
  __shared__ int chosen_chunk;
  __shared__ double share;
  chunk_sums(logits, V, maximum, inverse_temperature, sums);
  if (threadIdx.x == 0) {
    double total = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) total += sums[chunk];
    double target = u * total;
    int chosen = isfinite(total) ? 0 : -1;
    for (int chunk = 0; chosen >= 0 && chunk < chunks; ++chunk) {
      const double sum = sums[chunk];
      if (sum > 0) chosen = chunk;
      if (target < sum) break;
      if (chunk + 1 < chunks) target -= sum;
    }
    chosen_chunk = chosen;
    if (chosen >= 0) share = fmin(target / static_cast<double>(sums[chosen]), 1.0);
  }
  __syncthreads();
  if (chosen_chunk < 0) return -1;
  const int begin = chosen_chunk * kLogitChunk, count = min(V, begin + kLogitChunk) - begin;
  if (threadIdx.x < count) shared[threadIdx.x] = weight_of(logits[begin + threadIdx.x], maximum, inverse_temperature);
  __syncthreads();
  __shared__ int id;
  if (threadIdx.x == 0) {
    double exact = 0;
    for (int i = 0; i < count; ++i) exact += shared[i];
    double left = share * exact;
    int last = 0;
    for (int i = 0; i < count; ++i) {
      if (!(shared[i] > 0)) continue;
      last = i;
      if (left < shared[i]) break;
      left -= shared[i];
    }
    id = begin + last;
  }
  __syncthreads();
  return id;
}

// Orders by logit descending, then id ascending, when compared descending. NaN counts as the lowest logit.
__device__ inline U64 logit_key(float logit, int id) {
  const float value = isnan(logit) ? kLowest : logit + 0.0f;
  const unsigned bits = __float_as_uint(value);
  const unsigned ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<U64>(ordered) << 32 | (0xFFFFFFFFu - static_cast<unsigned>(id));
}
__device__ inline int id_of(U64 key) { return static_cast<int>(0xFFFFFFFFu - static_cast<unsigned>(key)); }

// What candidates count for.
struct Candidates {
  const float* logits;
  int vocabulary;
  float maximum, inverse_temperature;
  double min_p;
  U64 lowest;       // keys below are out
  U64 highest;      // the best key: in whatever its weight is
  bool by_weight;   // false: each counts 1

  __device__ U64 amount(U64 key, float logit) const {
    if (key < lowest) return 0;
    if (!by_weight) return 1;
    const double weight = weight_of(logit, maximum, inverse_temperature);
    if (key != highest && (weight < min_p || weight <= 0)) return 0;
    return static_cast<U64>(__double2ull_rn(weight * 0x1p40));
  }
};

struct Descent {
  U64 histogram[256];
  U64 prefix, before, total;
};

// Sum over all candidates.
__device__ U64 total_amount(const Candidates& c, Descent& d) {
  __syncthreads();
  if (threadIdx.x == 0) d.total = 0;
  __syncthreads();
  U64 sum = 0;
  for (int id = threadIdx.x; id < c.vocabulary; id += kThreads) sum += c.amount(logit_key(c.logits[id], id), c.logits[id]);
  for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
  if (threadIdx.x % 32 == 0) atomicAdd(&d.total, sum);
  __syncthreads();
  return d.total;
}

// The key at which the amounts of candidates, summed from the highest key down, first exceed `target`; the last candidate
// where they never do.
__device__ U64 find_key(const Candidates& c, U64 target, Descent& d) {
  __syncthreads();
  if (threadIdx.x == 0) {
    d.prefix = 0;
    d.before = 0;
  }
  for (int level = 0; level < 8; ++level) {
    const int shift = 56 - 8 * level;
    for (int i = threadIdx.x; i < 256; i += kThreads) d.histogram[i] = 0;
    __syncthreads();
    const U64 prefix = d.prefix;
    for (int id = threadIdx.x; id < c.vocabulary; id += kThreads) {
      const float logit = c.logits[id];
      const U64 key = logit_key(logit, id);
      if (level > 0 && (key >> (shift + 8)) != (prefix >> (shift + 8))) continue;
      const U64 amount = c.amount(key, logit);
      if (amount != 0) atomicAdd(&d.histogram[key >> shift & 255], amount);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      U64 before = d.before;
      int bucket = -1;
      for (int i = 255; i >= 0; --i) {
        if (d.histogram[i] == 0) continue;
        bucket = i;
        if (before + d.histogram[i] > target) break;
        // The last bucket that holds anything is taken when the target lies beyond all.
        bool more = false;
        for (int j = i - 1; j >= 0 && !more; --j) more = d.histogram[j] != 0;
        if (!more) break;
        before += d.histogram[i];
      }
      d.before = before;
      d.prefix = prefix | static_cast<U64>(bucket < 0 ? 0 : bucket) << shift;
    }
    __syncthreads();
  }
  return d.prefix;
}

// Draws among the likeliest candidates that top-k, top-p and min-p leave: a prefix of the tokens in order of logit.
__device__ int draw_from_top(const SampleArgs& args, const SlotParams& slot, const float* logits, float maximum, int best,
                             float inverse_temperature, double u, Descent& d) {
  const int V = args.vocabulary;
  Candidates c{logits, V, maximum, inverse_temperature, 0.0, 0, logit_key(logits[best], best), false};
  if (slot.top_k != 0 && slot.top_k < static_cast<unsigned>(V)) c.lowest = find_key(c, slot.top_k - 1, d);
  c.by_weight = true;
  if (slot.top_p < 1.0f) {
    // Top-p is a share of what top-k leaves.
    const double mass = static_cast<double>(total_amount(c, d)) * static_cast<double>(slot.top_p);
    // Kept: up to the first candidate that brings the sum to the share or above.
    const U64 share = static_cast<U64>(ceil(mass));
    c.lowest = max(c.lowest, find_key(c, share == 0 ? 0 : share - 1, d));
  }
  c.min_p = slot.min_p;
  const U64 kept = total_amount(c, d);
  U64 target = static_cast<U64>(u * static_cast<double>(kept));
  if (kept != 0 && target >= kept) target = kept - 1;
  return id_of(find_key(c, target, d));
}

// ------------------------------------------------------------------------------------------- log-probabilities

struct Distribution {
  double maximum, log_sum;
  __device__ float logprob(float logit) const {
    return static_cast<float>(static_cast<double>(logit) - maximum - log_sum);
  }
};

__device__ Distribution distribution(const SampleArgs& args, const float* logits, float* sums, float* shared) {
  const int V = args.vocabulary, chunks = chunks_of(V);
  const float most = block_max(logits, V, shared);
  chunk_sums(logits, V, most, 1.0f, sums);
  __shared__ double log_sum;
  if (threadIdx.x == 0) {
    double sum = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) sum += sums[chunk];
    log_sum = log(sum);
  }
  __syncthreads();
  return {static_cast<double>(most), log_sum};
}

// The `count` likeliest tokens: each pass finds the highest key below the last.
__device__ void report_top(const SampleArgs& args, const float* logits, const Distribution& distribution, int count,
                           std::int32_t* ids, float* logprobs, U64* shared) {
  U64 above = ULLONG_MAX;
  for (int i = 0; i < count; ++i) {
    U64 best = 0;
    for (int id = threadIdx.x; id < args.vocabulary; id += kThreads) {
      const U64 key = logit_key(logits[id], id);
      if (key < above && key > best) best = key;
    }
    best = ULLONG_MAX - block_min_key(ULLONG_MAX - best, shared);
    if (threadIdx.x == 0) {
      ids[i] = id_of(best);
      logprobs[i] = distribution.logprob(logits[id_of(best)]);
    }
    above = best;
  }
}

__global__ void __launch_bounds__(kThreads) sample_kernel(SampleArgs args) {
  follow_previous();
  __shared__ float shared_floats[32];
  __shared__ U64 shared_keys[32];
  __shared__ double shared_doubles[kLogitChunk];
  __shared__ Descent descent;
  const WantedRow row = args.rows[blockIdx.x];
  const std::int64_t V = args.vocabulary;
  const int chunks = chunks_of(args.vocabulary);
  const float* raw = args.logits + blockIdx.x * V;
  float* sums = args.sums + std::int64_t{blockIdx.x} * chunks;
  if (row.target >= 0) {
    const Distribution d = distribution(args, raw, sums, shared_floats);
    if (threadIdx.x == 0) args.targets[row.token] = d.logprob(raw[row.target]);
    __syncthreads();
  }
  if (row.slot < 0) return;
  const SlotParams slot = args.slots[row.slot];
  const float* logits = is_modified(args, row) ? args.modified + blockIdx.x * V : raw;
  const float maximum = block_max(args.maxima + std::int64_t{blockIdx.x} * chunks, chunks, shared_floats);
  int id = first_best(args, row, logits, maximum, shared_keys);
  if (slot.temperature != 0.0f && slot.top_k != 1 && isfinite(maximum)) {
    // Bounded so that 0 * inverse_temperature stays 0.
    const float inverse_temperature = fminf(1.0f / slot.temperature, 1e30f);
    const double u = uniform(slot.seed, static_cast<std::uint32_t>(row.output_index));
    if (slot.top_k == 0 && slot.top_p >= 1.0f && slot.min_p == 0.0f) {
      const int drawn = draw_from_all(args, logits, maximum, inverse_temperature, u, sums, shared_doubles);
      if (drawn >= 0) id = drawn;
    } else {
      id = draw_from_top(args, slot, logits, maximum, id, inverse_temperature, u, descent);
    }
  }
  if (slot.report_logprob != 0 || slot.n_logprobs != 0) {
    const Distribution d = distribution(args, raw, sums, shared_floats);
    if (threadIdx.x == 0) args.logprobs[row.sequence] = d.logprob(raw[id]);
    const std::int64_t first = std::int64_t{row.sequence} * args.max_logprobs;
    report_top(args, raw, d, static_cast<int>(slot.n_logprobs), args.top_ids + first, args.top_logprobs + first,
               shared_keys);
  }
  if (threadIdx.x == 0) {
    args.sampled[row.sequence] = id;
    if (slot.has_penalty != 0) args.counts[row.slot * V + id] += 1;
  }
}

}  // namespace

void sample(const SampleArgs& args, cudaStream_t stream) {
  const int chunks = chunks_of(args.vocabulary);
  launch_after("sampling", prepare_kernel, dim3(ceil_div(chunks, 8), static_cast<unsigned>(args.n_rows)), 256, 0, stream,
               args);
  check_launch("prepare logits");
  launch_after("sampling", sample_kernel, static_cast<unsigned>(args.n_rows), kThreads, 0, stream, args);
  check_launch("sampling");
}

}  // namespace kv::cuda
