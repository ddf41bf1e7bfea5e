// StepPlan: one step as the device sees it: where everything lies in the packed input and output of a step, and the work
// lists of attention. Two steps with equal plans launch the very same kernels with the very same arguments.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/kernels/kernels.h"
#include "host/batch.h"

namespace kv::cuda {

// Layers whose attention is cut into the same items.
struct AttentionGeometry {
  std::uint32_t n_heads, n_kv_heads, head_dim;
  bool operator==(const AttentionGeometry&) const = default;
};

inline constexpr std::uint32_t kMaxGeometries = 4;

// Sizes and offsets (bytes into the packed input, int32 alignment). Plain data: compared and hashed as bytes.
struct StepPlan {
  std::uint32_t n_tokens, n_sequences, n_wanted, max_logprobs;
  std::uint32_t has_sampling, has_hash, has_targets, n_geometries;
  std::uint32_t token_ids, positions, input_rows, cu_seqlens, wanted_tokens, wanted_rows;
  std::uint32_t table_width[KV_MAX_GROUPS], tables[KV_MAX_GROUPS], slots[KV_MAX_GROUPS];
  // Few rows, spans shared out; and many rows, each item walking its spans.
  std::uint32_t split_items[kMaxGeometries], n_split_items[kMaxGeometries], split_rows[kMaxGeometries];
  std::uint32_t walk_items[kMaxGeometries], n_walk_items[kMaxGeometries], walk_rows[kMaxGeometries];
  std::uint32_t n_splits[kMaxGeometries];
  std::uint32_t input_bytes;
  // Packed output.
  std::uint32_t sampled, logprobs, top_ids, top_logprobs, targets, hashes, output_bytes;
};

struct PlanLimits {
  BatchLimits batch;
  std::vector<AttentionGeometry> geometries;
  std::uint64_t state_floats;  // capacity of the split attention's states
  bool on_tensors;             // fast mode: long rows go to tensor_attention where it applies
  std::int32_t kv_dtype;
};

// Rows of one KV head whose states may be kept at once for one sequence: with more of them, or states that do not fit, its
// items walk their spans.
inline constexpr std::uint32_t kMostSplitRows = 512;

// Bytes a packed input and output can take.
std::uint64_t input_capacity(const PlanLimits& limits);
std::uint64_t output_capacity(const PlanLimits& limits);

// What a step reports of each of its wanted tokens.
struct Wanted {
  std::int32_t token;
  std::int32_t sequence;
  bool is_last;   // of its sequence
  bool returned;  // its logits go to the caller
};

// Fills `input` and returns the plan. `wanted` is scratch that keeps its capacity; max_logprobs_of(slot) is the slot's.
StepPlan plan_step(const PlanLimits& limits, const StagedBatch& batch, const std::vector<std::uint32_t>& slot_logprobs,
                   std::vector<Wanted>& wanted, std::byte* input);

}  // namespace kv::cuda
