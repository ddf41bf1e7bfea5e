// DeviceModel: a checked descriptor with its weights in VRAM: what a step interprets.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/kernels/kernels.h"
#include "cuda/runtime/device_memory.h"

namespace kv::cuda {

struct DeviceLinear {
  DeviceMatrix weight{};
  const float* bias = nullptr;
};

struct DeviceRope {
  std::int32_t style;
  std::int32_t rotary_dim;
  double attention_factor;
  const double* inverse_frequencies;  // (rotary_dim / 2)
};

// One layer. Absent tensors are nullptr; shapes as in kv_role.
struct DeviceLayer {
  kv_layer shape{};
  const float* attention_norm = nullptr;
  DeviceLinear q, k, v;
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  const float* sinks = nullptr;
  DeviceLinear attention_output;
  const float* attention_post_norm = nullptr;
  const float* ffn_norm = nullptr;
  DeviceLinear gate, up, down;
  const float* ffn_post_norm = nullptr;
};

// The descriptor was checked. Loads straight from the mapped files through pinned staging, sorted into planes on the
// device; the files are closed afterwards. Blocking; progress counts weight bytes. Over a ledger that only counts, no file is
// opened and every pointer is NULL.
class DeviceModel {
 public:
  DeviceModel(const kv_model& description, DeviceLedger& ledger, kv_progress_callback progress,
              void* user);

  const kv_model& scalars() const { return description_; }  // its pointers are NULL
  const std::vector<DeviceLayer>& layers() const { return layers_; }
  const std::vector<DeviceRope>& ropes() const { return ropes_; }
  const DeviceMatrix& embedding() const { return embedding_.weight; }
  const DeviceLinear& output() const { return output_; }
  const float* output_norm() const { return output_norm_; }
  std::uint64_t file_bytes() const { return file_bytes_; }
  // Taken twice while loading: on the device, and pinned.
  std::uint64_t staging_bytes() const { return staging_bytes_; }

 private:
  DeviceLinear* linear_of(const kv_tensor& tensor);
  const float** vector_of(const kv_tensor& tensor);
  void forget_description();

  kv_model description_;
  std::vector<DeviceLayer> layers_;
  std::vector<DeviceRope> ropes_;
  DeviceLinear embedding_, output_;
  const float* output_norm_ = nullptr;
  std::uint64_t file_bytes_ = 0, staging_bytes_ = 0;
  DeviceBuffer<std::uint8_t> weights_;
};

}  // namespace kv::cuda
