// LibraryProducts: the fast mode's linear layers of large steps: operands in 16 bits, weights widened to f16 one at a time,
// products by the matrix library. A weight in float32 keeps the strict kernels.
#pragma once

#include <cstdint>

#include "cuda/kernels/kernels.h"
#include "cuda/runtime/device_memory.h"
#include "cuda/runtime/device_model.h"
#include "cuda/runtime/matrix_library.h"

namespace kv::cuda {

class LibraryProducts {
 public:
  // Steps of at most this many tokens are read-bound and stay with the strict kernels.
  static constexpr std::uint32_t kFewTokens = 64;

  // KV_UNSUPPORTED where there is no library.
  LibraryProducts(DeviceLedger& ledger, const DeviceModel& model, std::uint32_t max_tokens);

  // The parts of args from args.x, float32; args.quantized is not read. up, where not NULL, is combined with x first.
  void linear(const LinearArgs& args, cudaStream_t stream) const { gated_linear(args, nullptr, 0, stream); }
  void gated_linear(const LinearArgs& args, const float* up, std::int32_t activation_kind, cudaStream_t stream) const;

 private:
  MatrixLibrary library_;
  DeviceBuffer<std::uint16_t> operands_;  // (T, widest)
  DeviceBuffer<std::uint16_t> weights_;   // the largest block-quantized weight of a layer
};

}  // namespace kv::cuda
