#include "host/memory.h"

#include <unistd.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <cstdlib>
#include <cstring>

#include "common/status.h"

namespace kv {

namespace {

uint64_t physical_bytes() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) return UINT64_MAX;
  return static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_bytes);
}

}  // namespace

std::byte* allocate_bytes(MemoryLedger& ledger, std::atomic<uint64_t>& account, uint64_t bytes, const char* what) {
  const uint64_t held = ledger.kv_pool_bytes + ledger.workspace_bytes + ledger.repacked_bytes;
  const uint64_t limit = physical_bytes();
  if (bytes > limit || held > limit - bytes) {
    fail(KV_OUT_OF_MEMORY, "%s: expected at most %llu bytes of this machine's memory, found %llu on top of %llu; lower "
         "the number of blocks or the batch limits", what, static_cast<unsigned long long>(limit),
         static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(held));
  }
  void* data = nullptr;
  if (posix_memalign(&data, 64, bytes == 0 ? 64 : bytes) != 0) {
    fail(KV_OUT_OF_MEMORY, "%s: the system refused %llu bytes; lower the limits or free memory", what,
         static_cast<unsigned long long>(bytes));
  }
  if (ledger.poison) std::memset(data, 0xFF, bytes);
  account += bytes;
  ledger.allocations += 1;
  return static_cast<std::byte*>(data);
}

void release_bytes(std::atomic<uint64_t>& account, std::byte* data, uint64_t bytes) noexcept {
  account -= bytes;
  std::free(data);
}

void give_back_free_memory() noexcept {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace kv
