// TestRunner and BatchSpec: the C waist as tests like to call it.
#pragma once

#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "abi/kvasir_abi.h"
#include "tests/tiny_model.h"

namespace kv::test {

inline constexpr int kBk = 256;

// One row of a batch.
struct RowSpec {
  std::vector<std::int32_t> tokens;
  std::int32_t start = 0;                             // position of the first token
  std::vector<std::vector<std::int32_t>> tables;      // block ids per group
  std::uint8_t flags = KV_ROW_HASH;
  std::int32_t slot = -1;
  std::int32_t output_index = 0;
  std::int32_t input_row = -1;
  bool write = true;
  std::vector<std::int32_t> targets;                  // (tokens) or empty
};

inline kv_sampler default_sampler(std::uint32_t slot) {
  kv_sampler sampler{};
  sampler.size = sizeof sampler;
  sampler.slot = slot;
  sampler.top_p = 1;
  sampler.repetition_penalty = 1;
  sampler.adapter = -1;
  return sampler;
}

// Owns the arrays of one kv_batch; tests of hostile batches change them after build().
struct BatchSpec {
  std::vector<std::int32_t> token_ids, positions, cu_seqlens, context_lengths, input_rows, sampler_slots,
      output_indexes, target_ids;
  std::vector<std::uint8_t> row_flags;
  std::vector<std::vector<std::int32_t>> tables, slots;
  std::vector<kv_sampler> samplers;
  kv_batch batch{};

  BatchSpec(const std::vector<RowSpec>& rows, std::uint32_t n_groups, std::vector<kv_sampler> admitted = {})
      : tables(n_groups), slots(n_groups), samplers(std::move(admitted)) {
    std::vector<std::uint32_t> widths(n_groups, 1);
    for (const RowSpec& row : rows) {
      for (std::uint32_t g = 0; g < n_groups; ++g) {
        widths[g] = std::max(widths[g], static_cast<std::uint32_t>(row.tables[g].size()));
      }
    }
    cu_seqlens.push_back(0);
    for (const RowSpec& row : rows) {
      for (std::size_t i = 0; i < row.tokens.size(); ++i) {
        const std::int32_t position = row.start + static_cast<std::int32_t>(i);
        token_ids.push_back(row.tokens[i]);
        positions.push_back(position);
        target_ids.push_back(row.targets.empty() ? -1 : row.targets[i]);
        for (std::uint32_t g = 0; g < n_groups; ++g) {
          const std::int32_t block = row.tables[g][static_cast<std::size_t>(position / kBk)];
          slots[g].push_back(row.write ? block * kBk + position % kBk : -1);
        }
      }
      cu_seqlens.push_back(static_cast<std::int32_t>(token_ids.size()));
      context_lengths.push_back(row.start + static_cast<std::int32_t>(row.tokens.size()));
      input_rows.push_back(row.input_row);
      sampler_slots.push_back(row.slot);
      output_indexes.push_back(row.output_index);
      row_flags.push_back(row.flags);
      for (std::uint32_t g = 0; g < n_groups; ++g) {
        std::vector<std::int32_t> table = row.tables[g];
        table.resize(widths[g], -1);
        tables[g].insert(tables[g].end(), table.begin(), table.end());
      }
    }
    batch.size = sizeof batch;
    batch.n_tokens = static_cast<std::uint32_t>(token_ids.size());
    batch.n_sequences = static_cast<std::uint32_t>(rows.size());
    batch.n_groups = n_groups;
    for (std::uint32_t g = 0; g < n_groups; ++g) batch.block_table_width[g] = widths[g];
    point();
  }
  BatchSpec(const BatchSpec&) = delete;

