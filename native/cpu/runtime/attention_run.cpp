#include "cpu/runtime/attention_run.h"

#include <algorithm>

namespace kv::cpu {

namespace {

// Rows of an item: row r is query query_begin + r / group_size, head r % group_size of the KV head's group.
struct ItemRows {
  const AttentionPlan& plan;
  const AttentionItem& item;
  const AttentionLayer& layer;
  std::uint32_t group_size;
  std::uint32_t count;

  std::uint32_t query(std::uint32_t row) const { return item.query_begin + row / group_size; }
  std::uint32_t head(std::uint32_t row) const { return item.kv_head * group_size + row % group_size; }
  std::uint64_t offset(std::uint32_t row) const {
    const AttentionGeometry& geometry = plan.geometry;
    return (std::uint64_t{query(row)} * geometry.n_heads + head(row)) * geometry.head_dim;
  }
  // The row's visible tokens of a block, relative to it; empty ranges have end <= begin.
  VisibleRange in_block(std::uint32_t row, std::int32_t block) const {
    const VisibleRange visible = visible_range(plan.geometry, plan.queries.positions[query(row)]);
    const std::int32_t first = block * kBlockTokens;
    return {std::max(visible.begin - first, 0), std::min(visible.end - first, kBlockTokens)};
  }
};

// Running states of rows: m, l (rows each) and o (rows, stride).
struct States {
  float* maxima;
  float* sums;
  float* outputs;
  std::uint64_t stride;

