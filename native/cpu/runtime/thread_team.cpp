#include "cpu/runtime/thread_team.h"

#include <chrono>

namespace kv::cpu {

namespace {

// Longer than the gap between two phases of a step, far shorter than a scheduler's time slice.
constexpr std::chrono::microseconds kSpin{40};
// Then the core is offered to whoever wants it and kept otherwise. Sleeping at once was seen to cost 13 % of a decode
// step on a virtual machine, where waking a halted core is an interrupt through the hypervisor; a member that waits
// longer than this waits for the next step.
constexpr std::chrono::microseconds kYield{1500};

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadTeam::ThreadTeam(int size) : size_(size) {
  helpers_.reserve(static_cast<std::size_t>(size - 1));
  try {
    for (int member = 1; member < size; ++member) helpers_.emplace_back([this, member] { work(member); });
  } catch (...) {
    publish(run_, run_.load() + 1);
    for (std::thread& helper : helpers_) helper.join();
    throw;
  }
}

ThreadTeam::~ThreadTeam() {
  task_ = nullptr;
  publish(run_, run_.load() + 1);
  for (std::thread& helper : helpers_) helper.join();
}

void ThreadTeam::start(Task task, void* context) {
  task_ = task;
  context_ = context;
  publish(run_, run_.load(std::memory_order_relaxed) + 1);
}

void ThreadTeam::work(int member) {
  // The first run is number 1 however late this thread gets going; later ones cannot be missed, since a run ends only
  // when every helper has joined its last sync().
  std::uint32_t seen = 0;
  while (true) {
    wait_for_change(run_, seen);
    ++seen;
    if (task_ == nullptr) return;
    task_(context_, member);
    sync();
  }
}

void ThreadTeam::wait_for_change(std::atomic<std::uint32_t>& word, std::uint32_t seen) {
  const auto begin = std::chrono::steady_clock::now();
  for (auto waited = begin - begin; waited < kYield; waited = std::chrono::steady_clock::now() - begin) {
    for (int turn = 0; turn < 16; ++turn) {
      if (word.load(std::memory_order_acquire) != seen) return;
      relax();
    }
    if (waited >= kSpin) std::this_thread::yield();
  }
  // Ordered with publish(): either it sees the sleeper and notifies, or the wait sees the new value.
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  word.wait(seen, std::memory_order_seq_cst);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

void ThreadTeam::publish(std::atomic<std::uint32_t>& word, std::uint32_t value) {
  word.store(value, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) word.notify_all();
}

}  // namespace kv::cpu
