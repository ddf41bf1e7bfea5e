#include "cpu/runtime/sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "host/random_stream.h"

namespace kv::cpu {

namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
// First and later numbers of candidates tried when top-p or min-p decide how many are needed.
constexpr std::int64_t kFirstCandidates = 64;
constexpr std::int64_t kCandidateGrowth = 8;

std::int64_t chunks_of(std::int64_t vocabulary) { return (vocabulary + kLogitChunk - 1) / kLogitChunk; }

// Orders by logit descending, then id ascending, when compared descending. NaN counts as the lowest logit.
std::uint64_t logit_key(float logit, std::int64_t id) {
  const float value = std::isnan(logit) ? kLowest : logit + 0.0f;  // -0 becomes 0
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return std::uint64_t{ordered} << 32 | (0xFFFFFFFFu - static_cast<std::uint32_t>(id));
}
std::int32_t id_of(std::uint64_t key) { return static_cast<std::int32_t>(0xFFFFFFFFu - static_cast<std::uint32_t>(key)); }

// The `count` highest logits as keys in scratch.keys, highest first; scratch.maxima holds the chunks' maxima. The
// count-th highest chunk maximum is a floor that at least `count` logits reach and few others do.
void select_top(const float* logits, std::int64_t vocabulary, std::int64_t count, SamplingScratch& scratch) {
  const std::int64_t chunks = chunks_of(vocabulary);
  std::uint64_t* keys = scratch.keys.data();
  std::int64_t n = 0;
  if (count < chunks) {
    float* sorted = scratch.sorted_maxima.data();
    std::copy(scratch.maxima.data(), scratch.maxima.data() + chunks, sorted);
    std::nth_element(sorted, sorted + (count - 1), sorted + chunks, std::greater<float>());
    const float floor = sorted[count - 1];
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      if (scratch.maxima[static_cast<std::uint64_t>(chunk)] < floor) continue;
      const std::int64_t end = std::min(vocabulary, (chunk + 1) * kLogitChunk);
      for (std::int64_t id = chunk * kLogitChunk; id < end; ++id) {
        if (logits[id] >= floor) keys[n++] = logit_key(logits[id], id);
      }
    }
  }
  if (n < count) {
    for (n = 0; n < vocabulary; ++n) keys[n] = logit_key(logits[n], n);
  }
  if (count < n) std::nth_element(keys, keys + (count - 1), keys + n, std::greater<std::uint64_t>());
  std::sort(keys, keys + count, std::greater<std::uint64_t>());
}

float highest(const SamplingScratch& scratch, std::int64_t vocabulary) {
  return *std::max_element(scratch.maxima.data(), scratch.maxima.data() + chunks_of(vocabulary));
}

std::int32_t first_allowed(const std::uint32_t* mask) {
  if (mask == nullptr) return 0;
  std::int32_t word = 0;
  while (mask[word] == 0) ++word;
  return word * 32 + std::countr_zero(mask[word]);
}

// Lowest id with the highest logit; the maxima of its chunks are in scratch.
std::int32_t argmax(const float* logits, std::int64_t vocabulary, const std::uint32_t* mask,
                    const SamplingScratch& scratch) {
  const float most = highest(scratch, vocabulary);
  // Nothing above -infinity: every logit is masked away or not a number.
  if (most == kLowest) return first_allowed(mask);
  std::int64_t chunk = 0;
  while (scratch.maxima[static_cast<std::uint64_t>(chunk)] != most) ++chunk;
  std::int64_t id = chunk * kLogitChunk;
  while (logits[id] != most) ++id;
  return static_cast<std::int32_t>(id);
}

bool is_plain(const SamplerSlot& slot, const std::uint32_t* mask) {
  return mask == nullptr && slot.bias.empty() && slot.counts.entries().empty();
}

