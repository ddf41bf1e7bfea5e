#include "cpu/runtime/attention_plan.h"

#include <algorithm>

namespace kv::cpu {

namespace {

std::uint32_t queries_per_item(const AttentionGeometry& geometry) {
  return std::max(1u, kItemRows / (geometry.n_heads / geometry.n_kv_heads));
}

std::int32_t blocks_of(const AttentionItem& item) { return item.block_end - item.block_begin; }

}  // namespace

void AttentionPlanner::reserve(AttentionPlan& plan, std::uint32_t max_tokens, std::uint32_t max_sequences) const {
  const std::uint64_t tiles = max_tokens / queries_per_item(plan.geometry) + std::uint64_t{max_sequences};
  const std::uint64_t max_splits = std::uint64_t{n_threads_} * kItemsPerThread;
  // A split adds at most kItemsPerThread * n_threads pieces in all, plus one for rounding each.
  plan.items.reserve(tiles * plan.geometry.n_kv_heads + 2 * max_splits);
  plan.splits = std::make_unique<AttentionSplit[]>(max_splits);
}

void AttentionPlanner::build(AttentionPlan& plan, const QueryRows& queries) const {
  const AttentionGeometry& geometry = plan.geometry;
  const std::uint32_t step = queries_per_item(geometry);
  plan.queries = queries;
  plan.items.clear();
  plan.n_splits = 0;
  std::int64_t total_blocks = 0;
  for (std::uint32_t sequence = 0; sequence < queries.n_sequences; ++sequence) {
    const auto end = static_cast<std::uint32_t>(queries.sequence_begin[sequence + 1]);
    for (auto query = static_cast<std::uint32_t>(queries.sequence_begin[sequence]); query < end; query += step) {
      const std::uint32_t query_end = std::min(end, query + step);
      const std::int32_t block_begin = visible_range(geometry, queries.positions[query]).begin / kBlockTokens;
      const std::int32_t block_end = queries.positions[query_end - 1] / kBlockTokens + 1;
      for (std::uint32_t head = 0; head < geometry.n_kv_heads; ++head) {
        plan.items.push_back({sequence, head, query, query_end, block_begin, block_end, -1});
        total_blocks += block_end - block_begin;
      }
    }
  }
  const auto wanted = static_cast<std::int64_t>(n_threads_) * kItemsPerThread;
  if (n_threads_ > 1 && static_cast<std::int64_t>(plan.items.size()) < wanted) {
    const auto piece = static_cast<std::int32_t>((total_blocks + wanted - 1) / wanted);
    const std::uint64_t group = geometry.n_heads / geometry.n_kv_heads;
    std::uint64_t states = 0;
    const std::size_t whole_items = plan.items.size();
    for (std::size_t index = 0; index < whole_items; ++index) {
      const AttentionItem item = plan.items[index];
      const std::uint64_t needed = (item.query_end - item.query_begin) * group * static_cast<std::uint64_t>(blocks_of(item));
      if (blocks_of(item) <= piece || states + needed > state_capacity_) continue;
      AttentionSplit& split = plan.splits[plan.n_splits];
      split.block_begin = item.block_begin;
      split.block_end = item.block_end;
      split.first_state = states;
      split.pieces = (blocks_of(item) + piece - 1) / piece;
      split.pending.store(split.pieces, std::memory_order_relaxed);
      states += needed;
      for (std::int32_t i = 0; i < split.pieces; ++i) {
        AttentionItem part = item;
        part.split = static_cast<std::int32_t>(plan.n_splits);
        part.block_begin = item.block_begin + i * piece;
        part.block_end = std::min(item.block_end, part.block_begin + piece);
        if (i == 0) {
          plan.items[index] = part;
        } else {
          plan.items.push_back(part);
        }
      }
      ++plan.n_splits;
    }
  }
  // Longest first: what is left when threads run out of items is short.
  std::sort(plan.items.begin(), plan.items.end(), [](const AttentionItem& a, const AttentionItem& b) {
    const std::int64_t cost_a = std::int64_t{blocks_of(a)} * (a.query_end - a.query_begin);
    const std::int64_t cost_b = std::int64_t{blocks_of(b)} * (b.query_end - b.query_begin);
    return cost_a > cost_b;
  });
}

}  // namespace kv::cpu
