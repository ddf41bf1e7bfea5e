// StepOutput: what one step hands back, filled row by row as logits appear.
#pragma once

#include <cstdint>
#include <vector>

#include "host/batch.h"
#include "cpu/runtime/forward.h"
#include "cpu/runtime/sampling.h"
#include "cpu/runtime/workspace.h"

namespace kv::cpu {

class StepOutput final : public LogitsSink {
 public:
  StepOutput(MemoryLedger& ledger, const KernelTable& kernels, Workspace& workspace, const BatchLimits& limits,
             std::uint32_t n_threads);

  // Takes over the batch's admissions, fills the workspace's wanted rows and clears the results. Returns how many rows
  // of logits the step must compute. Throws KV_OUT_OF_MEMORY when the logits asked for do not fit.
  std::uint32_t begin(StagedBatch& batch);

  void take(int thread, std::uint32_t wanted, float* logits) override;

  // Valid until the next begin().
  kv_step_result result() const;

  // What row r sampled in the last step that finished; -1 where nothing was.
  std::int32_t sampled(std::uint32_t row) const { return sampled_ids_[row]; }
  // Marks the last step as failed: rows that read its samples fail as well.
  void forget_samples();

 private:
  std::uint32_t row_of(std::uint32_t wanted) const;
  void sample(int thread, std::uint32_t row, const float* logits);

  MemoryLedger& ledger_;
  const KernelTable& kernels_;
  Workspace& space_;
  const BatchLimits limits_;
  std::vector<SamplerSlot> slots_;         // (n_sampler_slots)
  std::vector<SamplingScratch> scratch_;   // (threads)
  const StagedBatch* batch_ = nullptr;
  std::uint32_t n_logits_rows_ = 0;
  std::uint32_t max_logprobs_ = 0;
  bool has_targets_ = false;
  Buffer<std::int32_t> sampled_ids_;       // (S)
  Buffer<float> sampled_logprobs_;         // (S)
  Buffer<std::uint8_t> stops_;             // (S)
  Buffer<std::int32_t> top_ids_;           // (S, max_logprobs_)
  Buffer<float> top_logprobs_;             // (S, max_logprobs_)
  Buffer<std::uint64_t> hashes_;           // (S)
  Buffer<float> target_logprobs_;          // (T)
  Buffer<std::int32_t> logits_index_;      // (T) row of logits_ for each wanted token, -1: nobody reads it
  Buffer<std::uint32_t> logits_tokens_;    // (T)
  Buffer<float> logits_;                   // grown on demand: only asking for logits costs memory
};

}  // namespace kv::cpu