void apply_modifiers(const SamplerSlot& slot, const std::uint32_t* mask, std::int64_t vocabulary, float* logits) {
  if (mask != nullptr) {
    for (std::int64_t id = 0; id < vocabulary; ++id) {
      if ((mask[id / 32] >> (id % 32) & 1u) == 0) logits[id] = kLowest;
    }
  }
  for (const auto& [id, value] : slot.bias) {
    if (logits[id] != kLowest) logits[id] += value;
  }
  const kv_sampler& params = slot.params;
  for (const TokenCounts::Entry& entry : slot.counts.entries()) {
    if (entry.token < 0) continue;
    float& logit = logits[entry.token];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (entry.outputs == 0) continue;
    logit -= params.frequency_penalty * static_cast<float>(entry.outputs);
    logit -= params.presence_penalty;
  }
}

// One draw from all of the vocabulary by cumulative probability in order of ids.
std::int32_t draw_from_all(const KernelTable& kernels, const float* logits, std::int64_t vocabulary, float maximum,
                           float inverse_temperature, double u, SamplingScratch& scratch) {
  kernels.chunk_exp_sums(logits, vocabulary, maximum, inverse_temperature, scratch.sums.data());
  const std::int64_t chunks = chunks_of(vocabulary);
  double total = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) total += scratch.sums[static_cast<std::uint64_t>(chunk)];
  if (!std::isfinite(total)) return argmax(logits, vocabulary, nullptr, scratch);
  double target = u * total;
  std::int64_t chosen = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const double sum = scratch.sums[static_cast<std::uint64_t>(chunk)];
    if (sum > 0) chosen = chunk;
    if (target < sum) break;
    if (chunk + 1 < chunks) target -= sum;
  }
  const double chunk_sum = scratch.sums[static_cast<std::uint64_t>(chosen)];
  const std::int64_t begin = chosen * kLogitChunk;
  const std::int64_t end = std::min(vocabulary, begin + kLogitChunk);
  double exact_sum = 0;
  for (std::int64_t id = begin; id < end; ++id) {
    exact_sum += std::exp((static_cast<double>(logits[id]) - maximum) * inverse_temperature);
  }
  double left = std::min(target / chunk_sum, 1.0) * exact_sum;
  std::int64_t last = begin;
  for (std::int64_t id = begin; id < end; ++id) {
    const double weight = std::exp((static_cast<double>(logits[id]) - maximum) * inverse_temperature);
    if (weight <= 0) continue;
    last = id;
    if (left < weight) break;
    left -= weight;
  }
  return static_cast<std::int32_t>(last);
}

// Draws among the likeliest candidates that top-k, top-p and min-p leave: a prefix of the tokens in order of logit.
std::int32_t draw_from_top(const KernelTable& kernels, const kv_sampler& params, const float* logits,
                           std::int64_t vocabulary, float maximum, float inverse_temperature, double u,
                           SamplingScratch& scratch) {
  const std::int64_t top_k = params.top_k == 0 ? vocabulary : std::min<std::int64_t>(params.top_k, vocabulary);
  const auto weight_of = [&](std::uint64_t key) {
    return std::exp((static_cast<double>(logits[id_of(key)]) - maximum) * inverse_temperature);
  };
  const std::uint64_t* keys = scratch.keys.data();
  // Top-p is a share of what top-k leaves.
  double mass = 0;
  std::int64_t count = top_k;
  if (params.top_k != 0) {
    select_top(logits, vocabulary, count, scratch);
    for (std::int64_t i = 0; i < count; ++i) mass += weight_of(keys[i]);
  } else {
    kernels.chunk_exp_sums(logits, vocabulary, maximum, inverse_temperature, scratch.sums.data());
    for (std::int64_t i = 0; i < chunks_of(vocabulary); ++i) mass += scratch.sums[static_cast<std::uint64_t>(i)];
    count = std::min(kFirstCandidates, vocabulary);
    select_top(logits, vocabulary, count, scratch);
  }
  if (!std::isfinite(mass)) return argmax(logits, vocabulary, nullptr, scratch);
  double kept_mass = 0;
  std::int64_t kept = 0;
  while (true) {
    kept_mass = 0;
    kept = 0;
    bool closed = false;
    while (kept < count && !closed) {
      const double weight = weight_of(keys[kept]);
      closed = kept > 0 && (weight < params.min_p || weight <= 0);
      if (closed) break;
      kept_mass += weight;
      ++kept;
      closed = params.top_p < 1 && kept_mass >= static_cast<double>(params.top_p) * mass;
    }
    if (closed || count >= top_k) break;
    count = std::min(top_k, count * kCandidateGrowth);
    select_top(logits, vocabulary, count, scratch);
  }
  double left = u * kept_mass;
  std::int64_t chosen = 0;
  for (; chosen + 1 < kept; ++chosen) {
    const double weight = weight_of(keys[chosen]);
    if (left < weight) break;
    left -= weight;
  }
  return id_of(keys[chosen]);
}

}  // namespace

