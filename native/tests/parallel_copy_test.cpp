// Copies over several threads, one after another: at once, and after the threads have gone to sleep.
#include <chrono>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "cuda/runtime/parallel_copy.h"
#include "tests/check.h"

namespace {

constexpr std::size_t kMost = std::size_t{9} << 20;
// Longer than a thread stays awake for the next copy.
constexpr std::chrono::milliseconds kNap{3};

}  // namespace

KV_TEST("every byte is copied and none beside it, however the copies follow one another") {
  std::mt19937 random(1);
  std::vector<std::byte> from(kMost), to(kMost + 1);
  for (std::byte& byte : from) byte = static_cast<std::byte>(1 + random() % 255);
  kv::cuda::ParallelCopy copy;
  bool is_right = true;
  for (int round = 0; round < 100; ++round) {
    const std::size_t bytes = round == 0 ? 0 : round == 1 ? kMost : random() % kMost;
    std::memset(to.data(), 0, to.size());
    if (round % 10 == 0) std::this_thread::sleep_for(kNap);
    copy.copy(to.data(), from.data(), bytes);
    is_right = is_right && std::memcmp(to.data(), from.data(), bytes) == 0 && to[bytes] == std::byte{0};
  }
  KV_CHECK(is_right);
}

KV_TEST("threads end that were never asked for anything") {
  for (int round = 0; round < 20; ++round) {
    { const kv::cuda::ParallelCopy copy; }
    KV_CHECK(true);
  }
}

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
