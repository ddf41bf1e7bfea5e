#include "host/sampler_slot.h"

#include <algorithm>
#include <cmath>

#include "common/checks.h"

namespace kv {

namespace {

bool has_penalty(const kv_sampler& sampler) {
  return sampler.repetition_penalty != 1.0f || sampler.frequency_penalty != 0.0f || sampler.presence_penalty != 0.0f;
}

void check_ids(const std::int32_t* ids, std::uint32_t count, std::uint32_t vocabulary, const char* name,
               std::uint32_t index) {
  check(count == 0 || ids != nullptr, "sampler %u: expected %u %s, found NULL", index, count, name);
  for (std::uint32_t i = 0; i < count; ++i) {
    check(ids[i] >= 0 && static_cast<std::uint32_t>(ids[i]) < vocabulary,
          "sampler %u: %s[%u] is %d, expected a token id below %u", index, name, i, ids[i], vocabulary);
  }
}

}  // namespace

void TokenCounts::reserve(std::uint64_t distinct_tokens) {
  std::uint64_t size = 16;
  while (size < 2 * distinct_tokens) size *= 2;
  entries_.assign(size, Entry{-1, 0, 0});
}

TokenCounts::Entry& TokenCounts::find(std::int32_t token) {
  const std::uint64_t mask = entries_.size() - 1;
  std::uint64_t at = (static_cast<std::uint32_t>(token) * 0x9E3779B9u) & mask;
  while (entries_[at].token != token) {
    if (entries_[at].token < 0) {
      entries_[at].token = token;
      ++used_;
      break;
    }
    at = (at + 1) & mask;
  }
  return entries_[at];
}

void TokenCounts::add_output(std::int32_t token) {
  if (entries_.empty() || used_ >= entries_.size() - 1) return;
  find(token).outputs += 1;
}

void check_sampler(const kv_sampler& sampler, std::uint32_t index, std::uint32_t n_slots, std::uint32_t vocabulary) {
  check(sampler.size == sizeof(kv_sampler), "sampler %u: expected size %u, found %u", index,
        static_cast<unsigned>(sizeof(kv_sampler)), sampler.size);
  check(sampler.slot < n_slots, "sampler %u: expected a slot below %u, found %u", index, n_slots, sampler.slot);
  check(std::isfinite(sampler.temperature) && sampler.temperature >= 0, "sampler %u: expected temperature >= 0, found %g",
        index, static_cast<double>(sampler.temperature));
  check(sampler.top_p > 0 && sampler.top_p <= 1, "sampler %u: expected 0 < top_p <= 1, found %g", index,
        static_cast<double>(sampler.top_p));
  check(sampler.min_p >= 0 && sampler.min_p <= 1, "sampler %u: expected 0 <= min_p <= 1, found %g", index,
        static_cast<double>(sampler.min_p));
  check(std::isfinite(sampler.repetition_penalty) && sampler.repetition_penalty > 0,
        "sampler %u: expected repetition_penalty > 0, found %g", index,
        static_cast<double>(sampler.repetition_penalty));
  check(std::isfinite(sampler.frequency_penalty) && std::isfinite(sampler.presence_penalty),
        "sampler %u: expected finite frequency and presence penalties", index);
  check(sampler.n_logprobs <= std::min(kMaxLogprobs, vocabulary), "sampler %u: expected n_logprobs up to %u, found %u",
        index, std::min(kMaxLogprobs, vocabulary), sampler.n_logprobs);
  check(sampler.report_logprob <= 1, "sampler %u: expected report_logprob 0 or 1, found %u", index,
        sampler.report_logprob);
  if (sampler.adapter != -1) {
    fail(KV_UNSUPPORTED, "sampler %u: this backend has no adapters, found %d; use -1", index, sampler.adapter);
  }
  check(sampler.n_prompt <= sampler.n_history, "sampler %u: n_prompt %u exceeds n_history %u", index, sampler.n_prompt,
        sampler.n_history);
  check_ids(sampler.history, sampler.n_history, vocabulary, "history", index);
  check_ids(sampler.bias_ids, sampler.n_bias, vocabulary, "bias_ids", index);
  check_ids(sampler.stop_ids, sampler.n_stop, vocabulary, "stop_ids", index);
  check(sampler.n_bias == 0 || sampler.bias_values != nullptr, "sampler %u: expected %u bias values, found NULL", index,
        sampler.n_bias);
  for (std::uint32_t i = 0; i < sampler.n_bias; ++i) {
    check(!std::isnan(sampler.bias_values[i]), "sampler %u: bias_values[%u] is not a number", index, i);
  }
}

SamplerSlot make_sampler_slot(const kv_sampler& sampler, std::uint32_t vocabulary, std::uint32_t context_length) {
  SamplerSlot slot;
  slot.params = sampler;
  for (std::uint32_t i = 0; i < sampler.n_bias; ++i) slot.bias.emplace_back(sampler.bias_ids[i], sampler.bias_values[i]);
  slot.stop_ids.assign(sampler.stop_ids, sampler.stop_ids + sampler.n_stop);
  std::sort(slot.stop_ids.begin(), slot.stop_ids.end());
  if (has_penalty(sampler)) {
    const std::uint64_t outputs = sampler.max_outputs == 0 ? context_length : sampler.max_outputs;
    slot.counts.reserve(std::min<std::uint64_t>(
        vocabulary, std::uint64_t{sampler.n_history} + std::min<std::uint64_t>(outputs, context_length)));
    for (std::uint32_t i = 0; i < sampler.n_history; ++i) {
      if (i < sampler.n_prompt) {
        slot.counts.add_prompt(sampler.history[i]);
      } else {
        slot.counts.add_output(sampler.history[i]);
      }
    }
  }
  slot.params.history = nullptr;
  slot.params.bias_ids = nullptr;
  slot.params.bias_values = nullptr;
  slot.params.stop_ids = nullptr;
  return slot;
}

}  // namespace kv
