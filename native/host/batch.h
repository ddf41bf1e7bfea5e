// StagedBatch: a checked, private copy of one kv_batch, and the queue-side state that checking needs.
#pragma once

#include <cstdint>
#include <vector>

#include "abi/kvasir_abi.h"
#include "host/memory.h"
#include "host/sampler_slot.h"

namespace kv {

// What a batch is held against.
struct BatchLimits {
  std::uint32_t max_tokens;
  std::uint32_t max_sequences;
  std::uint32_t max_blocks_per_sequence;
  std::uint32_t n_sampler_slots;
  std::uint32_t vocabulary;
  std::uint32_t context_length;
  std::uint32_t n_groups;
  std::uint32_t n_blocks[KV_MAX_GROUPS];
  std::uint32_t window_tokens[KV_MAX_GROUPS];  // widest window of the group's layers, 0: full attention
};

// Capacities are those of the limits; a batch reuses one of a few.
struct StagedBatch {
  StagedBatch(MemoryLedger& ledger, const BatchLimits& limits);

  std::uint32_t n_tokens = 0;     // T
  std::uint32_t n_sequences = 0;  // S
  Buffer<std::int32_t> token_ids;                     // (T)
  Buffer<std::int32_t> positions;                     // (T)
  Buffer<std::int32_t> target_ids;                    // (T), -1 where none
  Buffer<std::int32_t> cu_seqlens;                    // (S+1)
  Buffer<std::int32_t> input_rows;                    // (S)
  Buffer<std::int32_t> sampler_slots;                 // (S)
  Buffer<std::int32_t> output_indexes;                // (S)
  Buffer<std::uint8_t> row_flags;                     // (S)
  std::uint32_t block_table_width[KV_MAX_GROUPS] = {};
  Buffer<std::int32_t> block_tables[KV_MAX_GROUPS];   // (S, width)
  Buffer<std::int32_t> slot_mapping[KV_MAX_GROUPS];   // (T)
  std::vector<std::vector<std::uint32_t>> masks;      // empty, or (S) of empty or ceil(V/32) words
  std::vector<SamplerSlot> samplers;
};

// Remembers what earlier accepted batches established: admitted slots, and which rows the last one samples.
class BatchGate {
 public:
  BatchGate(MemoryLedger& ledger, const BatchLimits& limits);

  // Throws and leaves everything as it was when the batch breaks the contract; else `staged` holds a copy of it.
  void stage(const kv_batch* batch, StagedBatch& staged);

 private:
  void check_sequences(const kv_batch& batch) const;
  void check_rows(const kv_batch& batch);
  void check_group(const kv_batch& batch, std::uint32_t group);
  void copy(const kv_batch& batch, StagedBatch& staged) const;

  BatchLimits limits_;
  std::vector<bool> admitted_;            // (n_sampler_slots)
  std::vector<std::uint32_t> slot_batch_; // (n_sampler_slots) last batch that samples with the slot
  std::uint32_t batch_number_ = 0;
  std::vector<bool> previous_samples_;    // (S of the last accepted batch)
  Buffer<std::int32_t> sorted_slots_;     // (T) scratch
};

}  // namespace kv
