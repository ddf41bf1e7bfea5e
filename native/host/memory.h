// Buffer: RAII host memory, 64-byte aligned, counted in a MemoryLedger.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace kv {

// What one runner has allocated. Counters are read by any thread (kv_runner_memory).
struct MemoryLedger {
  explicit MemoryLedger(bool poison_fresh_memory) : poison(poison_fresh_memory) {}

  std::atomic<uint64_t> allocations{0};
  std::atomic<uint64_t> kv_pool_bytes{0};
  std::atomic<uint64_t> workspace_bytes{0};
  std::atomic<uint64_t> repacked_bytes{0};
  const bool poison;  // fill fresh memory with 0xFF: NaN in f32, f16 and bf16
};

// Fails with KV_OUT_OF_MEMORY when `bytes` more than this machine's physical memory are asked for: an overcommitting
// kernel would grant them and kill the process later.
std::byte* allocate_bytes(MemoryLedger& ledger, std::atomic<uint64_t>& account, uint64_t bytes, const char* what);
void release_bytes(std::atomic<uint64_t>& account, std::byte* data, uint64_t bytes) noexcept;

// Hands the allocator's free pages back to the system, where it keeps some. Buffers of requests and of just-in-time
// compilers leave several MB in every thread's arena. Milliseconds; for idle moments.
void give_back_free_memory() noexcept;

template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(MemoryLedger& ledger, std::atomic<uint64_t>& account, uint64_t count, const char* what)
      : account_(&account), count_(count) {
    if (count > UINT64_MAX / sizeof(T)) count = UINT64_MAX / sizeof(T);
    data_ = reinterpret_cast<T*>(allocate_bytes(ledger, account, count * sizeof(T), what));
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) release_bytes(*account_, reinterpret_cast<std::byte*>(data_), count_ * sizeof(T));
  }

  T* data() const { return data_; }
  uint64_t size() const { return count_; }
  T& operator[](uint64_t index) const { return data_[index]; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(account_, other.account_);
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }

  std::atomic<uint64_t>* account_ = nullptr;
  T* data_ = nullptr;
  uint64_t count_ = 0;
};

}  // namespace kv
