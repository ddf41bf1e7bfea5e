// Does the C waist fit a CUDA backend? One decode step of a toy model is driven through kv_batch: the arrays of the waist
// are copied to the device once, K/V go to a paged pool through slot_mapping, attention reads it through block tables,
// the sampled token stays on the device and the next step reads it there through input_rows, with two steps in flight.
// The whole is compared with plain loops on the host. Build: see README.md.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "abi/kvasir_abi.h"

#define CHECK(call)                                                                          \
  do {                                                                                       \
    cudaError_t status = (call);                                                             \
    if (status != cudaSuccess) {                                                             \
      std::printf("%s: %s (%d)\n", #call, cudaGetErrorString(status), static_cast<int>(status)); \
      std::exit(status == cudaErrorInsufficientDriver || status == cudaErrorNoDevice ? 3 : 1); \
    }                                                                                        \
  } while (0)

constexpr int V = 512, H = 128, D = 64, BLOCK = 256, N_BLOCKS = 8, M = 4, S = 3;

struct Step {  // device copy of one kv_batch: everything a step needs, in one allocation made before decoding starts
  int *token_ids, *positions, *context_lengths, *block_tables, *slot_mapping, *input_rows;
};

// x[s] = rms_norm(embedding[token]) where the token is given, or is what row input_rows[s] of the last step sampled.
__global__ void embed_and_norm(Step step, const int* sampled, const float* table, float* x) {
  const int s = blockIdx.x;
  const int row = step.input_rows[s];
  const int token = row >= 0 ? sampled[row] : step.token_ids[s];
  __shared__ float squares[H];
  const float value = table[token * H + threadIdx.x];
  squares[threadIdx.x] = value * value;
  for (int width = H / 2; width > 0; width /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < width) squares[threadIdx.x] += squares[threadIdx.x + width];
  }
  __syncthreads();
  x[s * H + threadIdx.x] = value * rsqrtf(squares[0] / H + 1e-5f);
}

// K = first half of x, V = second half; slot -1 writes nothing.
__global__ void write_kv(Step step, const float* x, float* keys, float* values) {
  const int slot = step.slot_mapping[blockIdx.x];
  if (slot < 0) return;
  keys[slot * D + threadIdx.x] = x[blockIdx.x * H + threadIdx.x];
  values[slot * D + threadIdx.x] = x[blockIdx.x * H + D + threadIdx.x];
}

// One thread a dimension, blocks of the context in ascending order; q is the first half of x.
__global__ void attend(Step step, const float* x, const float* keys, const float* values, float* mixed) {
  const int s = blockIdx.x;
  float largest = -INFINITY, total = 0, sum = 0;
  for (int t = 0; t < step.context_lengths[s]; ++t) {
    const int slot = step.block_tables[s * M + t / BLOCK] * BLOCK + t % BLOCK;
    float score = 0;
    for (int d = 0; d < D; ++d) score += x[s * H + d] * keys[slot * D + d];
    const float next = fmaxf(largest, score);
    const float keep = expf(largest - next), share = expf(score - next);
    sum = sum * keep + share * values[slot * D + threadIdx.x];
    total = total * keep + share;
    largest = next;
  }
  mixed[s * D + threadIdx.x] = sum / total;
}

// Greedy over V rows of a tied table; the token stays on the device.
__global__ void sample(const float* mixed, const float* table, int* sampled) {
  float best = -INFINITY;
  int id = 0;
  for (int v = 0; v < V; ++v) {
    float logit = 0;
    for (int d = 0; d < D; ++d) logit += mixed[blockIdx.x * D + d] * table[v * H + d];
    if (logit > best) best = logit, id = v;
  }
  sampled[blockIdx.x] = id;
}

template <typename T>
T* device(size_t count) {
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, count * sizeof(T)));
  return static_cast<T*>(memory);
}

