#include "host/fault_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <mutex>

#include "common/status.h"

namespace kv {

namespace {

constexpr int kMaxMappings = 4096;

// Written under the registry's mutex, read by the signal handler without it: `end` is published last and cleared first.
struct Mapping {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> damaged{false};
};

Mapping g_mappings[kMaxMappings];
std::mutex g_registry_mutex;
struct sigaction g_previous;
uintptr_t g_page_bytes = 0;

void forward_signal(int number, siginfo_t* info, void* context) {
  if ((g_previous.sa_flags & SA_SIGINFO) != 0 && g_previous.sa_sigaction != nullptr) {
    g_previous.sa_sigaction(number, info, context);
  } else if (g_previous.sa_handler != SIG_DFL && g_previous.sa_handler != SIG_IGN) {
    g_previous.sa_handler(number);
  } else {
    // Returning re-executes the access, which now ends the process the way it would have without us.
    signal(number, SIG_DFL);
  }
}

// Async-signal-safe: atomics and mmap only.
void on_bus_error(int number, siginfo_t* info, void* context) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Mapping& mapping : g_mappings) {
    const uintptr_t end = mapping.end.load(std::memory_order_acquire);
    if (address >= end || address < mapping.begin.load(std::memory_order_relaxed)) continue;
    void* page = reinterpret_cast<void*>(address & ~(g_page_bytes - 1));
    if (mmap(page, g_page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) break;
    mapping.damaged.store(true, std::memory_order_release);
    return;
  }
  forward_signal(number, info, context);
}

void install_handler() {
  g_page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGBUS, &action, &g_previous) != 0) fail(KV_INTERNAL, "cannot install a handler for SIGBUS");
}

}  // namespace

FaultGuard::FaultGuard(const void* mapping, size_t bytes) : entry_(-1) {
  static std::once_flag installed;
  std::call_once(installed, install_handler);
  const std::lock_guard lock(g_registry_mutex);
  for (int index = 0; index < kMaxMappings; ++index) {
    Mapping& entry = g_mappings[index];
    if (entry.begin.load(std::memory_order_relaxed) != 0) continue;
    entry.damaged.store(false, std::memory_order_relaxed);
    entry.begin.store(reinterpret_cast<uintptr_t>(mapping), std::memory_order_relaxed);
    entry.end.store(reinterpret_cast<uintptr_t>(mapping) + bytes, std::memory_order_release);
    entry_ = index;
    return;
  }
  fail(KV_OUT_OF_MEMORY, "weight files: expected at most %d mapped at once in a process; dispose of a model first",
       kMaxMappings);
}

FaultGuard::~FaultGuard() {
  const std::lock_guard lock(g_registry_mutex);
  g_mappings[entry_].end.store(0, std::memory_order_release);
  g_mappings[entry_].begin.store(0, std::memory_order_release);
}

bool FaultGuard::damaged() const noexcept { return g_mappings[entry_].damaged.load(std::memory_order_acquire); }

}  // namespace kv
