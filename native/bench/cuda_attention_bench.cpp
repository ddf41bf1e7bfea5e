// Times the CUDA backend's attention alone, layer after layer over different memory, so that no cache holds it. One line of
// JSON a shape: microseconds a layer, and the keys and values it has to read a second.
//   cuda_attention_bench [name part]
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/kernels/kernels.h"
#include "host/block_tokens.h"
#include "host/kv_format.h"
#include "tests/cuda_memory.h"
#include "tests/random_weights.h"

namespace {

using namespace kv;
using test::cuda_ok;
using test::OnDevice;

struct Shape {
  const char* name;
  std::int32_t heads, kv_heads, sequences, context, tokens;  // the last `tokens` of each context are new
  kv_dtype dtype = KV_F16;
  enum Form { kSplit, kWalk, kFast } form = kSplit;
};

constexpr std::int32_t kHeadDim = 128;

void run(const Shape& s) {
  const std::int32_t group = s.heads / s.kv_heads;
  const std::int64_t record = kv_record_bytes(s.dtype, kHeadDim), half = s.kv_heads * kBlockTokens * record;
  const std::int32_t blocks = (s.context + kBlockTokens - 1) / kBlockTokens;
  const auto width = static_cast<std::int32_t>(std::bit_ceil(static_cast<std::uint32_t>(blocks)));
  const std::int64_t layer_bytes = 2 * half * blocks * s.sequences;
  const auto layers = static_cast<std::int32_t>(std::clamp<std::int64_t>((std::int64_t{1} << 30) / layer_bytes, 4, 32));
  // f16 numbers of 2^-7 to 2^-2; read as any other format they are numbers too.
  std::uint8_t* pool = nullptr;
  cuda_ok(cudaMalloc(&pool, static_cast<std::size_t>(layers * layer_bytes)), "pool");
  test::Random random(1);
  std::vector<std::uint8_t> noise(1 << 22);
  for (std::size_t i = 0; i + 1 < noise.size(); i += 2) {
    const std::uint32_t bits = (random.below(2) << 15) | ((8 + random.below(6)) << 10) | random.below(1024);
    noise[i] = static_cast<std::uint8_t>(bits);
    noise[i + 1] = static_cast<std::uint8_t>(bits >> 8);
  }
  for (std::int64_t at = 0; at < layers * layer_bytes; at += static_cast<std::int64_t>(noise.size())) {
    const auto count = std::min<std::int64_t>(static_cast<std::int64_t>(noise.size()), layers * layer_bytes - at);
    cuda_ok(cudaMemcpy(pool + at, noise.data(), static_cast<std::size_t>(count), cudaMemcpyHostToDevice), "noise");
  }
  const kv::cuda::AttentionTiles tiles = kv::cuda::attention_tiles(kHeadDim, s.dtype);
  const std::int32_t per_item = s.form == Shape::kFast   ? kv::cuda::kTensorRows
                                : s.form == Shape::kWalk ? tiles.walk_rows
                                                         : std::min(tiles.split_rows, s.tokens * group);
  std::vector<kv::cuda::AttentionItem> items;
  std::vector<std::int32_t> positions, tables;
  std::int32_t state_rows = 0;
  for (std::int32_t sequence = 0; sequence < s.sequences; ++sequence) {
    const std::int32_t begin = static_cast<std::int32_t>(positions.size()), first_position = s.context - s.tokens;
    for (std::int32_t t = 0; t < s.tokens; ++t) positions.push_back(first_position + t);
    for (std::int32_t b = 0; b < width; ++b) tables.push_back(b < blocks ? sequence * blocks + b : 0);
    const std::int32_t rows = s.tokens * group;
    for (std::int32_t item = (rows + per_item - 1) / per_item; item-- > 0;) {
      for (std::int32_t head = 0; head < s.kv_heads; ++head) {
        const std::int32_t first = item * per_item, count = std::min(per_item, rows - first);
        items.push_back({sequence, head, first, count, begin, first_position, first_position + first / group,
                         first_position + (first + count - 1) / group, state_rows});
        state_rows += count;
      }
    }
  }
  const std::int32_t n_splits = width * kBlockTokens / tiles.span_tokens;
  const std::int64_t values = static_cast<std::int64_t>(positions.size()) * s.heads * kHeadDim;
  const OnDevice<kv::cuda::AttentionItem> items_at(items);
  const OnDevice<std::int32_t> positions_at(positions), tables_at(tables);
  const OnDevice<float> q(test::random_floats(values, 2)), out(static_cast<std::size_t>(values));
  const OnDevice<float> states(
      s.form == Shape::kSplit ? static_cast<std::size_t>(state_rows) * static_cast<std::size_t>(n_splits * kv::cuda::state_floats(kHeadDim)) : 1);
  kv::cuda::AttentionArgs args{};
  args.q = q.data();
  args.out = out.data();
  args.block_bytes = 2 * half;
  args.value_offset = half;
  args.items = items_at.data();
  args.positions = positions_at.data();
  args.block_tables = tables_at.data();
  args.states = states.data();
  args.table_width = width;
  args.n_items = static_cast<std::int32_t>(items.size());
  args.n_splits = s.form == Shape::kSplit ? n_splits : 0;
  args.rows_per_item = per_item;
  args.n_heads = s.heads;
  args.n_kv_heads = s.kv_heads;
  args.head_dim = kHeadDim;
  args.dtype = s.dtype;
  args.scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
  cudaStream_t stream = nullptr;
  cuda_ok(cudaStreamCreate(&stream), "stream");
  const auto launch = [&] {
    for (std::int32_t layer = 0; layer < layers; ++layer) {
      args.pool = pool + layer * layer_bytes;
      s.form == Shape::kFast ? kv::cuda::tensor_attention(args, stream) : kv::cuda::attention(args, stream);
    }
  };
  launch();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  cuda_ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  launch();
  cuda_ok(cudaStreamEndCapture(stream, &graph), "capture");
  cuda_ok(cudaGraphInstantiate(&replay, graph, 0), "graph");
  cudaEvent_t begin = nullptr, end = nullptr;
  cuda_ok(cudaEventCreate(&begin), "event");
  cuda_ok(cudaEventCreate(&end), "event");
  std::vector<float> times;
  for (int i = 0; i < 12; ++i) {
    cuda_ok(cudaEventRecord(begin, stream), "event");
    cuda_ok(cudaGraphLaunch(replay, stream), "launch");
    cuda_ok(cudaEventRecord(end, stream), "event");
    cuda_ok(cudaStreamSynchronize(stream), "attention");
    float ms = 0;
    cuda_ok(cudaEventElapsedTime(&ms, begin, end), "event");
    if (i >= 3) times.push_back(1000 * ms / static_cast<float>(layers));
  }
  std::sort(times.begin(), times.end());
  const double micros = static_cast<double>(times[times.size() / 2]);
  const double read = 2.0 * s.kv_heads * static_cast<double>(record) * s.context * s.sequences;
  std::printf("{\"shape\":\"%s\",\"heads\":%d,\"kv_heads\":%d,\"dtype\":%d,\"sequences\":%d,\"context\":%d,\"tokens\":%d,"
              "\"microseconds\":%.2f,\"min\":%.2f,\"max\":%.2f,\"terabytes_per_s\":%.2f,\"teraflops\":%.1f}\n",
              s.name, s.heads, s.kv_heads, s.dtype, s.sequences, s.context, s.tokens, micros,
              static_cast<double>(times.front()), static_cast<double>(times.back()), read / micros * 1e-6,
              4.0 * kHeadDim * s.heads * s.tokens * (s.context - s.tokens / 2.0) * s.sequences / micros * 1e-6);
  std::fflush(stdout);
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  cudaFree(pool);
}

constexpr Shape kShapes[] = {
    {"decode llama 32000", 32, 8, 1, 32000, 1},
    {"decode qwen 32000", 28, 4, 1, 32000, 1},
    {"decode qwen 576", 28, 4, 1, 576, 1},
    {"decode qwen 8 of 576", 28, 4, 8, 576, 1},
    {"decode qwen 32 of 576", 28, 4, 32, 576, 1},
    {"decode qwen 64 of 576", 28, 4, 64, 576, 1},
    {"resume qwen 8 behind 32000", 28, 4, 1, 32008, 8},
    {"resume qwen 16 behind 32000", 28, 4, 1, 32016, 16},
    {"resume qwen 32 behind 32000", 28, 4, 1, 32032, 32},
    {"resume qwen 64 behind 32000", 28, 4, 1, 32064, 64},
    {"decode qwen 32000 bf16", 28, 4, 1, 32000, 1, KV_BF16},
    {"decode qwen 32000 q8", 28, 4, 1, 32000, 1, KV_Q8},
    {"decode qwen 32000 q4", 28, 4, 1, 32000, 1, KV_Q4},
    {"prefill qwen 2048 behind 6144", 28, 4, 1, 8192, 2048, KV_F16, Shape::kWalk},
    {"prefill qwen 2048 behind 6144, fast", 28, 4, 1, 8192, 2048, KV_F16, Shape::kFast},
    {"prefill qwen 2048 behind 6144, q8", 28, 4, 1, 8192, 2048, KV_Q8, Shape::kWalk},
};

}  // namespace

int main(int argc, char** argv) {
  for (const Shape& shape : kShapes) {
    if (argc < 2 || std::strstr(shape.name, argv[1]) != nullptr) run(shape);
  }
  return 0;
}
