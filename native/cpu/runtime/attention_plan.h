// AttentionPlan: the attention of one step cut into items of similar cost, for layers of one geometry.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "cpu/runtime/kv_pool.h"
#include "host/memory.h"

namespace kv::cpu {

// What two layers must share to share a plan.
struct AttentionGeometry {
  std::uint32_t n_heads;     // Hq
  std::uint32_t n_kv_heads;  // Hkv
  std::uint32_t head_dim;    // D
  std::uint32_t window_tokens;

  bool operator==(const AttentionGeometry&) const = default;
};

// The query rows of a step: row i is the query of one token; rows of a sequence are consecutive, positions ascend.
struct QueryRows {
  std::uint32_t count;
  std::uint32_t n_sequences;
  const std::int32_t* positions;       // (count)
  const std::int32_t* sequence_begin;  // (n_sequences + 1)
};

// Queries x heads of one KV head of one sequence against blocks block_begin <= b < block_end.
struct AttentionItem {
  std::uint32_t sequence;
  std::uint32_t kv_head;
  std::uint32_t query_begin, query_end;
  std::int32_t block_begin, block_end;
  std::int32_t split;  // index into the plan's splits, -1: the item covers its whole context and finishes alone
};

// One (sequence, KV head) whose blocks several items share. Each block's state is stored on its own and all are merged
// in ascending order by whichever item ends last, so that the cut never shows in the bits.
struct AttentionSplit {
  std::int32_t block_begin, block_end;
  std::uint64_t first_state;  // index of the state of (block_begin, row 0); blocks follow, rows within a block
  std::atomic<std::int32_t> pending{0};
  std::int32_t pieces = 0;
};

struct AttentionPlan {
  AttentionGeometry geometry;
  QueryRows queries;
  std::vector<AttentionItem> items;
  std::unique_ptr<AttentionSplit[]> splits;
  std::uint32_t n_splits = 0;
};

// Tokens [begin, end) that a query at `position` attends to.
struct VisibleRange {
  std::int32_t begin;
  std::int32_t end;
};
inline VisibleRange visible_range(const AttentionGeometry& geometry, std::int32_t position) {
  const std::int64_t begin =
      geometry.window_tokens == 0 ? 0 : std::int64_t{position} - std::int64_t{geometry.window_tokens} + 1;
  return {begin < 0 ? 0 : static_cast<std::int32_t>(begin), position + 1};
}

// Rows an item may have: enough for K and V of a block to be reused from the second-level cache, few enough for the
// state to stay in the first.
inline constexpr std::uint32_t kItemRows = 48;
// Splits a plan may have: cutting is only worth it while there are fewer (sequence, KV head) pairs than threads to feed.
inline constexpr std::uint32_t kItemsPerThread = 4;

class AttentionPlanner {
 public:
  AttentionPlanner(std::uint32_t n_threads, std::uint64_t state_capacity)
      : n_threads_(n_threads), state_capacity_(state_capacity) {}

  // Reserves for the largest batch, so that build() allocates nothing.
  void reserve(AttentionPlan& plan, std::uint32_t max_tokens, std::uint32_t max_sequences) const;
  void build(AttentionPlan& plan, const QueryRows& queries) const;

 private:
  std::uint32_t n_threads_;
  std::uint64_t state_capacity_;
};

}  // namespace kv::cpu
