// What every kernel launcher needs: the stream, and errors turned into exceptions.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace kv::cuda {

// Throws kv::Error for anything but cudaSuccess: memory shortage, a missing device and a lost one keep their statuses.
void check_cuda(cudaError_t status, const char* what);

// After every launch; the kernel itself may still fail later, at the next synchronisation.
inline void check_launch(const char* kernel) { check_cuda(cudaGetLastError(), kernel); }

// Launches a kernel that begins with wait_for_previous() (arithmetic.cuh), so that its start overlaps the end of the
// kernel before it.
template <typename... Parameters, typename... Arguments>
void launch_after(const char* name, void (*kernel)(Parameters...), dim3 grid, unsigned threads, std::size_t shared,
                  cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = 1;
  check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), name);
}

inline unsigned ceil_div(std::int64_t a, std::int64_t b) { return static_cast<unsigned>((a + b - 1) / b); }

}  // namespace kv::cuda
