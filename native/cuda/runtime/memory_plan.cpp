#include "cuda/runtime/memory_plan.h"

#include <algorithm>

#include "common/checks.h"
#include "cuda/runtime/block_mover.h"
#include "cuda/runtime/device.h"
#include "cuda/runtime/device_memory.h"
#include "cuda/runtime/kv_pool.h"
#include "cuda/runtime/library_products.h"
#include "cuda/runtime/runner_limits.h"
#include "cuda/runtime/workspace.h"

namespace kv::cuda {

kv_memory_plan plan_memory(const kv_model& model, const kv_runner_options& options) {
  DeviceLedger ledger(false, DeviceLedger::Use::kOnlyCounts);
  const DeviceModel loaded(model, ledger, nullptr, nullptr);
  const PlanLimits limits = limits_of(model, loaded, options);
  const KvPool pool(ledger, loaded, options.n_blocks, static_cast<kv_dtype>(options.kv_dtype));
  const Workspace space(ledger, loaded, limits);
  if (options.activation_mode == KV_ACTIVATIONS_FAST) {
    const LibraryProducts library(ledger, loaded, limits.batch.max_tokens);
  }
  const DeviceBuffer<std::int32_t> lists(ledger, ledger.workspace_bytes, kBlockListEntries, "block lists");
  const DeviceBytes device = device_bytes();
  kv_memory_plan plan{};
  plan.size = sizeof plan;
  plan.total_bytes = device.total;
  plan.free_bytes = device.free;
  plan.weights_bytes = ledger.weights_bytes;
  plan.kv_pool_bytes = ledger.kv_pool_bytes;
  // Loading's staging is given back before the workspace is taken.
  plan.workspace_bytes = std::max(ledger.workspace_bytes.load(), loaded.staging_bytes());
  const std::uint64_t flights = kStepsInFlight * (input_capacity(limits) + output_capacity(limits));
  plan.pinned_bytes = std::max(loaded.staging_bytes(), flights + BlockMover::pinned_bytes());
  return plan;
}

void check_memory(const kv_memory_plan& plan) {
  std::uint64_t required = 0;
  const bool fits = add(plan.weights_bytes, plan.kv_pool_bytes, &required) &&
                    add(required, plan.workspace_bytes, &required) && required <= plan.free_bytes;
  if (fits) return;
  fail(KV_OUT_OF_MEMORY, "device memory: expected at most %llu bytes, which are free of %llu, found required: weights "
       "%llu, KV pool %llu, workspace %llu; lower the number of blocks or the batch limits, or use a smaller model",
       static_cast<unsigned long long>(plan.free_bytes), static_cast<unsigned long long>(plan.total_bytes),
       static_cast<unsigned long long>(plan.weights_bytes), static_cast<unsigned long long>(plan.kv_pool_bytes),
       static_cast<unsigned long long>(plan.workspace_bytes));
}

}  // namespace kv::cuda
