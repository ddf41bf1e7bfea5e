// MatrixLibrary: cuBLAS for the large products of the fast mode. Opened when a runner asks for that mode, so that the
// backend loads where there is no such library.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/runtime/device_memory.h"

namespace kv::cuda {

class MatrixLibrary {
 public:
  // KV_UNSUPPORTED where the library is not found or refuses.
  explicit MatrixLibrary(DeviceLedger& ledger);
  ~MatrixLibrary();
  MatrixLibrary(const MatrixLibrary&) = delete;

  // y[t, r] = w[r] . x[t], or += where `add`: w (rows, cols) and x (tokens, cols) in 16 bits, sums and y in float32.
  struct Product {
    const std::uint16_t* w;
    const std::uint16_t* x;
    float* y;
    std::int64_t ldy;
    std::int32_t rows, cols, tokens;
    bool add, is_bf16;
  };
  void multiply(const Product& product, cudaStream_t stream) const;

 private:
  void* library_ = nullptr;
  void* handle_ = nullptr;
  int (*destroy_)(void*) = nullptr;
  int (*set_stream_)(void*, cudaStream_t) = nullptr;
  int (*set_workspace_)(void*, void*, std::size_t) = nullptr;
  int (*multiply_)(void*, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int,
                   const void*, void*, int, int, int, int) = nullptr;
  DeviceBuffer<std::uint8_t> scratch_;
};

}  // namespace kv::cuda
