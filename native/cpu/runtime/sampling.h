// Sampling: one row of logits to one token, as its slot asks.
//
// Order: mask, bias, repetition (prompt and output: positive logits divided, negative multiplied), frequency and
// presence penalties (output), temperature, top-k, top-p, min-p, draw. Equal logits give equal tokens: ties go to the
// lowest id and the draw depends on (seed, output index) alone.
#pragma once

#include <cstdint>

#include "cpu/kernels/kernels.h"
#include "host/memory.h"
#include "host/sampler_slot.h"

namespace kv::cpu {

// Scratch of one thread.
struct SamplingScratch {
  SamplingScratch(MemoryLedger& ledger, std::uint32_t vocabulary);

  Buffer<float> logits;          // (V) after mask, bias and penalties
  Buffer<float> maxima;          // (chunks) of kLogitChunk logits
  Buffer<float> sums;            // (chunks)
  Buffer<float> sorted_maxima;   // (chunks)
  Buffer<std::uint64_t> keys;    // (V) candidates, see logit_key
};

// The unmodified distribution of a row of raw logits.
class RowDistribution {
 public:
  RowDistribution(const KernelTable& kernels, const float* logits, std::int64_t vocabulary, SamplingScratch& scratch);
  // Natural logarithm of the token's probability; NaN when the logits are no distribution.
  float logprob(std::int32_t token) const;
  // The `count` likeliest tokens, likeliest first.
  void top(std::uint32_t count, std::int32_t* ids, float* logprobs) const;

 private:
  const float* logits_;
  std::int64_t vocabulary_;
  SamplingScratch& scratch_;
  double maximum_;
  double log_sum_;
};

// logits: (V) raw, left as they are. mask: ceil(V/32) words or nullptr.
std::int32_t sample_row(const KernelTable& kernels, const SamplerSlot& slot, const std::uint32_t* mask,
                        std::int32_t output_index, const float* logits, std::int64_t vocabulary,
                        SamplingScratch& scratch);

}  // namespace kv::cpu
