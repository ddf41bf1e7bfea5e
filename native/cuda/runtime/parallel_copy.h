// ParallelCopy: memcpy on more than one core. One cannot keep up with a bus.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace kv::cuda {

// memcpy over the calling thread and helpers. Between the pieces of one move they look for the next for a moment before they
// sleep: being woken takes about as long as a piece. One call at a time.
class ParallelCopy {
 public:
  ParallelCopy();
  ~ParallelCopy();
  ParallelCopy(const ParallelCopy&) = delete;
  void copy(std::byte* to, const std::byte* from, std::uint64_t bytes);

 private:
  static constexpr std::size_t kHelpers = 5;
  void serve(std::size_t index);
  void copy_share(std::size_t index) const;
  void await_round(std::uint64_t seen);

  std::mutex mutex_;
  std::condition_variable begun_, ended_;
  std::byte* to_ = nullptr;
  const std::byte* from_ = nullptr;
  std::uint64_t bytes_ = 0;
  std::atomic<std::uint64_t> round_{0};
  std::atomic<std::size_t> busy_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> helpers_;
};

}  // namespace kv::cuda
