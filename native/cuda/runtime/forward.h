// Forward: launches one step: from token ids to logits, sampled tokens and what else was asked for. Launches only; nothing
// here waits for the device or allocates.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/runtime/device_model.h"
#include "cuda/runtime/kv_pool.h"
#include "cuda/runtime/library_products.h"
#include "cuda/runtime/step_plan.h"
#include "cuda/runtime/workspace.h"

namespace kv::cuda {

class Forward {
 public:
  Forward(const DeviceModel& model, const KvPool& pool, const Workspace& space, const PlanLimits& limits,
          kv_activation_mode mode, const LibraryProducts* library);

  // The step's input lies in space.input as the plan says. Rows of logits the caller asked for go to returned_logits
  // (host), in the order of `wanted`.
  void launch(const StepPlan& plan, const std::vector<Wanted>& wanted, float* returned_logits, cudaStream_t stream) const;

 private:
  template <typename T>
  const T* input(std::uint32_t offset) const {
    return reinterpret_cast<const T*>(space_.input.data() + offset);
  }
  // Whether a step goes by the library (fast mode): activations stay float32 between its kernels.
  bool uses_library(const StepPlan& plan) const;
  bool wants_halves(const DeviceMatrix& weight) const;
  void product(const StepPlan& plan, const LinearArgs& args, cudaStream_t stream) const;
  void launch_attention(const StepPlan& plan, std::uint32_t index, const DeviceLayer& layer, cudaStream_t stream) const;
  void launch_feed_forward(const StepPlan& plan, const DeviceLayer& layer, cudaStream_t stream) const;
  void launch_logits(const StepPlan& plan, const std::vector<Wanted>& wanted, float* returned_logits,
                     cudaStream_t stream) const;
  void norm(float* joined, const float* join_norm, const float* weight, bool in_halves, bool keep, std::uint32_t tokens,
            const std::int32_t* rows, cudaStream_t stream) const;
  HalfInput halves(bool wanted) const;

  const DeviceModel& model_;
  const KvPool& pool_;
  const Workspace& space_;
  const PlanLimits& limits_;
  const kv_activation_mode mode_;
  const LibraryProducts* library_;  // NULL but in fast mode
  std::vector<std::uint32_t> rope_offsets_;  // in space_.cosines, per token
};

}  // namespace kv::cuda
