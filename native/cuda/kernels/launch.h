// What every kernel launcher needs: the stream, and errors turned into exceptions.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace kv::cuda {

// Throws kv::Error for anything but cudaSuccess: memory shortage, a missing device and a lost one keep their statuses.
void check_cuda(cudaError_t status, const char* what);

// After every launch; the kernel itself may still fail later, at the next synchronisation.
inline void check_launch(const char* kernel) { check_cuda(cudaGetLastError(), kernel); }

// Launches a kernel that calls wait_for_previous() (arithmetic.cuh) before it touches what others write, so that its start
// overlaps the end of the kernel before it.
// launch_clusters_after: `cluster` neighbouring blocks of the grid's x see each other's shared memory.
template <typename... Parameters, typename... Arguments>
void launch_clusters_after(const char* name, void (*kernel)(Parameters...), dim3 grid, unsigned threads,
                           std::size_t shared, cudaStream_t stream, unsigned cluster, Arguments&&... arguments) {
  cudaLaunchAttribute attributes[3]{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  // Where kernels divide a multiprocessor's memory differently, none begins there before the one before has ended.
  attributes[1].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  attributes[1].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  attributes[2].id = cudaLaunchAttributeClusterDimension;
  attributes[2].val.clusterDim.x = cluster;
  attributes[2].val.clusterDim.y = attributes[2].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = cluster > 1 ? 3 : 2;
  check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), name);
}
template <typename... Parameters, typename... Arguments>
void launch_after(const char* name, void (*kernel)(Parameters...), dim3 grid, unsigned threads, std::size_t shared,
                  cudaStream_t stream, Arguments&&... arguments) {
  launch_clusters_after(name, kernel, grid, threads, shared, stream, 1, std::forward<Arguments>(arguments)...);
}

// Raises the limit of a kernel's shared memory where it needs more than every kernel may have.
template <typename... Parameters>
void allow_shared(void (*kernel)(Parameters...), std::size_t bytes, const char* name) {
  if (bytes <= 48 * 1024) return;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), name);
}

inline int count_multiprocessors() {
  int device = 0, count = 0;
  check_cuda(cudaGetDevice(&device), "count multiprocessors");
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "count multiprocessors");
  return count;
}

// Blocks that the card runs at once.
template <typename... Parameters>
int resident_blocks(void (*kernel)(Parameters...), int threads, std::size_t shared, const char* name) {
  int each = 0;
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, shared), name);
  return each * count_multiprocessors();
}

inline unsigned ceil_div(std::int64_t a, std::int64_t b) { return static_cast<unsigned>((a + b - 1) / b); }

}  // namespace kv::cuda