int main() {
  std::vector<float> table(V * H);
  unsigned state = 1;
  for (float& value : table) value = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / (1 << 23) - 1.0f;

  int count = 0;
  CHECK(cudaGetDeviceCount(&count));
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  std::printf("device: %s, sm_%d%d\n", properties.name, properties.major, properties.minor);

  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  float* d_table = device<float>(V * H);
  CHECK(cudaMemcpy(d_table, table.data(), table.size() * sizeof(float), cudaMemcpyHostToDevice));
  float *x = device<float>(S * H), *mixed = device<float>(S * D);
  float *keys = device<float>(N_BLOCKS * BLOCK * D), *values = device<float>(N_BLOCKS * BLOCK * D);
  int* sampled = device<int>(S);
  Step slots[2];
  for (Step& step : slots) {
    step = {device<int>(S), device<int>(S), device<int>(S), device<int>(S * M), device<int>(S), device<int>(S)};
  }

  // Block tables are permuted on purpose; every sequence starts with one token and decodes past a block boundary.
  const std::vector<int> tables = {5, 2, -1, -1, 0, 7, -1, -1, 3, 6, -1, -1};
  constexpr int STEPS = 300;
  std::vector<int> produced(STEPS * S);
  for (int n = 0; n < STEPS; ++n) {
    std::vector<int> tokens(S, 0), positions(S, n), lengths(S, n + 1), mapping(S), rows(S), cumulative(S + 1);
    for (int s = 0; s < S; ++s) {
      tokens[s] = s + 1;
      rows[s] = n == 0 ? -1 : s;
      mapping[s] = tables[s * M + n / BLOCK] * BLOCK + n % BLOCK;
      cumulative[s + 1] = s + 1;
    }
    kv_batch batch = {};
    batch.size = sizeof(batch);
    batch.n_tokens = batch.n_sequences = S;
    batch.n_groups = 1;
    batch.token_ids = tokens.data();
    batch.positions = positions.data();
    batch.cu_seqlens_q = cumulative.data();
    batch.context_lengths = lengths.data();
    batch.block_table_width[0] = M;
    batch.block_tables[0] = tables.data();
    batch.slot_mapping[0] = mapping.data();
    batch.input_rows = rows.data();

    Step& step = slots[n % 2];  // two steps in flight: this copy never touches the arrays the running step reads
    auto send = [&](int* to, const int* from, size_t ints) {
      CHECK(cudaMemcpyAsync(to, from, ints * sizeof(int), cudaMemcpyHostToDevice, stream));
    };
    send(step.token_ids, batch.token_ids, S);
    send(step.positions, batch.positions, S);
    send(step.context_lengths, batch.context_lengths, S);
    send(step.block_tables, batch.block_tables[0], S * M);
    send(step.slot_mapping, batch.slot_mapping[0], S);
    send(step.input_rows, batch.input_rows, S);
    embed_and_norm<<<S, H, 0, stream>>>(step, sampled, d_table, x);
    write_kv<<<S, D, 0, stream>>>(step, x, keys, values);
    attend<<<S, D, 0, stream>>>(step, x, keys, values, mixed);
    sample<<<S, 1, 0, stream>>>(mixed, d_table, sampled);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpyAsync(&produced[n * S], sampled, S * sizeof(int), cudaMemcpyDeviceToHost, stream));
  }
  CHECK(cudaStreamSynchronize(stream));

  // The same, one token after another on the host, contiguous and in double.
  int differing = 0;
  for (int s = 0; s < S; ++s) {
    std::vector<std::vector<double>> history;
    int token = s + 1;
    for (int n = 0; n < STEPS; ++n) {
      std::vector<double> h(H);
      double squares = 0;
      for (int i = 0; i < H; ++i) squares += static_cast<double>(table[token * H + i]) * table[token * H + i];
      for (int i = 0; i < H; ++i) h[i] = table[token * H + i] / std::sqrt(squares / H + 1e-5);
      history.push_back(h);
      std::vector<double> weights;
      double total = 0;
      for (const auto& past : history) {
        double score = 0;
        for (int d = 0; d < D; ++d) score += h[d] * past[d];
        weights.push_back(std::exp(score - D));
        total += weights.back();
      }
      std::vector<double> out(D, 0.0);
      for (size_t t = 0; t < history.size(); ++t)
        for (int d = 0; d < D; ++d) out[d] += weights[t] / total * history[t][D + d];
      double best = -INFINITY;
      for (int v = 0; v < V; ++v) {
        double logit = 0;
        for (int d = 0; d < D; ++d) logit += out[d] * table[v * H + d];
        if (logit > best) best = logit, token = v;
      }
      differing += produced[n * S + s] != token;
    }
  }
  std::printf("%d steps of %d sequences over a permuted block table: %d tokens differ from the host\n", STEPS, S, differing);
  return differing == 0 ? 0 : 1;
}