  AttentionState at(std::uint32_t row) const { return {maxima + row, sums + row, outputs + row * stride}; }
};

States carve(float*& scratch, std::uint64_t rows, std::uint64_t stride) {
  States states{scratch, scratch + rows, scratch + 2 * rows, stride};
  // Outputs start on a cache line.
  states.outputs += (16 - 2 * rows % 16) % 16;
  scratch = states.outputs + rows * stride;
  return states;
}

// Evens the tiles out: 7 rows are done as 4 and 3, not as 6 and 1.
std::uint32_t tile_rows(std::uint32_t rows) {
  const std::uint32_t tiles = (rows + kAttentionRows - 1) / kAttentionRows;
  return (rows + tiles - 1) / tiles;
}

void merge_row(const KernelTable& kernels, std::int32_t head_dim, const AttentionState& into,
               const AttentionState& from, bool first) {
  if (first) {
    *into.maxima = *from.maxima;
    *into.sums = *from.sums;
    std::copy(from.outputs, from.outputs + head_dim, into.outputs);
    return;
  }
  kernels.attention_merge(
      {into.maxima, into.sums, into.outputs, *from.maxima, *from.sums, from.outputs, head_dim});
}

void finish_row(const KernelTable& kernels, const ItemRows& rows, std::uint32_t row, const AttentionState& state) {
  const auto head_dim = static_cast<std::int32_t>(rows.plan.geometry.head_dim);
  if (rows.layer.sinks != nullptr) {
    kernels.attention_merge(
        {state.maxima, state.sums, state.outputs, rows.layer.sinks[rows.head(row)], 1.0f, nullptr, head_dim});
  }
  kernels.attention_finish(state.outputs, *state.sums, head_dim, rows.layer.outputs + rows.offset(row));
}

// Merges the blocks of a split in ascending order and writes the rows' outputs.
void finish_split(const KernelTable& kernels, const ItemRows& rows, const AttentionSplit& split, float* states,
                  const States& running) {
  const auto head_dim = static_cast<std::int32_t>(rows.plan.geometry.head_dim);
  const std::uint64_t state_floats = attention_state_floats(rows.plan.geometry.head_dim);
  for (std::uint32_t row = 0; row < rows.count; ++row) {
    bool first = true;
    for (std::int32_t block = split.block_begin; block < split.block_end; ++block) {
      const VisibleRange range = rows.in_block(row, block);
      if (range.begin >= range.end) continue;
      float* from = states + (split.first_state +
                              static_cast<std::uint64_t>(block - split.block_begin) * rows.count + row) * state_floats;
      merge_row(kernels, head_dim, running.at(row), {from, from + 1, from + 16}, first);
      first = false;
    }
    finish_row(kernels, rows, row, running.at(row));
  }
}

}  // namespace

std::uint64_t attention_state_floats(std::uint32_t head_dim) {
  return 16 + static_cast<std::uint64_t>(attention_output_stride(head_dim));
}

std::uint64_t attention_scratch_floats(std::uint32_t head_dim, std::uint32_t max_group_size) {
  const std::uint64_t rows = std::max(kItemRows, max_group_size) + std::uint64_t{kAttentionRows};
  return rows * (2 + static_cast<std::uint64_t>(attention_output_stride(head_dim))) + 64 +
         std::uint64_t{kAttentionScoreFloats};
}

void run_attention_item(const KernelTable& kernels, const KvPool& pool, AttentionPlan& plan, const AttentionItem& item,
                        const AttentionLayer& layer, float* shared_states, float* scratch) {
  const AttentionGeometry& geometry = plan.geometry;
  const std::uint32_t group_size = geometry.n_heads / geometry.n_kv_heads;
  const ItemRows rows{plan, item, layer, group_size, (item.query_end - item.query_begin) * group_size};
  const auto head_dim = static_cast<std::int32_t>(geometry.head_dim);
  const auto stride = static_cast<std::uint64_t>(attention_output_stride(head_dim));
  const std::uint64_t state_floats = attention_state_floats(geometry.head_dim);
  float* scores = scratch;
  float* next = scratch + kAttentionScoreFloats;
  const States running = carve(next, rows.count, stride);
  const States block_states = carve(next, kAttentionRows, stride);
  AttentionSplit* split = item.split < 0 ? nullptr : &plan.splits[static_cast<std::size_t>(item.split)];
  const std::uint32_t tile = tile_rows(rows.count);
  const std::int32_t* table = layer.block_tables + std::uint64_t{item.sequence} * layer.block_table_width;
  // A row's first visible block replaces its state; the others are merged into it.
  const auto is_first = [&](std::uint32_t row, std::int32_t block) {
    return visible_range(geometry, plan.queries.positions[rows.query(row)]).begin / kBlockTokens == block;
  };

  for (std::int32_t block = item.block_begin; block < item.block_end; ++block) {
    const auto id = static_cast<std::uint32_t>(table[block]);
    const std::byte* next_keys = block + 1 < item.block_end
                                     ? pool.keys(layer.layer, static_cast<std::uint32_t>(table[block + 1]), item.kv_head)
                                     : nullptr;
    for (std::uint32_t row = 0; row < rows.count; row += tile) {
      const std::uint32_t count = std::min(tile, rows.count - row);
      const float* queries[kAttentionRows];
      std::int32_t begins[kAttentionRows];
      std::int32_t ends[kAttentionRows];
      bool any = false;
      for (std::uint32_t r = 0; r < count; ++r) {
        const VisibleRange range = rows.in_block(row + r, block);
        queries[r] = layer.queries + rows.offset(row + r);
        begins[r] = range.begin;
        ends[r] = range.end;
        any = any || range.begin < range.end;
      }
      if (!any) continue;
      kernels.attention_block({pool.keys(layer.layer, id, item.kv_head), pool.values(layer.layer, id, item.kv_head),
                               queries, begins, ends, scores,
                               {block_states.maxima, block_states.sums, block_states.outputs}, pool.dtype(), head_dim,
                               static_cast<std::int32_t>(count), layer.scale, layer.softcap,
                               row == 0 ? next_keys : nullptr});
      for (std::uint32_t r = 0; r < count; ++r) {
        if (begins[r] >= ends[r]) continue;
        const AttentionState state = block_states.at(r);
        if (split == nullptr) {
          merge_row(kernels, head_dim, running.at(row + r), state, is_first(row + r, block));
        } else {
          float* to = shared_states + (split->first_state + static_cast<std::uint64_t>(block - split->block_begin) *
                                                                rows.count + row + r) * state_floats;
          merge_row(kernels, head_dim, {to, to + 1, to + 16}, state, true);
        }
      }
    }
  }

  if (split == nullptr) {
    for (std::uint32_t row = 0; row < rows.count; ++row) finish_row(kernels, rows, row, running.at(row));
    return;
  }
  // The last piece to end sees every other piece's states through this counter; it also arms it for the next layer.
  if (split->pending.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    finish_split(kernels, rows, *split, shared_states, running);
    split->pending.store(split->pieces, std::memory_order_relaxed);
  }
}

}  // namespace kv::cpu
