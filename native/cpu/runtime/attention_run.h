// Runs the items of an AttentionPlan for one layer.
#pragma once

#include <cstdint>

#include "cpu/kernels/kernels.h"
#include "cpu/runtime/attention_plan.h"

namespace kv::cpu {

// One layer's inputs and outputs.
struct AttentionLayer {
  std::uint32_t layer;
  float scale;
  float softcap;                     // 0: none
  const float* sinks;                // (Hq), or nullptr
  const float* queries;              // (rows, Hq * D), rotated as the pool's keys are
  float* outputs;                    // (rows, Hq * D)
  const std::int32_t* block_tables;  // (S, width)
  std::uint32_t block_table_width;
};

// Floats of the scratch one thread needs for items of any geometry up to D = head_dim.
std::uint64_t attention_scratch_floats(std::uint32_t head_dim, std::uint32_t max_group_size);

// Floats of one state (m, l, o) of the shared buffer splits write to.
std::uint64_t attention_state_floats(std::uint32_t head_dim);

// One item; `states` is shared by all threads, `scratch` belongs to the caller.
void run_attention_item(const KernelTable& kernels, const KvPool& pool, AttentionPlan& plan, const AttentionItem& item,
                        const AttentionLayer& layer, float* states, float* scratch);

}  // namespace kv::cpu
