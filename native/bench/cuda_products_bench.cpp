// Times the CUDA backend's products alone, matrix after matrix over different memory, so that no cache holds them. One line
// of JSON a shape and number of tokens: microseconds a product, stored bytes and operations a second.
//   cuda_products_bench [name part [tokens ...]]
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cuda/kernels/kernels.h"
#include "tests/cuda_memory.h"
#include "tests/random_weights.h"

namespace {

using namespace kv;
using test::cuda_ok;
using test::OnDevice;

struct Shape {
  const char* name;
  kv_dtype dtype;
  std::int32_t rows[kv::cuda::kMaxLinearParts];  // of parts that share the input
  std::int32_t cols;
};

constexpr std::int64_t kMemory = std::int64_t{1} << 30;  // of one shape's matrices together
constexpr int kRounds = 5;

void run(const Shape& s, const std::vector<int>& token_counts) {
  std::uint64_t stored = 0;
  for (const std::int32_t rows : s.rows) {
    std::uint64_t bytes = 0;
    if (rows == 0) continue;
    const auto n = static_cast<std::uint64_t>(rows), width = static_cast<std::uint64_t>(s.cols);
    if (!weight_matrix_bytes(s.dtype, n, width, &bytes)) std::exit(1);
    stored += bytes;
  }
  const auto copies = static_cast<int>(std::clamp<std::int64_t>(kMemory / static_cast<std::int64_t>(stored), 3, 40));
  // A few random rows again and again: time does not depend on values.
  const std::int32_t some = 256;
  const std::vector<std::byte> rows_of = test::random_weights(s.dtype, some, s.cols, 1);
  const OnDevice<std::uint8_t> raw([&] {
    std::vector<std::uint8_t> bytes(rows_of.size());
    std::memcpy(bytes.data(), rows_of.data(), bytes.size());
    return bytes;
  }());
  std::vector<std::unique_ptr<OnDevice<std::uint8_t>>> planes;
  std::vector<kv::cuda::LinearArgs> launches(static_cast<std::size_t>(copies));
  const int most = *std::max_element(token_counts.begin(), token_counts.end());
  std::int32_t widest = 0, n_parts = 0;
  for (const std::int32_t rows : s.rows) {
    widest = std::max(widest, rows);
    n_parts += rows != 0 ? 1 : 0;
  }
  const OnDevice<float> x(test::random_activations(most, s.cols, 2)),
      y(static_cast<std::size_t>(most) * static_cast<std::size_t>(widest) * kv::cuda::kMaxLinearParts);
  const std::int32_t pairs = kv::cuda::pairs_of(s.cols);
  const OnDevice<std::uint16_t> codes(static_cast<std::size_t>((most + 7) / 8 * pairs) * 512);
  const OnDevice<float> scales(static_cast<std::size_t>((most + 7) / 8) * kv::cuda::kSegments * 8);
  kv::cuda::activation({x.data(), nullptr, nullptr, {codes.data(), scales.data()}, s.cols, most, -1, 0}, nullptr);
  for (kv::cuda::LinearArgs& args : launches) {
    args.n_parts = n_parts;
    for (int i = 0; i < n_parts; ++i) {
      kv::cuda::DeviceMatrix matrix{};
      matrix.dtype = s.dtype;
      matrix.rows = s.rows[i];
      matrix.cols = s.cols;
      const kv::cuda::PlaneBytes sizes = kv::cuda::plan_planes(matrix);
      planes.push_back(std::make_unique<OnDevice<std::uint8_t>>(static_cast<std::size_t>(sizes.total())));
      kv::cuda::place_planes(matrix, sizes, planes.back()->data());
      for (std::int32_t row = 0; row < s.rows[i]; row += some) {
        kv::cuda::repack(matrix, raw.data(), row, std::min(some, s.rows[i] - row), nullptr);
      }
      args.parts[i] = {matrix, nullptr, y.data() + std::int64_t{i} * most * widest, s.rows[i], 0};
    }
    args.halves = {codes.data(), scales.data()};
    args.x = x.data();
    args.ldx = s.cols;
  }
  cudaStream_t stream;
  cudaEvent_t begin, end;
  cuda_ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  cuda_ok(cudaEventCreate(&begin), "event");
  cuda_ok(cudaEventCreate(&end), "event");
  cuda_ok(cudaDeviceSynchronize(), "prepare");
  for (const int tokens : token_counts) {
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    cuda_ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
    for (kv::cuda::LinearArgs& args : launches) {
      args.tokens = tokens;
      kv::cuda::linear(args, stream);
    }
    cuda_ok(cudaStreamEndCapture(stream, &graph), "capture");
    cuda_ok(cudaGraphInstantiate(&replay, graph, 0), "capture");
    std::vector<float> times;
    for (int round = 0; round < kRounds + 1; ++round) {
      cuda_ok(cudaEventRecord(begin, stream), "record");
      cuda_ok(cudaGraphLaunch(replay, stream), "launch");
      cuda_ok(cudaEventRecord(end, stream), "record");
      cuda_ok(cudaEventSynchronize(end), "run");
      float ms = 0;
      cuda_ok(cudaEventElapsedTime(&ms, begin, end), "time");
      if (round > 0) times.push_back(ms * 1000 / static_cast<float>(copies));
    }
    std::sort(times.begin(), times.end());
    const double us = static_cast<double>(times[times.size() / 2]);
    double products = 0;
    for (const std::int32_t rows : s.rows) products += 2.0 * rows * s.cols * tokens;
    std::printf("{\"shape\":\"%s\",\"tokens\":%d,\"us\":%.2f,\"min\":%.2f,\"max\":%.2f,\"TB/s\":%.2f,\"TFLOP/s\":%.1f}\n",
                s.name, tokens, us, static_cast<double>(times.front()), static_cast<double>(times.back()),
                static_cast<double>(stored) / us * 1e-6, products / us * 1e-6);
    std::fflush(stdout);
    cuda_ok(cudaGraphExecDestroy(replay), "capture");
    cuda_ok(cudaGraphDestroy(graph), "capture");
  }
  cuda_ok(cudaEventDestroy(begin), "event");
  cuda_ok(cudaEventDestroy(end), "event");
  cuda_ok(cudaStreamDestroy(stream), "stream");
}

// Qwen2.5-7B's matrices.
constexpr Shape kShapes[] = {
    {"q4_k gate and up", KV_Q4_K, {18944, 18944}, 3584}, {"q4_k down", KV_Q4_K, {3584}, 18944},
    {"q6_k down", KV_Q6_K, {3584}, 18944},               {"q4_k q, k, v", KV_Q4_K, {3584, 512, 512}, 3584},
    {"q4_k o", KV_Q4_K, {3584}, 3584},                   {"q6_k logits", KV_Q6_K, {152064}, 3584},
    {"f16 gate and up", KV_F16, {18944, 18944}, 3584},   {"f16 down", KV_F16, {3584}, 18944},
    {"f16 q, k, v", KV_F16, {3584, 512, 512}, 3584},     {"q8_0 gate and up", KV_Q8_0, {18944, 18944}, 3584},
};

}  // namespace

int main(int argc, char** argv) {
  std::vector<int> tokens;
  for (int i = 2; i < argc; ++i) tokens.push_back(std::atoi(argv[i]));
  if (tokens.empty()) tokens = {1, 2, 8, 16, 32, 64, 2048};
  for (const Shape& shape : kShapes) {
    if (argc < 2 || std::strstr(shape.name, argv[1]) != nullptr) run(shape, tokens);
  }
}
