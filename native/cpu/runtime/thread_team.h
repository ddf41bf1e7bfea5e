// ThreadTeam: the submission thread and its helpers, working on one step together.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace kv::cpu {

// One thread (the submission thread) calls run(); inside the body every member calls sync() the same number of times.
// Waiting spins for some microseconds, because phases of a step are that short, then yields, because the cores are
// shared with JavaScript, and sleeps when no step comes.
class ThreadTeam {
 public:
  explicit ThreadTeam(int size);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return size_; }

  // Runs body(member) on every member, 0 on the caller, and returns when all are done. `body` must not throw.
  template <typename Body>
  void run(Body&& body) {
    start([](void* context, int member) { (*static_cast<std::remove_reference_t<Body>*>(context))(member); }, &body);
    body(0);
    sync();
  }

  // A barrier; the last member to arrive runs `serial` before the others go on. Small serial work costs less here than
  // a barrier of its own.
  template <typename Serial>
  void sync(Serial&& serial) {
    const std::uint32_t phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < size_) {
      wait_for_change(phase_, phase);
      return;
    }
    serial();
    arrived_.store(0, std::memory_order_relaxed);
    publish(phase_, phase + 1);
  }
  void sync() {
    sync([] {});
  }

 private:
  using Task = void (*)(void* context, int member);

  void start(Task task, void* context);
  void work(int member);
  void wait_for_change(std::atomic<std::uint32_t>& word, std::uint32_t seen);
  void publish(std::atomic<std::uint32_t>& word, std::uint32_t value);

  const int size_;
  alignas(64) std::atomic<std::uint32_t> phase_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<std::uint32_t> run_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  Task task_ = nullptr;  // written before run_ is published; nullptr ends the helpers
  void* context_ = nullptr;
  std::vector<std::thread> helpers_;
};

}  // namespace kv::cpu
