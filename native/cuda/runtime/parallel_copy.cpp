#include "cuda/runtime/parallel_copy.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace kv::cuda {

namespace {

// Below this a copy is done before helpers wake up.
constexpr std::uint64_t kSharedBytes = std::uint64_t{1} << 20;
constexpr std::chrono::microseconds kAwake{200};

// True when `is_over` came true within the time a thread stays awake for it.
template <typename Condition>
bool soon(Condition is_over) {
  const auto until = std::chrono::steady_clock::now() + kAwake;
  do {
    for (int i = 0; i < 64; ++i) {
      if (is_over()) return true;
    }
  } while (std::chrono::steady_clock::now() < until);
  return false;
}

}  // namespace

ParallelCopy::ParallelCopy() {
  const unsigned cores = std::max(2u, std::thread::hardware_concurrency());
  const std::size_t count = std::min<std::size_t>(kHelpers, cores / 2);
  for (std::size_t i = 0; i < count; ++i) helpers_.emplace_back([this, i] { serve(i); });
}

ParallelCopy::~ParallelCopy() {
  {
    const std::lock_guard lock(mutex_);
    stopping_.store(true);
  }
  begun_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ParallelCopy::copy_share(std::size_t index) const {
  const std::uint64_t shares = helpers_.size() + 1, share = (bytes_ / shares + 4095) / 4096 * 4096;
  const std::uint64_t begin = std::min(bytes_, share * index);
  const std::uint64_t end = index + 1 == shares ? bytes_ : std::min(bytes_, begin + share);
  std::memcpy(to_ + begin, from_ + begin, end - begin);
}

void ParallelCopy::await_round(std::uint64_t seen) {
  const auto is_called = [&] { return stopping_.load() || round_.load() != seen; };
  if (soon(is_called)) return;
  std::unique_lock lock(mutex_);
  begun_.wait(lock, is_called);
}

void ParallelCopy::serve(std::size_t index) {
  // A round ends when every helper has had its share of it, so none is missed.
  for (std::uint64_t seen = 0;; ++seen) {
    await_round(seen);
    if (stopping_.load()) return;
    copy_share(index);
    if (busy_.fetch_sub(1) > 1) continue;
    const std::lock_guard lock(mutex_);
    ended_.notify_one();
  }
}

void ParallelCopy::copy(std::byte* to, const std::byte* from, std::uint64_t bytes) {
  if (bytes < kSharedBytes) {
    std::memcpy(to, from, bytes);
    return;
  }
  to_ = to;
  from_ = from;
  bytes_ = bytes;
  busy_.store(helpers_.size());
  {
    const std::lock_guard lock(mutex_);
    round_.fetch_add(1);
  }
  begun_.notify_all();
  copy_share(helpers_.size());
  const auto is_over = [&] { return busy_.load() == 0; };
  if (soon(is_over)) return;
  std::unique_lock lock(mutex_);
  ended_.wait(lock, is_over);
}

}  // namespace kv::cuda
