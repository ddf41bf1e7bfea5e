// FaultGuard: survives the SIGBUS a memory-mapped file raises once somebody truncated it.
#pragma once

#include <cstddef>

namespace kv {

// Registers one read-only mapping for as long as it lives. A SIGBUS inside it puts a page of zeros under the faulting
// address and sets damaged(); any other SIGBUS goes to the handler that was installed before ours. The registry is
// process-wide because signal dispositions are; two runners use separate entries of it.
class FaultGuard {
 public:
  // Fails with KV_OUT_OF_MEMORY when the registry is full.
  FaultGuard(const void* mapping, size_t bytes);
  ~FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;

  bool damaged() const noexcept;

 private:
  int entry_;
};

}  // namespace kv
