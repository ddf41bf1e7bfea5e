// What every kernel launcher needs: the stream, and errors turned into exceptions.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace kv::cuda {

// Throws kv::Error for anything but cudaSuccess: memory shortage, a missing device and a lost one keep their statuses.
void check_cuda(cudaError_t status, const char* what);

// After every launch; the kernel itself may still fail later, at the next synchronisation.
inline void check_launch(const char* kernel) { check_cuda(cudaGetLastError(), kernel); }

inline unsigned ceil_div(std::int64_t a, std::int64_t b) { return static_cast<unsigned>((a + b - 1) / b); }

}  // namespace kv::cuda
