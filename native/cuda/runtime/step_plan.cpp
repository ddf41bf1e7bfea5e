#include "cuda/runtime/step_plan.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/status.h"
#include "host/block_tokens.h"

namespace kv::cuda {

namespace {

std::uint64_t round_up(std::uint64_t value) { return (value + 63) / 64 * 64; }

AttentionTiles tiles_of(const PlanLimits& limits, const AttentionGeometry& geometry) {
  return attention_tiles(static_cast<std::int32_t>(geometry.head_dim), limits.kv_dtype);
}

std::uint32_t rows_of_walk(const PlanLimits& limits, const AttentionGeometry& geometry) {
  if (limits.on_tensors && tensor_attention_applies(static_cast<std::int32_t>(geometry.head_dim), limits.kv_dtype)) {
    return kTensorRows;
  }
  return static_cast<std::uint32_t>(tiles_of(limits, geometry).walk_rows);
}

// Hands out places in the packed input.
class Packer {
 public:
  Packer(std::byte* base, std::uint64_t capacity) : base_(base), capacity_(capacity) {}
  template <typename T>
  T* take(std::uint64_t count, std::uint32_t* offset) {
    *offset = static_cast<std::uint32_t>(at_);
    T* place = reinterpret_cast<T*>(base_ + at_);
    at_ = round_up(at_ + count * sizeof(T));
    if (at_ > capacity_) fail(KV_INTERNAL, "a step's input needs more than the %llu bytes planned for it",
                              static_cast<unsigned long long>(capacity_));
    return place;
  }
  std::uint32_t used() const { return static_cast<std::uint32_t>(at_); }

 private:
  std::byte* base_;
  std::uint64_t capacity_, at_ = 0;
};

std::uint64_t max_items(const PlanLimits& limits, const AttentionGeometry& geometry) {
  const std::uint64_t group = geometry.n_heads / geometry.n_kv_heads;
  return std::uint64_t{geometry.n_kv_heads} *
         (std::uint64_t{limits.batch.max_tokens} * group / kRowItemRows + 2 * limits.batch.max_sequences + 1);
}

}  // namespace

std::uint64_t input_capacity(const PlanLimits& limits) {
  const std::uint64_t T = limits.batch.max_tokens, S = limits.batch.max_sequences;
  std::uint64_t bytes = 3 * round_up(4 * T) + round_up(4 * (S + 1)) + round_up(4 * T) + round_up(sizeof(WantedRow) * T);
  bytes += limits.batch.n_groups *
           (round_up(4 * S * std::bit_ceil(std::uint64_t{limits.batch.max_blocks_per_sequence})) + round_up(4 * T));
  for (const AttentionGeometry& geometry : limits.geometries) {
    bytes += round_up(sizeof(AttentionItem) * max_items(limits, geometry)) + 128;
  }
  return bytes + 1024;
}

std::uint64_t output_capacity(const PlanLimits& limits) {
  const std::uint64_t T = limits.batch.max_tokens, S = limits.batch.max_sequences;
  const std::uint64_t tops = S * std::min(kMaxLogprobs, limits.batch.vocabulary);
  return 2 * round_up(4 * S) + 2 * round_up(4 * tops) + round_up(4 * T) + round_up(8 * S);
}

StepPlan plan_step(const PlanLimits& limits, const StagedBatch& batch, const std::vector<std::uint32_t>& slot_logprobs,
                   std::vector<Wanted>& wanted, std::byte* input) {
  StepPlan plan;
  std::memset(&plan, 0, sizeof plan);
  const std::uint32_t T = batch.n_tokens, S = batch.n_sequences;
  plan.n_tokens = T;
  plan.n_sequences = S;
  Packer packer(input, input_capacity(limits));

  std::memcpy(packer.take<std::int32_t>(T, &plan.token_ids), batch.token_ids.data(), 4 * std::size_t{T});
  std::memcpy(packer.take<std::int32_t>(T, &plan.positions), batch.positions.data(), 4 * std::size_t{T});
  std::int32_t* input_rows = packer.take<std::int32_t>(T, &plan.input_rows);
  std::fill_n(input_rows, T, -1);
  for (std::uint32_t row = 0; row < S; ++row) input_rows[batch.cu_seqlens[row]] = batch.input_rows[row];
  std::memcpy(packer.take<std::int32_t>(std::uint64_t{S} + 1, &plan.cu_seqlens), batch.cu_seqlens.data(),
              4 * (std::size_t{S} + 1));

  // Wanted rows.
  wanted.clear();
  for (std::uint32_t row = 0; row < S; ++row) {
    const std::uint8_t flags = batch.row_flags[row];
    const std::int32_t end = batch.cu_seqlens[std::uint64_t{row} + 1];
    const bool all = (flags & (KV_ROW_LOGITS_ALL | KV_ROW_TARGETS)) != 0;
    for (std::int32_t t = all ? batch.cu_seqlens[row] : end - 1; t < end && flags != 0; ++t) {
      const bool last = t == end - 1;
      const bool returned = (flags & KV_ROW_LOGITS_ALL) != 0 || ((flags & KV_ROW_LOGITS_LAST) != 0 && last);
      wanted.push_back({t, static_cast<std::int32_t>(row), last, returned});
    }
    if ((flags & KV_ROW_SAMPLE) != 0) {
      plan.has_sampling = 1;
      plan.max_logprobs =
          std::max(plan.max_logprobs, slot_logprobs[static_cast<std::size_t>(batch.sampler_slots[row])]);
    }
    if ((flags & KV_ROW_HASH) != 0) plan.has_hash = 1;
    if ((flags & KV_ROW_TARGETS) != 0) plan.has_targets = 1;
  }
  plan.n_wanted = static_cast<std::uint32_t>(wanted.size());
  std::int32_t* wanted_tokens = packer.take<std::int32_t>(wanted.size(), &plan.wanted_tokens);
  WantedRow* rows = packer.take<WantedRow>(wanted.size(), &plan.wanted_rows);
  std::int32_t n_masks = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const Wanted& one = wanted[i];
    const auto row = static_cast<std::uint64_t>(one.sequence);
    const std::uint8_t flags = batch.row_flags[row];
    const bool samples = one.is_last && (flags & KV_ROW_SAMPLE) != 0;
    const bool masked = samples && row < batch.masks.size() && !batch.masks[row].empty();
    wanted_tokens[i] = one.token;
    rows[i] = {one.token,
               one.sequence,
               samples ? batch.sampler_slots[row] : -1,
               batch.output_indexes[row],
               batch.target_ids[static_cast<std::uint64_t>(one.token)],
               masked ? n_masks++ : -1,
               one.is_last && (flags & KV_ROW_HASH) != 0 ? 1 : 0,
               0};
  }

