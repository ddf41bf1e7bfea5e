// DeviceBuffer and PinnedBuffer: RAII memory of the device and of the host pages it can reach, counted by purpose and known
// one by one.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

namespace kv::cuda {

// What one runner holds. Counters are read by any thread (kv_runner_memory).
struct DeviceLedger {
  enum class Use { kAllocates, kOnlyCounts };
  enum class Home { kVram, kPinnedHost };

  explicit DeviceLedger(bool poison_fresh_memory, Use use = Use::kAllocates)
      : poison(poison_fresh_memory), only_counts(use == Use::kOnlyCounts) {}

  std::atomic<std::uint64_t> weights_bytes{0};
  std::atomic<std::uint64_t> kv_pool_bytes{0};
  std::atomic<std::uint64_t> workspace_bytes{0};
  std::atomic<std::uint64_t> pinned_bytes{0};  // host
  std::atomic<std::uint64_t> allocations{0};
  std::atomic<std::uint64_t> residency_checks{0}, residency_failures{0};
  const bool poison;       // fill fresh memory with 0xFF: NaN in f32, f16 and bf16
  const bool only_counts;  // buffers are NULL: what the same buffers would take

  void enter(const void* data, std::uint64_t bytes, Home home, const char* what);
  void leave(const void* data) noexcept;

  // Asks the driver where the first and the last byte of every allocation lie. KV_DEVICE_LOST names the first that is not
  // where it was allocated. A microsecond or two an allocation; waits for nothing on the device.
  void verify_residency();

 private:
  struct Entry {
    std::uint64_t bytes;
    Home home;
    const char* what;
  };
  std::mutex mutex_;  // of entries_
  std::map<const void*, Entry> entries_;
};

// Plain VRAM: no managed memory, no host fallback. KV_OUT_OF_MEMORY names what was required and what is available.
std::byte* allocate_device(DeviceLedger& ledger, std::atomic<std::uint64_t>& account, std::uint64_t bytes,
                           const char* what);
void release_device(DeviceLedger& ledger, std::atomic<std::uint64_t>& account, std::byte* data,
                    std::uint64_t bytes) noexcept;
std::byte* allocate_pinned(DeviceLedger& ledger, std::uint64_t bytes, const char* what);
void release_pinned(DeviceLedger& ledger, std::byte* data, std::uint64_t bytes) noexcept;

template <typename T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceLedger& ledger, std::atomic<std::uint64_t>& account, std::uint64_t count, const char* what)
      : ledger_(&ledger), account_(&account), count_(count) {
    if (count > (UINT64_MAX >> 1) / sizeof(T)) count = (UINT64_MAX >> 1) / sizeof(T);
    data_ = reinterpret_cast<T*>(allocate_device(ledger, account, count * sizeof(T), what));
  }
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    DeviceBuffer taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~DeviceBuffer() {
    if (data_ != nullptr) release_device(*ledger_, *account_, reinterpret_cast<std::byte*>(data_), count_ * sizeof(T));
  }
  T* data() const { return data_; }
  std::uint64_t size() const { return count_; }

 private:
  void swap(DeviceBuffer& other) noexcept {
    std::swap(ledger_, other.ledger_);
    std::swap(account_, other.account_);
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }
  DeviceLedger* ledger_ = nullptr;
  std::atomic<std::uint64_t>* account_ = nullptr;
  T* data_ = nullptr;
  std::uint64_t count_ = 0;
};

template <typename T>
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(DeviceLedger& ledger, std::uint64_t count, const char* what) : ledger_(&ledger), count_(count) {
    data_ = reinterpret_cast<T*>(allocate_pinned(ledger, count * sizeof(T), what));
  }
  PinnedBuffer(PinnedBuffer&& other) noexcept { swap(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    PinnedBuffer taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~PinnedBuffer() {
    if (data_ != nullptr) release_pinned(*ledger_, reinterpret_cast<std::byte*>(data_), count_ * sizeof(T));
  }
  T* data() const { return data_; }
  std::uint64_t size() const { return count_; }

 private:
  void swap(PinnedBuffer& other) noexcept {
    std::swap(ledger_, other.ledger_);
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }
  DeviceLedger* ledger_ = nullptr;
  T* data_ = nullptr;
  std::uint64_t count_ = 0;
};

}  // namespace kv::cuda