  void point() {
    batch.token_ids = token_ids.data();
    batch.positions = positions.data();
    batch.cu_seqlens_q = cu_seqlens.data();
    batch.context_lengths = context_lengths.data();
    batch.input_rows = input_rows.data();
    batch.sampler_slots = sampler_slots.data();
    batch.output_indexes = output_indexes.data();
    batch.row_flags = row_flags.data();
    batch.target_ids = target_ids.data();
    for (std::size_t g = 0; g < tables.size(); ++g) {
      batch.block_tables[g] = tables[g].data();
      batch.slot_mapping[g] = slots[g].data();
    }
    batch.n_samplers = static_cast<std::uint32_t>(samplers.size());
    batch.samplers = samplers.data();
  }
};

// What a callback delivered.
struct Outcome {
  bool done = false;
  int calls = 0;
  std::int32_t status = KV_OK;
  std::string message;
  std::vector<std::int32_t> sampled, top_ids;
  std::vector<float> logprobs, top_logprobs, logits, targets;
  std::vector<std::uint8_t> stops;
  std::vector<std::uint64_t> hashes;
  std::vector<std::uint32_t> logits_tokens;
  std::uint32_t max_logprobs = 0;
};

inline kv_runner_options default_options() {
  kv_runner_options options{};
  options.size = sizeof options;
  options.block_tokens = kBk;
  for (std::uint32_t& n : options.n_blocks) n = 40;
  options.kv_dtype = KV_F16;
  options.max_batch_tokens = 2048;
  options.max_batch_sequences = 16;
  options.max_blocks_per_sequence = 16;
  options.n_sampler_slots = 8;
  options.n_threads = 1;
  options.poison_pool = 1;
  return options;
}

class TestRunner {
 public:
  TestRunner(const TinyModel& model, const kv_runner_options& options) : vocab_(model.model.vocab) {
    kv_error error{};
    error.size = sizeof error;
    status = kv_runner_create(&model.model, &options, nullptr, nullptr, &handle, &error);
    message = error.message;
  }
  ~TestRunner() { kv_runner_destroy(handle); }
  TestRunner(const TestRunner&) = delete;

  // Returns the submission's status; the outcome arrives in `outcome` unless it was refused.
  kv_status submit(const kv_batch& batch, Outcome& outcome) {
    kv_error error{};
    error.size = sizeof error;
    auto* call = new Call{this, &outcome, batch.n_tokens};
    const kv_status result = kv_runner_submit(handle, &batch, &TestRunner::on_step, call, &error);
    if (result != KV_OK) {
      delete call;
      outcome.status = result;
      outcome.message = error.message;
    }
    return result;
  }
  void wait(Outcome& outcome) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return outcome.done; });
  }
  Outcome step(const BatchSpec& spec) {
    Outcome outcome;
    if (submit(spec.batch, outcome) == KV_OK) wait(outcome);
    return outcome;
  }
  // Runs one of the block functions and waits for it.
  template <typename Start>
  Outcome blocks(Start&& start) {
    Outcome outcome;
    kv_error error{};
    error.size = sizeof error;
    Call call{this, &outcome, 0};
    outcome.status = start(&TestRunner::on_done, static_cast<void*>(&call), &error);
    outcome.message = error.message;
    if (outcome.status == KV_OK) wait(outcome);
    return outcome;
  }

  kv_runner* handle = nullptr;
  kv_status status = KV_OK;
  std::string message;

 private:
  struct Call {
    TestRunner* runner;
    Outcome* outcome;
    std::uint32_t n_tokens;
  };

  static void on_step(void* user, const kv_step_result* result, const kv_error* error) {
    const std::unique_ptr<Call> call(static_cast<Call*>(user));
    TestRunner& runner = *call->runner;
    Outcome& out = *call->outcome;
    const std::lock_guard lock(runner.mutex_);
    if (error != nullptr) {
      out.status = error->status;
      out.message = error->message;
    } else {
      const std::size_t S = result->n_sequences;
      out.max_logprobs = result->max_logprobs;
      out.sampled.assign(result->sampled_ids, result->sampled_ids + S);
      out.logprobs.assign(result->sampled_logprobs, result->sampled_logprobs + S);
      out.stops.assign(result->stops, result->stops + S);
      out.hashes.assign(result->hashes, result->hashes + S);
      out.top_ids.assign(result->top_ids, result->top_ids + S * result->max_logprobs);
      out.top_logprobs.assign(result->top_logprobs, result->top_logprobs + S * result->max_logprobs);
      if (result->n_logits_rows != 0) {
        out.logits.assign(result->logits, result->logits + std::size_t{result->n_logits_rows} * runner.vocab_);
      }
      out.logits_tokens.assign(result->logits_tokens, result->logits_tokens + result->n_logits_rows);
      if (result->target_logprobs != nullptr) {
        out.targets.assign(result->target_logprobs, result->target_logprobs + call->n_tokens);
      }
    }
    ++out.calls;
    out.done = true;
    runner.changed_.notify_all();
  }
  static void on_done(void* user, const kv_error* error) {
    auto* call = static_cast<Call*>(user);
    const std::lock_guard lock(call->runner->mutex_);
    if (error != nullptr) {
      call->outcome->status = error->status;
      call->outcome->message = error->message;
    }
    ++call->outcome->calls;
    call->outcome->done = true;
    call->runner->changed_.notify_all();
  }

  std::uint32_t vocab_;
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace kv::test
