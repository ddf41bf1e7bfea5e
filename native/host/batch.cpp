#include "host/batch.h"

#include <algorithm>
#include <cstring>

#include "common/checks.h"
#include "host/block_tokens.h"

namespace kv {

namespace {

constexpr std::uint8_t kKnownFlags =
    KV_ROW_SAMPLE | KV_ROW_LOGITS_LAST | KV_ROW_LOGITS_ALL | KV_ROW_HASH | KV_ROW_TARGETS;

std::uint32_t mask_words(std::uint32_t vocabulary) { return (vocabulary + 31) / 32; }

bool allows_a_token(const std::uint32_t* mask, std::uint32_t vocabulary) {
  for (std::uint32_t word = 0; word < mask_words(vocabulary); ++word) {
    const std::uint32_t left = vocabulary - word * 32;
    const std::uint32_t valid = left >= 32 ? ~0u : (1u << left) - 1;
    if ((mask[word] & valid) != 0) return true;
  }
  return false;
}

void copy_values(Buffer<std::int32_t>& to, const std::int32_t* from, std::uint64_t count) {
  if (count != 0) std::memcpy(to.data(), from, count * sizeof(std::int32_t));
}

}  // namespace

StagedBatch::StagedBatch(MemoryLedger& ledger, const BatchLimits& limits) {
  const auto ints = [&](std::uint64_t count) {
    return Buffer<std::int32_t>(ledger, ledger.workspace_bytes, count, "batch copies");
  };
  token_ids = ints(limits.max_tokens);
  positions = ints(limits.max_tokens);
  target_ids = ints(limits.max_tokens);
  cu_seqlens = ints(std::uint64_t{limits.max_sequences} + 1);
  input_rows = ints(limits.max_sequences);
  sampler_slots = ints(limits.max_sequences);
  output_indexes = ints(limits.max_sequences);
  row_flags = Buffer<std::uint8_t>(ledger, ledger.workspace_bytes, limits.max_sequences, "batch copies");
  for (std::uint32_t group = 0; group < limits.n_groups; ++group) {
    block_tables[group] = ints(std::uint64_t{limits.max_sequences} * limits.max_blocks_per_sequence);
    slot_mapping[group] = ints(limits.max_tokens);
  }
}

BatchGate::BatchGate(MemoryLedger& ledger, const BatchLimits& limits)
    : limits_(limits),
      admitted_(limits.n_sampler_slots, false),
      slot_batch_(limits.n_sampler_slots, 0),
      sorted_slots_(ledger, ledger.workspace_bytes, limits.max_tokens, "batch checks") {
  previous_samples_.reserve(limits.max_sequences);
}

void BatchGate::stage(const kv_batch* pointer, StagedBatch& staged) {
  check_struct(pointer, "kv_batch");
  const kv_batch& batch = *pointer;
  ++batch_number_;
  check_sequences(batch);
  for (std::uint32_t i = 0; i < batch.n_samplers; ++i) {
    check(batch.samplers != nullptr, "batch: expected %u samplers, found NULL", batch.n_samplers);
    check_sampler(batch.samplers[i], i, limits_.n_sampler_slots, limits_.vocabulary);
  }
  check_rows(batch);
  for (std::uint32_t group = 0; group < limits_.n_groups; ++group) check_group(batch, group);
  copy(batch, staged);
  for (std::uint32_t i = 0; i < batch.n_samplers; ++i) admitted_[batch.samplers[i].slot] = true;
  previous_samples_.assign(batch.n_sequences, false);
  for (std::uint32_t row = 0; row < batch.n_sequences; ++row) {
    previous_samples_[row] = (batch.row_flags[row] & KV_ROW_SAMPLE) != 0;
  }
}

void BatchGate::check_sequences(const kv_batch& batch) const {
  check(batch.n_tokens >= 1 && batch.n_tokens <= limits_.max_tokens, "batch: expected 1 to %u tokens, found %u",
        limits_.max_tokens, batch.n_tokens);
  check(batch.n_sequences >= 1 && batch.n_sequences <= limits_.max_sequences,
        "batch: expected 1 to %u sequences, found %u", limits_.max_sequences, batch.n_sequences);
  check(batch.n_groups == limits_.n_groups, "batch: expected %u layer groups, found %u", limits_.n_groups,
        batch.n_groups);
  check(batch.token_ids != nullptr && batch.positions != nullptr && batch.cu_seqlens_q != nullptr &&
            batch.context_lengths != nullptr && batch.sampler_slots != nullptr && batch.output_indexes != nullptr &&
            batch.row_flags != nullptr,
        "batch: token_ids, positions, cu_seqlens_q, context_lengths, sampler_slots, output_indexes and row_flags must "
        "not be NULL");
  check(batch.cu_seqlens_q[0] == 0, "cu_seqlens_q: expected 0 first, found %d", batch.cu_seqlens_q[0]);
  for (std::uint32_t row = 0; row < batch.n_sequences; ++row) {
    const std::int32_t begin = batch.cu_seqlens_q[row];
    const std::int32_t end = batch.cu_seqlens_q[row + 1];
    check(end > begin && static_cast<std::uint32_t>(end) <= batch.n_tokens,
          "cu_seqlens_q: row %u runs from %d to %d, expected at least one of the batch's %u tokens", row, begin, end,
          batch.n_tokens);
    const std::int32_t first = batch.positions[begin];
    check(first >= 0 && first <= static_cast<std::int32_t>(limits_.context_length),
          "positions: row %u begins at %d, expected 0 to %u", row, first, limits_.context_length);
    for (std::int32_t t = begin + 1; t < end; ++t) {
      check(batch.positions[t] == first + (t - begin), "positions: token %d of row %u is at %d, expected %d", t, row,
            batch.positions[t], first + (t - begin));
    }
    const std::int32_t context = first + (end - begin);
    check(batch.context_lengths[row] == context, "context_lengths: row %u has %d, its last position asks for %d", row,
          batch.context_lengths[row], context);
    check(static_cast<std::uint32_t>(context) <= limits_.context_length,
          "context_lengths: row %u has %d tokens, the model allows %u", row, context, limits_.context_length);
  }
  check(static_cast<std::uint32_t>(batch.cu_seqlens_q[batch.n_sequences]) == batch.n_tokens,
        "cu_seqlens_q: expected %u last, found %d", batch.n_tokens, batch.cu_seqlens_q[batch.n_sequences]);
}

void BatchGate::check_rows(const kv_batch& batch) {
  for (std::uint32_t row = 0; row < batch.n_sequences; ++row) {
    const std::int32_t begin = batch.cu_seqlens_q[row];
    const std::int32_t end = batch.cu_seqlens_q[row + 1];
    const std::int32_t input = batch.input_rows == nullptr ? -1 : batch.input_rows[row];
    check(input >= -1 && input < static_cast<std::int64_t>(previous_samples_.size()) &&
              (input < 0 || previous_samples_[static_cast<std::size_t>(input)]),
          "input_rows: row %u reads row %d, expected -1 or a row the previous batch (of %u rows) samples", row, input,
          static_cast<unsigned>(previous_samples_.size()));
    for (std::int32_t t = input >= 0 ? begin + 1 : begin; t < end; ++t) {
      check(batch.token_ids[t] >= 0 && static_cast<std::uint32_t>(batch.token_ids[t]) < limits_.vocabulary,
            "token_ids: token %d is %d, expected 0 to %u", t, batch.token_ids[t], limits_.vocabulary - 1);
    }
    const std::uint8_t flags = batch.row_flags[row];
    check((flags & ~kKnownFlags) == 0, "row_flags: row %u has unknown bits in %u", row, flags);
    const std::int32_t slot = batch.sampler_slots[row];
    check(slot >= -1 && slot < static_cast<std::int64_t>(limits_.n_sampler_slots),
          "sampler_slots: row %u has %d, expected -1 or a slot below %u", row, slot, limits_.n_sampler_slots);
    const std::uint32_t* mask = batch.masks == nullptr ? nullptr : batch.masks[row];
    if ((flags & KV_ROW_SAMPLE) != 0) {
      check(slot >= 0, "sampler_slots: row %u samples and needs a slot, found -1", row);
      bool known = admitted_[static_cast<std::size_t>(slot)];
      for (std::uint32_t i = 0; i < batch.n_samplers; ++i) {
        known = known || batch.samplers[i].slot == static_cast<std::uint32_t>(slot);
      }
      check(known, "sampler_slots: row %u uses slot %d, to which no sampler was admitted", row, slot);
      check(slot_batch_[static_cast<std::size_t>(slot)] != batch_number_,
            "sampler_slots: row %u uses slot %d, as another row of the batch does", row, slot);
      slot_batch_[static_cast<std::size_t>(slot)] = batch_number_;
      check(batch.output_indexes[row] >= 0, "output_indexes: row %u has %d, expected 0 or more", row,
            batch.output_indexes[row]);
      check(mask == nullptr || allows_a_token(mask, limits_.vocabulary), "masks: row %u allows no token", row);
    }
    if ((flags & KV_ROW_TARGETS) != 0) {
      check(batch.target_ids != nullptr, "target_ids: row %u asks for targets, found NULL", row);
      for (std::int32_t t = begin; t < end; ++t) {
        check(batch.target_ids[t] >= -1 && batch.target_ids[t] < static_cast<std::int64_t>(limits_.vocabulary),
              "target_ids: token %d has %d, expected -1 to %u", t, batch.target_ids[t], limits_.vocabulary - 1);
      }
    }
  }
}

void BatchGate::check_group(const kv_batch& batch, std::uint32_t group) {
  const std::uint32_t width = batch.block_table_width[group];
  check(width >= 1 && width <= limits_.max_blocks_per_sequence, "block_table_width[%u]: expected 1 to %u, found %u",
        group, limits_.max_blocks_per_sequence, width);
  const std::int32_t* tables = batch.block_tables[group];
  const std::int32_t* slots = batch.slot_mapping[group];
  check(tables != nullptr && slots != nullptr, "group %u: block_tables and slot_mapping must not be NULL", group);
  const std::int64_t window = limits_.window_tokens[group];
  std::uint32_t n_written = 0;
  for (std::uint32_t row = 0; row < batch.n_sequences; ++row) {
    const std::int32_t begin = batch.cu_seqlens_q[row];
    const std::int32_t* table = tables + std::size_t{row} * width;
    const std::int64_t context = batch.context_lengths[row];
    check((context + kBlockTokens - 1) / kBlockTokens <= width,
          "block_tables[%u]: row %u needs %lld blocks, the table is %u wide", group, row,
          static_cast<long long>((context + kBlockTokens - 1) / kBlockTokens), width);
    const std::int64_t oldest = window == 0 ? 0 : std::max<std::int64_t>(0, batch.positions[begin] - window + 1);
    for (std::int64_t index = oldest / kBlockTokens; index * kBlockTokens < context; ++index) {
      check(table[index] >= 0 && static_cast<std::uint32_t>(table[index]) < limits_.n_blocks[group],
            "block_tables[%u]: block %lld of row %u is %d, expected 0 to %u", group, static_cast<long long>(index), row,
            table[index], limits_.n_blocks[group] - 1);
    }
    for (std::int32_t t = begin; t < batch.cu_seqlens_q[row + 1]; ++t) {
      if (slots[t] == -1) continue;
      const std::int32_t position = batch.positions[t];
      const std::int64_t expected =
          std::int64_t{table[position / kBlockTokens]} * kBlockTokens + position % kBlockTokens;
      check(slots[t] == expected, "slot_mapping[%u]: token %d has slot %d, its block table says %lld (or -1)", group, t,
            slots[t], static_cast<long long>(expected));
      sorted_slots_[n_written++] = slots[t];
    }
  }
  std::sort(sorted_slots_.data(), sorted_slots_.data() + n_written);
  for (std::uint32_t i = 1; i < n_written; ++i) {
    check(sorted_slots_[i] != sorted_slots_[i - 1], "slot_mapping[%u]: slot %d is written twice", group,
          sorted_slots_[i]);
  }
}

void BatchGate::copy(const kv_batch& batch, StagedBatch& staged) const {
  const std::uint32_t T = batch.n_tokens;
  const std::uint32_t S = batch.n_sequences;
  std::vector<SamplerSlot> samplers;
  for (std::uint32_t i = 0; i < batch.n_samplers; ++i) {
    samplers.push_back(make_sampler_slot(batch.samplers[i], limits_.vocabulary, limits_.context_length));
  }
  std::vector<std::vector<std::uint32_t>> masks;
  if (batch.masks != nullptr) {
    masks.resize(S);
    for (std::uint32_t row = 0; row < S; ++row) {
      if (batch.masks[row] == nullptr || (batch.row_flags[row] & KV_ROW_SAMPLE) == 0) continue;
      masks[row].assign(batch.masks[row], batch.masks[row] + mask_words(limits_.vocabulary));
    }
  }
  staged.samplers = std::move(samplers);
  staged.masks = std::move(masks);
  staged.n_tokens = T;
  staged.n_sequences = S;
  copy_values(staged.token_ids, batch.token_ids, T);
  copy_values(staged.positions, batch.positions, T);
  copy_values(staged.cu_seqlens, batch.cu_seqlens_q, std::uint64_t{S} + 1);
  copy_values(staged.sampler_slots, batch.sampler_slots, S);
  copy_values(staged.output_indexes, batch.output_indexes, S);
  std::memcpy(staged.row_flags.data(), batch.row_flags, S);
  for (std::uint32_t row = 0; row < S; ++row) {
    staged.input_rows[row] = batch.input_rows == nullptr ? -1 : batch.input_rows[row];
    const bool targets = (batch.row_flags[row] & KV_ROW_TARGETS) != 0;
    for (std::int32_t t = batch.cu_seqlens_q[row]; t < batch.cu_seqlens_q[row + 1]; ++t) {
      staged.target_ids[static_cast<std::uint64_t>(t)] = targets ? batch.target_ids[t] : -1;
    }
  }
  for (std::uint32_t group = 0; group < limits_.n_groups; ++group) {
    const std::uint32_t width = batch.block_table_width[group];
    staged.block_table_width[group] = width;
    copy_values(staged.block_tables[group], batch.block_tables[group], std::uint64_t{S} * width);
    copy_values(staged.slot_mapping[group], batch.slot_mapping[group], T);
  }
}

}  // namespace kv
