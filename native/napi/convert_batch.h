// One step's arguments and results. The batch is borrowed from JavaScript's typed arrays for the duration of
// kv_runner_submit, which copies it; the result is packed on the submission thread into one allocation and copied from
// there into one fresh ArrayBuffer on the JavaScript thread.
#pragma once

#include "abi/kvasir_abi.h"
#include "napi/include_napi.h"

#include <cstddef>
#include <memory>
#include <vector>

namespace kv::node {

// kv_batch over JavaScript's memory: valid until control returns to JavaScript.
class BatchArguments {
 public:
  // Checks every array's type and length, so that the waist may trust extents; values are the backend's to judge.
  // Throws Refusal. `vocab` sizes the masks.
  BatchArguments(Napi::Value batch, uint32_t vocab);
  BatchArguments(const BatchArguments&) = delete;
  BatchArguments& operator=(const BatchArguments&) = delete;

  const kv_batch& get() const { return batch_; }

 private:
  void read_groups(const class Fields& fields);
  void read_masks(const class Fields& fields, uint32_t vocab);
  void read_samplers(const class Fields& fields);

  kv_batch batch_{};
  std::vector<kv_sampler> samplers_;
  std::vector<const uint32_t*> masks_;
};

// A step's result in one piece of memory, in the order of its sections: hashes u64 (S), sampled_ids i32 (S),
// sampled_logprobs f32 (S), top_ids i32 (S, K), top_logprobs f32 (S, K), logits_tokens u32 (R), target_logprobs f32
// (T or 0), logits f32 (R, V), stops u8 (S).
class PackedStep {
 public:
  // Submission thread. `n_tokens` is the batch's T.
  PackedStep(const kv_step_result& result, uint32_t n_tokens, uint32_t vocab);

  // JavaScript thread: an object of typed arrays over one ArrayBuffer.
  Napi::Value to_javascript(Napi::Env env) const;

 private:
  size_t n_sequences_, n_logits_rows_, max_logprobs_, n_targets_, vocab_;
  size_t bytes_;
  uint64_t execute_ns_;
  std::unique_ptr<std::byte[]> data_;
};

}  // namespace kv::node
