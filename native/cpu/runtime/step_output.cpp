#include "cpu/runtime/step_output.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "common/checks.h"
#include "host/logits_hash.h"

namespace kv::cpu {

namespace {

constexpr float kNotAsked = std::numeric_limits<float>::quiet_NaN();
// A larger buffer of returned logits is given back once the step after it begins.
constexpr std::uint64_t kKeptLogitsBytes = std::uint64_t{64} << 20;

bool has(std::uint8_t flags, int flag) { return (flags & flag) != 0; }

}  // namespace

StepOutput::StepOutput(MemoryLedger& ledger, const KernelTable& kernels, Workspace& workspace,
                       const BatchLimits& limits, std::uint32_t n_threads)
    : ledger_(ledger), kernels_(kernels), space_(workspace), limits_(limits), slots_(limits.n_sampler_slots) {
  for (std::uint32_t i = 0; i < n_threads; ++i) scratch_.emplace_back(ledger, limits.vocabulary);
  const std::uint64_t S = limits.max_sequences;
  const std::uint64_t T = limits.max_tokens;
  const char* what = "step results";
  sampled_ids_ = Buffer<std::int32_t>(ledger, ledger.workspace_bytes, S, what);
  sampled_logprobs_ = Buffer<float>(ledger, ledger.workspace_bytes, S, what);
  stops_ = Buffer<std::uint8_t>(ledger, ledger.workspace_bytes, S, what);
  const std::uint64_t tops = buffer_product(what, S, std::min(kMaxLogprobs, limits.vocabulary));
  top_ids_ = Buffer<std::int32_t>(ledger, ledger.workspace_bytes, tops, what);
  top_logprobs_ = Buffer<float>(ledger, ledger.workspace_bytes, tops, what);
  hashes_ = Buffer<std::uint64_t>(ledger, ledger.workspace_bytes, S, what);
  target_logprobs_ = Buffer<float>(ledger, ledger.workspace_bytes, T, what);
  logits_index_ = Buffer<std::int32_t>(ledger, ledger.workspace_bytes, T, what);
  logits_tokens_ = Buffer<std::uint32_t>(ledger, ledger.workspace_bytes, T, what);
  forget_samples();
}

std::uint32_t StepOutput::begin(StagedBatch& batch) {
  batch_ = &batch;
  for (SamplerSlot& sampler : batch.samplers) {
    const std::uint32_t slot = sampler.params.slot;
    slots_[slot] = std::move(sampler);
  }
  batch.samplers.clear();

  std::uint32_t n_wanted = 0;
  n_logits_rows_ = 0;
  max_logprobs_ = 0;
  has_targets_ = false;
  for (std::uint32_t row = 0; row < batch.n_sequences; ++row) {
    space_.wanted_begin[row] = static_cast<std::int32_t>(n_wanted);
    const std::uint8_t flags = batch.row_flags[row];
    const std::int32_t end = batch.cu_seqlens[std::uint64_t{row} + 1];
    const bool all = has(flags, KV_ROW_LOGITS_ALL | KV_ROW_TARGETS);
    for (std::int32_t t = all ? batch.cu_seqlens[row] : end - 1; t < end && flags != 0; ++t) {
      const bool returned = has(flags, KV_ROW_LOGITS_ALL) || (has(flags, KV_ROW_LOGITS_LAST) && t == end - 1);
      space_.wanted_tokens[n_wanted] = t;
      space_.wanted_positions[n_wanted] = batch.positions[static_cast<std::uint64_t>(t)];
      logits_index_[n_wanted] = returned ? static_cast<std::int32_t>(n_logits_rows_) : -1;
      if (returned) logits_tokens_[n_logits_rows_++] = static_cast<std::uint32_t>(t);
      ++n_wanted;
    }
    if (has(flags, KV_ROW_SAMPLE)) {
      const auto slot = static_cast<std::size_t>(batch.sampler_slots[row]);
      max_logprobs_ = std::max(max_logprobs_, slots_[slot].params.n_logprobs);
    }
    has_targets_ = has_targets_ || has(flags, KV_ROW_TARGETS);
  }
  space_.wanted_begin[batch.n_sequences] = static_cast<std::int32_t>(n_wanted);

  const std::uint64_t S = batch.n_sequences;
  std::fill_n(sampled_ids_.data(), S, -1);
  std::fill_n(sampled_logprobs_.data(), S, kNotAsked);
  std::fill_n(stops_.data(), S, static_cast<std::uint8_t>(KV_STOP_NONE));
  std::fill_n(top_ids_.data(), S * max_logprobs_, -1);
  std::fill_n(top_logprobs_.data(), S * max_logprobs_, kNotAsked);
  std::fill_n(hashes_.data(), S, std::uint64_t{0});
  if (has_targets_) std::fill_n(target_logprobs_.data(), batch.n_tokens, kNotAsked);
  const std::uint64_t needed = buffer_product("returned logits", n_logits_rows_, limits_.vocabulary);
  if (needed > logits_.size() || logits_.size() * sizeof(float) > kKeptLogitsBytes) {
    logits_ = Buffer<float>();
    if (needed != 0) logits_ = Buffer<float>(ledger_, ledger_.workspace_bytes, needed, "returned logits");
  }
  return n_wanted;
}

void StepOutput::take(int thread, std::uint32_t wanted, float* logits) {
  const std::int32_t token = space_.wanted_tokens[wanted];
  const std::uint32_t row = row_of(wanted);
  const std::uint64_t V = limits_.vocabulary;
  const std::uint8_t flags = batch_->row_flags[row];
  if (logits_index_[wanted] >= 0) {
    std::memcpy(logits_.data() + static_cast<std::uint64_t>(logits_index_[wanted]) * V, logits, V * sizeof(float));
  }
  const std::int32_t target = batch_->target_ids[static_cast<std::uint64_t>(token)];
  if (target >= 0) {
    const RowDistribution distribution(kernels_, logits, static_cast<std::int64_t>(V),
                                       scratch_[static_cast<std::size_t>(thread)]);
    target_logprobs_[static_cast<std::uint64_t>(token)] = distribution.logprob(target);
  }
  if (token != batch_->cu_seqlens[std::uint64_t{row} + 1] - 1) return;
  if (has(flags, KV_ROW_HASH)) hashes_[row] = hash_logits(logits, V);
  if (has(flags, KV_ROW_SAMPLE)) sample(thread, row, logits);
}

void StepOutput::sample(int thread, std::uint32_t row, const float* logits) {
  const auto V = static_cast<std::int64_t>(limits_.vocabulary);
  SamplingScratch& scratch = scratch_[static_cast<std::size_t>(thread)];
  SamplerSlot& slot = slots_[static_cast<std::size_t>(batch_->sampler_slots[row])];
  const bool masked = row < batch_->masks.size() && !batch_->masks[row].empty();
  const std::int32_t output_index = batch_->output_indexes[row];
  const std::int32_t id = sample_row(kernels_, slot, masked ? batch_->masks[row].data() : nullptr, output_index, logits,
                                     V, scratch);
  if (slot.params.report_logprob != 0 || slot.params.n_logprobs != 0) {
    const RowDistribution distribution(kernels_, logits, V, scratch);
    sampled_logprobs_[row] = distribution.logprob(id);
    const std::uint64_t first = std::uint64_t{row} * max_logprobs_;
    distribution.top(slot.params.n_logprobs, top_ids_.data() + first, top_logprobs_.data() + first);
  }
  slot.counts.add_output(id);
  sampled_ids_[row] = id;
  if (std::binary_search(slot.stop_ids.begin(), slot.stop_ids.end(), id)) {
    stops_[row] = KV_STOP_TOKEN;
  } else if (slot.params.max_outputs != 0 &&
             static_cast<std::uint32_t>(output_index) >= slot.params.max_outputs - 1) {
    stops_[row] = KV_STOP_LENGTH;
  }
}

std::uint32_t StepOutput::row_of(std::uint32_t wanted) const {
  const std::int32_t* begins = space_.wanted_begin.data();
  const std::int32_t* after =
      std::upper_bound(begins, begins + batch_->n_sequences + 1, static_cast<std::int32_t>(wanted));
  return static_cast<std::uint32_t>(after - begins) - 1;
}

kv_step_result StepOutput::result() const {
  kv_step_result result{};
  result.size = sizeof result;
  result.n_sequences = batch_->n_sequences;
  result.n_logits_rows = n_logits_rows_;
  result.max_logprobs = max_logprobs_;
  result.sampled_ids = sampled_ids_.data();
  result.sampled_logprobs = sampled_logprobs_.data();
  result.stops = stops_.data();
  result.top_ids = top_ids_.data();
  result.top_logprobs = top_logprobs_.data();
  result.logits = logits_.data();
  result.logits_tokens = logits_tokens_.data();
  result.hashes = hashes_.data();
  result.target_logprobs = has_targets_ ? target_logprobs_.data() : nullptr;
  return result;
}

void StepOutput::forget_samples() { std::fill_n(sampled_ids_.data(), sampled_ids_.size(), -1); }

}  // namespace kv::cpu