  // Block tables at a width that changes seldom, so that graphs of decoding steps stay usable.
  std::uint32_t longest = 1;
  for (std::uint32_t group = 0; group < limits.batch.n_groups; ++group) {
    const std::uint32_t given = batch.block_table_width[group], width = std::bit_ceil(given);
    plan.table_width[group] = width;
    longest = std::max(longest, width);
    std::int32_t* tables = packer.take<std::int32_t>(std::uint64_t{S} * width, &plan.tables[group]);
    for (std::uint32_t row = 0; row < S; ++row) {
      std::memcpy(tables + std::uint64_t{row} * width, batch.block_tables[group].data() + std::uint64_t{row} * given,
                  4 * std::size_t{given});
      std::fill_n(tables + std::uint64_t{row} * width + given, width - given, 0);
    }
    std::memcpy(packer.take<std::int32_t>(T, &plan.slots[group]), batch.slot_mapping[group].data(), 4 * std::size_t{T});
  }

  // Attention: rows of the sequences with few queries are split over spans while their states fit.
  plan.n_geometries = static_cast<std::uint32_t>(limits.geometries.size());
  for (std::uint32_t g = 0; g < plan.n_geometries; ++g) {
    const AttentionGeometry& geometry = limits.geometries[g];
    const std::uint32_t group = geometry.n_heads / geometry.n_kv_heads;
    const AttentionTiles tiles = tiles_of(limits, geometry);
    const auto per_split_item = static_cast<std::uint32_t>(tiles.split_rows);
    plan.n_splits[g] = longest * static_cast<std::uint32_t>(kBlockTokens / tiles.span_tokens);
    const std::uint64_t row_floats = std::uint64_t{plan.n_splits[g]} *
                                     static_cast<std::uint64_t>(state_floats(static_cast<std::int32_t>(geometry.head_dim)));
    std::uint64_t split_rows = 0;
    const auto rows_in = [&](std::uint32_t row) {
      return static_cast<std::uint32_t>(batch.cu_seqlens[std::uint64_t{row} + 1] - batch.cu_seqlens[row]) * group;
    };
    const auto item_count = [&](std::uint32_t n_rows, std::uint32_t per_item) {
      return std::uint64_t{geometry.n_kv_heads} * ((n_rows + per_item - 1) / per_item);
    };
    const auto cut = [&](AttentionItem* to, std::uint32_t row, std::uint32_t per_item) {
      const std::uint32_t n_rows = rows_in(row);
      std::uint32_t state_rows = static_cast<std::uint32_t>(split_rows) - n_rows * geometry.n_kv_heads;
      // The last rows see most: they begin first.
      for (std::uint32_t item = (n_rows + per_item - 1) / per_item; item-- > 0;) {
        const std::uint32_t first = item * per_item;
        for (std::uint32_t head = 0; head < geometry.n_kv_heads; ++head) {
          const std::uint32_t count = std::min(per_item, n_rows - first);
          const std::int32_t begin = batch.cu_seqlens[row];
          const auto position = [&](std::uint32_t r) {
            return batch.positions[static_cast<std::size_t>(begin) + (first + r) / group];
          };
          *to++ = {static_cast<std::int32_t>(row), static_cast<std::int32_t>(head), static_cast<std::int32_t>(first),
                   static_cast<std::int32_t>(count), begin, batch.positions[static_cast<std::size_t>(begin)],
                   position(0), position(count - 1), static_cast<std::int32_t>(state_rows)};
          state_rows += count;
        }
      }
      return to;
    };
    const auto splits = [&](std::uint32_t row) {
      const std::uint64_t n_rows = std::uint64_t{rows_in(row)} * geometry.n_kv_heads;
      if (rows_in(row) > kMostSplitRows || (split_rows + n_rows) * row_floats > limits.state_floats) return false;
      split_rows += n_rows;
      return true;
    };
    const std::uint32_t walk_rows = rows_of_walk(limits, geometry);
    std::uint64_t n_split = 0, n_walk = 0;
    for (std::uint32_t row = 0; row < S; ++row) {
      if (splits(row)) {
        n_split += item_count(rows_in(row), per_split_item);
      } else {
        n_walk += item_count(rows_in(row), walk_rows);
      }
    }
    plan.n_split_items[g] = static_cast<std::uint32_t>(n_split);
    plan.n_walk_items[g] = static_cast<std::uint32_t>(n_walk);
    plan.walk_rows[g] = walk_rows;
    AttentionItem* split = packer.take<AttentionItem>(n_split, &plan.split_items[g]);
    AttentionItem* walk = packer.take<AttentionItem>(n_walk, &plan.walk_items[g]);
    split_rows = 0;
    for (std::uint32_t row = 0; row < S; ++row) {
      if (splits(row)) {
        plan.split_rows[g] = std::max(plan.split_rows[g], std::min(rows_in(row), per_split_item));
        split = cut(split, row, per_split_item);
      } else {
        walk = cut(walk, row, walk_rows);
      }
    }
  }
  plan.input_bytes = packer.used();

  std::uint64_t at = 0;
  const auto place = [&](std::uint32_t& offset, std::uint64_t bytes) {
    offset = static_cast<std::uint32_t>(at);
    at = round_up(at + bytes);
  };
  const std::uint64_t tops = std::uint64_t{S} * plan.max_logprobs;
  place(plan.sampled, 4 * std::uint64_t{S});  // first: the next step reads it whatever its own plan is
  place(plan.logprobs, 4 * std::uint64_t{S});
  place(plan.top_ids, 4 * tops);
  place(plan.top_logprobs, 4 * tops);
  place(plan.targets, plan.has_targets != 0 ? 4 * std::uint64_t{T} : 0);
  place(plan.hashes, 8 * std::uint64_t{S});
  plan.output_bytes = static_cast<std::uint32_t>(at);
  return plan;
}

}  // namespace kv::cuda
