// SamplerSlot: the sampling state of one sequence between its admission and the next one in its slot.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "abi/kvasir_abi.h"

namespace kv {

// Alternatives a row can ask for; far above what any API offers, small enough to reserve for every row.
inline constexpr std::uint32_t kMaxLogprobs = 256;

// How often each token occurred, for penalties. Open addressing with room for every token the sequence can still
// produce, so that counting never allocates.
class TokenCounts {
 public:
  struct Entry {
    std::int32_t token;    // -1: free
    std::uint32_t in_prompt;  // 1: occurs in the prompt
    std::uint32_t outputs;    // occurrences among the outputs
  };

  void reserve(std::uint64_t distinct_tokens);
  void add_prompt(std::int32_t token) { find(token).in_prompt = 1; }
  // Once full (a sequence that outgrew its own limit) further new tokens are not counted.
  void add_output(std::int32_t token);
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  Entry& find(std::int32_t token);

  std::vector<Entry> entries_;  // size is a power of two, or 0 when nothing is counted
  std::uint64_t used_ = 0;
};

struct SamplerSlot {
  kv_sampler params{};  // pointers cleared
  std::vector<std::pair<std::int32_t, float>> bias;
  std::vector<std::int32_t> stop_ids;
  TokenCounts counts;  // empty unless a penalty is set
};

// Throws KV_INVALID_ARGUMENT or KV_UNSUPPORTED; `index` is the admission's place in its batch.
void check_sampler(const kv_sampler& sampler, std::uint32_t index, std::uint32_t n_slots, std::uint32_t vocabulary);

// Copies what the sampler points to. context_length bounds the outputs that may still be counted.
SamplerSlot make_sampler_slot(const kv_sampler& sampler, std::uint32_t vocabulary, std::uint32_t context_length);

}  // namespace kv
