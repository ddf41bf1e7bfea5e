#include "cuda/runtime/device_memory.h"

#include <algorithm>

#include "common/status.h"
#include "cuda/runtime/device.h"

namespace kv::cuda {

// Of one buffer: sums of as many as a runner has still fit 64 bits.
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 48;

void DeviceLedger::enter(const void* data, std::uint64_t bytes, Home home, const char* what) {
  const std::lock_guard lock(mutex_);
  entries_[data] = {bytes, home, what};
}

void DeviceLedger::leave(const void* data) noexcept {
  const std::lock_guard lock(mutex_);
  entries_.erase(data);
}

void DeviceLedger::verify_residency() {
  const std::lock_guard lock(mutex_);
  residency_checks += 1;
  for (const auto& [data, entry] : entries_) {
    const auto* first = static_cast<const std::byte*>(data);
    const bool on_device = entry.home == Home::kVram;
    for (const std::byte* at : {first, first + std::max<std::uint64_t>(entry.bytes, 1) - 1}) {
      cudaPointerAttributes found{};
      const cudaError_t status = cudaPointerGetAttributes(&found, at);
      const bool is_home = on_device ? found.type == cudaMemoryTypeDevice && found.device == kDevice &&
                                           found.hostPointer == nullptr
                                     : found.type == cudaMemoryTypeHost;
      if (status == cudaSuccess && is_home) continue;
      cudaGetLastError();
      residency_failures += 1;
      fail(KV_DEVICE_LOST, "residency: %s (%llu bytes): expected %s, found memory of type %d on device %d (%s); load the "
           "model again", entry.what, static_cast<unsigned long long>(entry.bytes),
           on_device ? "plain memory of device 0" : "page-locked host memory", static_cast<int>(found.type), found.device,
           cudaGetErrorName(status));
    }
  }
}

std::byte* allocate_device(DeviceLedger& ledger, std::atomic<std::uint64_t>& account, std::uint64_t bytes,
                           const char* what) {
  if (ledger.only_counts) {
    if (bytes > kMostBytes) fail(KV_OUT_OF_MEMORY, "%s: the declared limits need more bytes than any device has", what);
    account += bytes;
    return nullptr;
  }
  const std::uint64_t size = std::max<std::uint64_t>(bytes, 256);
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, size);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t available = 0, total = 0;
    cudaMemGetInfo(&available, &total);
    fail(KV_OUT_OF_MEMORY, "%s: expected at most %llu bytes of free device memory (of %llu), found %llu required; lower "
         "the number of blocks or the batch limits, or use a smaller model", what,
         static_cast<unsigned long long>(available), static_cast<unsigned long long>(total),
         static_cast<unsigned long long>(bytes));
  }
  check_cuda(status, what);
  if (ledger.poison) {
    cudaError_t filled = cudaMemset(data, 0xFF, size);
    // Streams of ours do not wait for the default one.
    if (filled == cudaSuccess) filled = cudaStreamSynchronize(cudaStreamLegacy);
    if (filled != cudaSuccess) {
      cudaFree(data);
      check_cuda(filled, what);
    }
  }
  ledger.enter(data, bytes, DeviceLedger::Home::kVram, what);
  account += bytes;
  ledger.allocations += 1;
  return static_cast<std::byte*>(data);
}

void release_device(DeviceLedger& ledger, std::atomic<std::uint64_t>& account, std::byte* data,
                    std::uint64_t bytes) noexcept {
  ledger.leave(data);
  account -= bytes;
  cudaFree(data);
}

std::byte* allocate_pinned(DeviceLedger& ledger, std::uint64_t bytes, const char* what) {
  if (ledger.only_counts) {
    ledger.pinned_bytes += bytes;
    return nullptr;
  }
  void* data = nullptr;
  check_cuda(cudaHostAlloc(&data, std::max<std::uint64_t>(bytes, 64), cudaHostAllocDefault), what);
  ledger.enter(data, bytes, DeviceLedger::Home::kPinnedHost, what);
  ledger.pinned_bytes += bytes;
  ledger.allocations += 1;
  return static_cast<std::byte*>(data);
}

void release_pinned(DeviceLedger& ledger, std::byte* data, std::uint64_t bytes) noexcept {
  ledger.leave(data);
  ledger.pinned_bytes -= bytes;
  cudaFreeHost(data);
}

}  // namespace kv::cuda
