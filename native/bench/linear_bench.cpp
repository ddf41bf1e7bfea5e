// Speed of linear per format and instruction path, beside the machine's read bandwidth in the same run.
//   linear_bench [path=auto] [format=all] [rows=4864] [cols=896] [threads=1] [tokens=1,8,32,512] [set=160] [pick=median]
// Weights are copied until they fill `set` MiB, by default beyond the last-level cache, so that T = 1 reads memory.
// Figures: median of repetitions, or the best one (pick=best) for tuning on a busy machine; GB/s counts stored weight bytes once per call, GFLOP/s counts 2 * rows * cols * tokens. Quantizing the activations is
// timed with the product, as a server pays it.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "tests/kernel_paths.h"
#include "tests/random_weights.h"

namespace {

using Clock = std::chrono::steady_clock;
using kv::cpu::KernelTable;
using kv::cpu::WeightMatrix;

constexpr std::int64_t kReadBytes = 160ll << 20;

struct Options {
  std::string path = "auto", format = "all";
  std::int64_t rows = 4864, cols = 896;
  int threads = 1;
  std::int64_t set_bytes = 160ll << 20;  // beyond a 36 MB last-level cache
  bool best = false;
  std::vector<std::int64_t> tokens = {1, 8, 32, 512};
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::byte* aligned(std::int64_t bytes) {
  return static_cast<std::byte*>(std::aligned_alloc(64, static_cast<std::size_t>((bytes + 127) / 64 * 64)));
}

// Runs body(thread) on `threads` threads and returns the seconds until the last is done.
template <typename Body>
double timed(int threads, Body body) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) {
    others.emplace_back([&, i] {
      ready.fetch_add(1);
      while (!go.load()) std::this_thread::yield();
      body(i);
    });
  }
  while (ready.load() < threads - 1) std::this_thread::yield();
  const Clock::time_point start = Clock::now();
  go.store(true);
  body(0);
  for (std::thread& thread : others) thread.join();
  return seconds_since(start);
}

double pick(std::vector<double> seconds, const Options& o) {
  std::sort(seconds.begin(), seconds.end());
  return o.best ? seconds.front() : seconds[seconds.size() / 2];
}

// Plain reading: sums the words of a buffer larger than the cache, the bound of every T = 1 figure.
double read_bandwidth(const Options& o) {
  const int threads = o.threads;
  const std::int64_t words = kReadBytes / 8;
  static std::vector<std::uint64_t> buffer(static_cast<std::size_t>(words), 1);
  std::atomic<std::uint64_t> sink{0};
  std::vector<double> seconds;
  for (int repeat = 0; repeat < 5; ++repeat) {
    seconds.push_back(timed(threads, [&](int thread) {
      std::uint64_t sums[16] = {};
      const std::uint64_t* p = buffer.data() + words / threads * thread / 16 * 16;
      for (std::int64_t i = 0; i + 16 <= words / threads; i += 16) {
        for (int k = 0; k < 16; ++k) sums[k] += p[i + k];
      }
      for (std::uint64_t sum : sums) sink.fetch_add(sum);
    }));
  }
  return static_cast<double>(kReadBytes) / pick(seconds, o) * 1e-9;
}

struct Rates {
  double gigabytes, gigaflops;
};

