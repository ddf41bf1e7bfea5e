// Attention over one block by pool dtype and rows, dtypes taking turns: best and median microseconds a block of 256 tokens.
//   attention_bench [head_dim 64] [path auto] [blocks 192] [repetitions 25]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "host/kv_format.h"
#include "tests/random_weights.h"

namespace {

using namespace kv;
using namespace kv::cpu;

constexpr int kTokens = kAttentionBlockTokens;

template <typename T>
T* aligned(std::vector<T>& memory) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  return reinterpret_cast<T*>((address + 63) / 64 * 64);
}

template <typename Work>
double microseconds(Work&& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
}

struct Pool {
  kv_dtype dtype;
  const char* name;
  std::int64_t head_bytes;
  std::vector<std::byte> memory;
  std::vector<double> times;
};

}  // namespace

int main(int argc, char** argv) {
  const int head_dim = argc > 1 ? std::atoi(argv[1]) : 64;
  const KernelTable* kernels = select_kernels(argc > 2 ? argv[2] : "auto");
  const int blocks = argc > 3 ? std::atoi(argv[3]) : 192;
  const int repetitions = argc > 4 ? std::atoi(argv[4]) : 25;
  const auto D = static_cast<std::uint32_t>(head_dim);
  if (kernels == nullptr || blocks < 1 || repetitions < 1 || head_dim < 1 || head_dim > kMaxHeadDim || !kv_dtype_takes(KV_Q4, D)) {
    std::printf("usage: attention_bench [head_dim] [path] [blocks] [repetitions]\n");
    return 2;
  }
  test::Random random(1);
  const auto floats = [&](int count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = random.uniform();
    return values;
  };
  const std::vector<float> keys = floats(kTokens * head_dim), values = floats(kTokens * head_dim);
  const std::vector<float> queries = floats(kAttentionRows * head_dim);
  std::vector<Pool> pools;
  for (const auto& [dtype, name] : {std::pair{KV_F16, "f16"}, std::pair{KV_Q8, "q8"}, std::pair{KV_Q4, "q4"}}) {
    Pool pool{dtype, name, std::int64_t{kTokens} * kv_record_bytes(dtype, D), {}, {}};
    pool.memory.resize(static_cast<std::size_t>(2 * pool.head_bytes * blocks + 64));
    pools.push_back(std::move(pool));
  }
  std::vector<std::int32_t> slots(kTokens);
  for (int block = 0; block < blocks; ++block) {
    for (int t = 0; t < kTokens; ++t) slots[static_cast<std::size_t>(t)] = block * kTokens + t;
    for (Pool& pool : pools) {
      const double time = microseconds([&] {
        kernels->kv_write({keys.data(), values.data(), slots.data(), aligned(pool.memory), 2 * pool.head_bytes,
                           pool.head_bytes, 1, head_dim, kTokens, pool.dtype}, 0, kTokens);
      });
      pool.times.push_back(time / kTokens * 1000);
    }
  }
  std::printf("%s, head_dim %d, %d blocks\nkv_write, ns a token and head:", kernels->name, head_dim, blocks);
  for (Pool& pool : pools) std::printf("  %s %.0f", pool.name, *std::min_element(pool.times.begin(), pool.times.end()));
  std::printf("\n");

  std::vector<float> scores(kAttentionScoreFloats + 16), maxima(kAttentionRows), sums(kAttentionRows);
  std::vector<float> outputs(static_cast<std::size_t>(kAttentionRows * attention_output_stride(head_dim) + 16));
  const float* rows_of[kAttentionRows];
  std::int32_t begins[kAttentionRows] = {}, ends[kAttentionRows];
  for (int r = 0; r < kAttentionRows; ++r) {
    rows_of[r] = queries.data() + r * head_dim;
    ends[r] = kTokens;
  }
  for (int rows = 1; rows <= kAttentionRows; ++rows) {
    for (Pool& pool : pools) pool.times.clear();
    for (int repetition = 0; repetition < repetitions; ++repetition) {
      for (Pool& pool : pools) {
        const std::byte* base = aligned(pool.memory);
        const double time = microseconds([&] {
          for (int block = 0; block < blocks; ++block) {
            const std::byte* at = base + 2 * pool.head_bytes * block;
            kernels->attention_block({at, at + pool.head_bytes, rows_of, begins, ends, aligned(scores),
                                      {maxima.data(), sums.data(), aligned(outputs)}, pool.dtype, head_dim, rows, 0.125f,
                                      0.0f, block + 1 < blocks ? at + 2 * pool.head_bytes : nullptr});
          }
        });
        pool.times.push_back(time / blocks);
      }
    }
    std::printf("rows %d, us a block:", rows);
    for (Pool& pool : pools) {
      std::sort(pool.times.begin(), pool.times.end());
      std::printf("  %s %.2f (median %.2f)", pool.name, pool.times.front(), pool.times[pool.times.size() / 2]);
    }
    std::printf("\n");
  }
  return 0;
}
