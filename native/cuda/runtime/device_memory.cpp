#include "cuda/runtime/device_memory.h"

#include <algorithm>

#include "common/status.h"
#include "cuda/runtime/device.h"

namespace kv::cuda {

std::byte* allocate_device(DeviceLedger& ledger, std::atomic<std::uint64_t>& account, std::uint64_t bytes,
                           const char* what) {
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
  account += bytes;
  ledger.allocations += 1;
  return static_cast<std::byte*>(data);
}

void release_device(std::atomic<std::uint64_t>& account, std::byte* data, std::uint64_t bytes) noexcept {
  account -= bytes;
  cudaFree(data);
}

std::byte* allocate_pinned(DeviceLedger& ledger, std::uint64_t bytes, const char* what) {
  void* data = nullptr;
  check_cuda(cudaHostAlloc(&data, std::max<std::uint64_t>(bytes, 64), cudaHostAllocDefault), what);
  ledger.pinned_bytes += bytes;
  ledger.allocations += 1;
  return static_cast<std::byte*>(data);
}

void release_pinned(DeviceLedger& ledger, std::byte* data, std::uint64_t bytes) noexcept {
  ledger.pinned_bytes -= bytes;
  cudaFreeHost(data);
}

}  // namespace kv::cuda