Rates measure(const KernelTable& kernels, kv_dtype dtype, const Options& o, std::int64_t tokens) {
  const std::vector<std::byte> one = kv::test::random_weights(dtype, o.rows, o.cols, 1);
  const std::int64_t bytes = static_cast<std::int64_t>(one.size());
  const std::int64_t copies = tokens == 1 ? std::max<std::int64_t>(1, o.set_bytes / bytes) : 2;
  std::vector<std::byte> weights;
  for (std::int64_t i = 0; i < copies; ++i) weights.insert(weights.end(), one.begin(), one.end());
  const std::vector<float> x = kv::test::random_activations(tokens, o.cols, 2);
  std::vector<float> y(static_cast<std::size_t>(tokens * o.rows));
  const bool quantized = kv::cpu::uses_quantized_activations(dtype);
  std::byte* codes = aligned(quantized ? kv::cpu::quantized_activations_bytes(tokens, o.cols) : 64);
  const WeightMatrix shape{dtype, o.rows, o.cols, weights.data()};
  std::vector<std::byte*> scratch;
  for (int i = 0; i < o.threads; ++i) scratch.push_back(aligned(kv::cpu::linear_scratch_bytes(shape)));

  const auto pass = [&] {  // every copy once; returns seconds per copy
    return timed(o.threads, [&](int thread) {
             for (std::int64_t i = 0; i < copies; ++i) {
               if (thread == 0 && quantized) kernels.quantize_activations({x.data(), o.cols, tokens, o.cols, codes}, 0, tokens);
               const WeightMatrix weight{dtype, o.rows, o.cols, weights.data() + i * bytes};
               const std::int64_t tiles = (o.rows + 15) / 16;
               const std::int64_t begin = tiles * thread / o.threads * 16;
               const std::int64_t end = std::min(o.rows, tiles * (thread + 1) / o.threads * 16);
               kernels.linear({weight, x.data(), o.cols, quantized ? codes : nullptr, tokens, nullptr, y.data(), o.rows},
                              begin, end, scratch[static_cast<std::size_t>(thread)]);
             }
           }) /
           static_cast<double>(copies);
  };
  pass();
  std::vector<double> seconds;
  const Clock::time_point start = Clock::now();
  while (seconds.size() < 3 || (seconds.size() < 100 && seconds_since(start) < 0.5)) seconds.push_back(pass());
  for (std::byte* p : scratch) std::free(p);
  std::free(codes);
  const double s = pick(seconds, o);
  return {static_cast<double>(bytes) / s * 1e-9, 2.0 * static_cast<double>(o.rows * o.cols * tokens) / s * 1e-9};
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const std::size_t at = argument.find('=');
    const std::string key = argument.substr(0, at), value = at == std::string::npos ? "" : argument.substr(at + 1);
    if (key == "path") o.path = value;
    else if (key == "format") o.format = value;
    else if (key == "rows") o.rows = std::atoll(value.c_str());
    else if (key == "cols") o.cols = std::atoll(value.c_str());
    else if (key == "threads") o.threads = std::atoi(value.c_str());
    else if (key == "set") o.set_bytes = std::atoll(value.c_str()) << 20;
    else if (key == "pick" && (value == "median" || value == "best")) o.best = value == "best";
    else if (key == "tokens") {
      o.tokens.clear();
      for (const char* p = value.c_str(); *p != '\0';) {
        char* after = nullptr;
        o.tokens.push_back(std::strtoll(p, &after, 10));
        p = *after == ',' ? after + 1 : after;
        if (after == p && *after != '\0') std::exit(2);
      }
    } else {
      std::fprintf(stderr, "expected path= format= rows= cols= threads= tokens= set= pick=, found %s\n", argv[i]);
      std::exit(2);
    }
  }
  return o;
}

}  // namespace

int main(int argc, char** argv) {
  const Options o = parse(argc, argv);
  const KernelTable* kernels = kv::cpu::select_kernels(o.path.c_str());
  if (kernels == nullptr) {
    std::fprintf(stderr, "expected a path of %s, found %s\n", kv::cpu::available_instruction_paths(), o.path.c_str());
    return 2;
  }
  std::printf("%s, (%lld, %lld), %d threads; read bandwidth %.1f GB/s\n", kernels->name, static_cast<long long>(o.rows),
              static_cast<long long>(o.cols), o.threads, read_bandwidth(o));
  for (kv_dtype dtype : kv::test::kWeightDtypes) {
    const kv::DtypeInfo& info = *kv::weight_dtype_info(dtype);
    if ((o.format != "all" && o.format != info.name) || o.cols % info.block_values != 0) continue;
    std::printf("%-6s", info.name);
    for (std::int64_t tokens : o.tokens) {
      const Rates rates = measure(*kernels, dtype, o, tokens);
      if (tokens == 1) std::printf("  T=1 %6.2f GB/s (%.1f GFLOP/s)", rates.gigabytes, rates.gigaflops);
      else std::printf("  T=%lld %7.1f GFLOP/s", static_cast<long long>(tokens), rates.gigaflops);
      std::fflush(stdout);
    }
    std::printf("\n");
  }
  std::printf("read bandwidth %.1f GB/s\n", read_bandwidth(o));
  return 0;
}
