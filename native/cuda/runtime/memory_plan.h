// MemoryPlan: what a runner will take, found by building it over a ledger that only counts.
#pragma once

#include "abi/kvasir_abi.h"

namespace kv::cuda {

// Both structs were checked. Needs the device: total and free bytes are its.
kv_memory_plan plan_memory(const kv_model& model, const kv_runner_options& options);

// KV_OUT_OF_MEMORY with every purpose's bytes when the plan is larger than what is free.
void check_memory(const kv_memory_plan& plan);

}  // namespace kv::cuda