SamplingScratch::SamplingScratch(MemoryLedger& ledger, std::uint32_t vocabulary)
    : logits(ledger, ledger.workspace_bytes, vocabulary, "sampling scratch"),
      maxima(ledger, ledger.workspace_bytes, static_cast<std::uint64_t>(chunks_of(vocabulary)), "sampling scratch"),
      sums(ledger, ledger.workspace_bytes, static_cast<std::uint64_t>(chunks_of(vocabulary)), "sampling scratch"),
      sorted_maxima(ledger, ledger.workspace_bytes, static_cast<std::uint64_t>(chunks_of(vocabulary)),
                    "sampling scratch"),
      keys(ledger, ledger.workspace_bytes, vocabulary, "sampling scratch") {}

RowDistribution::RowDistribution(const KernelTable& kernels, const float* logits, std::int64_t vocabulary,
                                 SamplingScratch& scratch)
    : logits_(logits), vocabulary_(vocabulary), scratch_(scratch) {
  kernels.chunk_maxima(logits, vocabulary, scratch.maxima.data());
  const float most = highest(scratch, vocabulary);
  kernels.chunk_exp_sums(logits, vocabulary, most, 1.0f, scratch.sums.data());
  double sum = 0;
  for (std::int64_t chunk = 0; chunk < chunks_of(vocabulary); ++chunk) {
    sum += scratch.sums[static_cast<std::uint64_t>(chunk)];
  }
  maximum_ = most;
  log_sum_ = std::log(sum);
}

float RowDistribution::logprob(std::int32_t token) const {
  return static_cast<float>(static_cast<double>(logits_[token]) - maximum_ - log_sum_);
}

void RowDistribution::top(std::uint32_t count, std::int32_t* ids, float* logprobs) const {
  if (count == 0) return;
  select_top(logits_, vocabulary_, count, scratch_);
  for (std::uint32_t i = 0; i < count; ++i) {
    ids[i] = id_of(scratch_.keys[i]);
    logprobs[i] = logprob(ids[i]);
  }
}

std::int32_t sample_row(const KernelTable& kernels, const SamplerSlot& slot, const std::uint32_t* mask,
                        std::int32_t output_index, const float* raw, std::int64_t vocabulary,
                        SamplingScratch& scratch) {
  const float* logits = raw;
  if (!is_plain(slot, mask)) {
    std::copy(raw, raw + vocabulary, scratch.logits.data());
    apply_modifiers(slot, mask, vocabulary, scratch.logits.data());
    logits = scratch.logits.data();
  }
  kernels.chunk_maxima(logits, vocabulary, scratch.maxima.data());
  const kv_sampler& params = slot.params;
  const float maximum = highest(scratch, vocabulary);
  if (params.temperature == 0 || params.top_k == 1 || !std::isfinite(maximum)) {
    return argmax(logits, vocabulary, mask, scratch);
  }
  // Bounded so that 0 * inverse_temperature stays 0.
  const float inverse_temperature = std::min(1.0f / params.temperature, 1e30f);
  const double u = uniform(params.seed, static_cast<std::uint32_t>(output_index));
  if (params.top_k == 0 && params.top_p >= 1 && params.min_p == 0) {
    return draw_from_all(kernels, logits, vocabulary, maximum, inverse_temperature, u, scratch);
  }
  return draw_from_top(kernels, params, logits, vocabulary, maximum, inverse_temperature, u, scratch);
}

}  // namespace kv::cpu
