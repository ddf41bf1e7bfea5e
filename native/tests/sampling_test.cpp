// Sampling: the published vectors of its generator, each setting against a plain reference, frequencies of draws.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "host/logits_hash.h"
#include "host/random_stream.h"
#include "cpu/runtime/sampling.h"
#include "tests/check.h"
#include "tests/random_weights.h"
#include "tests/test_runner.h"

namespace {

using namespace kv::test;
using namespace kv::cpu;
using namespace kv;

const KernelTable& kernels() { return *select_kernels("auto"); }

SamplerSlot slot_of(kv_sampler sampler, std::uint32_t vocabulary) {
  check_sampler(sampler, 0, 8, vocabulary);
  return make_sampler_slot(sampler, vocabulary, 4096);
}

std::vector<double> frequencies(const SamplerSlot& slot, const std::vector<float>& logits, int draws) {
  MemoryLedger ledger(true);
  SamplingScratch scratch(ledger, static_cast<std::uint32_t>(logits.size()));
  std::vector<double> counts(logits.size(), 0.0);
  for (int i = 0; i < draws; ++i) {
    const std::int32_t id = sample_row(kernels(), slot, nullptr, i, logits.data(),
                                       static_cast<std::int64_t>(logits.size()), scratch);
    counts[static_cast<std::size_t>(id)] += 1.0 / draws;
  }
  return counts;
}

// The distribution the settings describe, computed by sorting everything.
std::vector<double> expected_distribution(const kv_sampler& params, const std::vector<float>& logits) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  if (params.top_k != 0) order.resize(std::min<std::size_t>(order.size(), params.top_k));
  std::vector<double> weights;
  for (const std::size_t id : order) {
    weights.push_back(std::exp((static_cast<double>(logits[id]) - logits[order[0]]) / params.temperature));
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::size_t kept = 0;
  for (double mass = 0; kept < order.size(); ++kept) {
    if (kept > 0 && (mass >= params.top_p * total || weights[kept] < params.min_p)) break;
    mass += weights[kept];
  }
  const double kept_total = std::accumulate(weights.begin(), weights.begin() + static_cast<std::ptrdiff_t>(kept), 0.0);
  std::vector<double> result(logits.size(), 0.0);
  for (std::size_t i = 0; i < kept; ++i) result[order[i]] = weights[i] / kept_total;
  return result;
}

KV_TEST("Philox4x32-10 gives its published vectors") {
  KV_CHECK((philox4x32({0, 0, 0, 0}, {0, 0}) ==
            std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t ones = 0xffffffff;
  KV_CHECK((philox4x32({ones, ones, ones, ones}, {ones, ones}) ==
            std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  KV_CHECK((philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
            std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

KV_TEST("greedy takes the highest logit and the lowest id among equals, at every size") {
  Random random(3);
  MemoryLedger ledger(true);
  for (const std::uint32_t V : {1u, 2u, 100u, 128u, 129u, 5000u}) {
    SamplingScratch scratch(ledger, V);
    const SamplerSlot slot = slot_of(default_sampler(0), V);
    for (int round = 0; round < 50; ++round) {
      std::vector<float> logits = random_floats(V, random.next());
      for (int i = 0; i < 3; ++i) logits[random.below(V)] = 2.0f;
      const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
      KV_CHECK(sample_row(kernels(), slot, nullptr, 0, logits.data(), V, scratch) == best);
    }
  }
}

KV_TEST("draws follow the distribution that temperature, top-k, top-p and min-p leave") {
  std::vector<float> logits = random_floats(300, 17);
  for (float& logit : logits) logit *= 4;
  struct Case {
    float temperature;
    std::uint32_t top_k;
    float top_p, min_p;
  };
  for (const Case& c : {Case{1, 0, 1, 0}, Case{0.7f, 0, 1, 0}, Case{1, 10, 1, 0}, Case{1.3f, 0, 0.6f, 0},
                        Case{1, 0, 1, 0.2f}, Case{0.8f, 40, 0.9f, 0.05f}, Case{1, 0, 0.999f, 0}, Case{1, 300, 1, 0}}) {
    kv_sampler params = default_sampler(0);
    params.seed = 42;
    params.temperature = c.temperature;
    params.top_k = c.top_k;
    params.top_p = c.top_p;
    params.min_p = c.min_p;
    const std::vector<double> expected = expected_distribution(params, logits);
    constexpr int kDraws = 20000;
    const std::vector<double> got = frequencies(slot_of(params, 300), logits, kDraws);
    for (std::size_t id = 0; id < logits.size(); ++id) {
      const double deviation = std::sqrt(expected[id] * (1 - expected[id]) / kDraws);
      KV_CHECK_MSG(expected[id] == 0 ? got[id] == 0 : std::fabs(got[id] - expected[id]) < 5 * deviation + 3.0 / kDraws,
                   "T=%g k=%u p=%g min=%g id=%zu: %g, expected %g", static_cast<double>(c.temperature), c.top_k,
                   static_cast<double>(c.top_p), static_cast<double>(c.min_p), id, got[id], expected[id]);
    }
  }
}

KV_TEST("a draw depends on the seed and the output index and on nothing else") {
  const std::vector<float> logits = random_floats(1000, 5);
  kv_sampler params = default_sampler(0);
  params.temperature = 1;
  params.seed = 7;
  MemoryLedger ledger(true);
  SamplingScratch scratch(ledger, 1000);
  const SamplerSlot slot = slot_of(params, 1000);
  params.seed = 8;
  const SamplerSlot other = slot_of(params, 1000);
  int differing_index = 0, differing_seed = 0;
  for (int i = 0; i < 100; ++i) {
    const auto draw = [&](const SamplerSlot& from, int index) {
      return sample_row(kernels(), from, nullptr, index, logits.data(), 1000, scratch);
    };
    KV_CHECK(draw(slot, i) == draw(slot, i));
    differing_index += draw(slot, i) != draw(slot, i + 1);
    differing_seed += draw(slot, i) != draw(other, i);
  }
  KV_CHECK(differing_index > 80 && differing_seed > 80);
}

KV_TEST("mask, bias and penalties change logits as defined, in that order") {
  const std::uint32_t V = 64;
  MemoryLedger ledger(true);
  SamplingScratch scratch(ledger, V);
  std::vector<float> logits(V, 0.0f);
  logits[3] = 4.0f;
  logits[5] = 3.9f;
  logits[7] = -1.0f;
  const auto greedy = [&](const kv_sampler& params, const std::uint32_t* mask) {
    return sample_row(kernels(), slot_of(params, V), mask, 0, logits.data(), V, scratch);
  };
  kv_sampler params = default_sampler(0);
  KV_CHECK(greedy(params, nullptr) == 3);
  const std::uint32_t mask[2] = {1u << 5 | 1u << 7, 0};
  KV_CHECK(greedy(params, mask) == 5);
  const std::int32_t bias_ids[] = {7, 3};
  const float bias_values[] = {100.0f, -std::numeric_limits<float>::infinity()};
  params.n_bias = 2;
  params.bias_ids = bias_ids;
  params.bias_values = bias_values;
  KV_CHECK(greedy(params, nullptr) == 7);
  const std::uint32_t without_seven[2] = {~(1u << 7), ~0u};
  KV_CHECK(greedy(params, without_seven) == 5);  // a bias never lifts a masked token

  params = default_sampler(0);
  const std::int32_t history[] = {3, 3, 7};
  params.history = history;
  params.n_history = 3;
  params.n_prompt = 3;
  params.frequency_penalty = 5;
  KV_CHECK(greedy(params, nullptr) == 3);  // frequency counts outputs only
  params.repetition_penalty = 1.5f;
  KV_CHECK(greedy(params, nullptr) == 5);  // 4 / 1.5 < 3.9
  params.repetition_penalty = 1;
  params.n_prompt = 1;
  params.frequency_penalty = 0.2f;  // one output of 3: 3.8
  KV_CHECK(greedy(params, nullptr) == 5);
  params.frequency_penalty = 0;
  params.presence_penalty = 0.05f;  // 3.95
  KV_CHECK(greedy(params, nullptr) == 3);
}

KV_TEST("logits that are no distribution still give a token of the vocabulary") {
  const std::uint32_t V = 200;
  MemoryLedger ledger(true);
  SamplingScratch scratch(ledger, V);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float fill : {std::nanf(""), -infinity, infinity}) {
    for (const float one : {0.0f, fill}) {
      std::vector<float> logits(V, fill);
      logits[150] = one;
      for (const float temperature : {0.0f, 1.0f}) {
        for (const std::uint32_t top_k : {0u, 5u}) {
          kv_sampler params = default_sampler(0);
          params.temperature = temperature;
          params.top_k = top_k;
          params.top_p = top_k == 0 ? 1.0f : 0.9f;
          const std::int32_t id = sample_row(kernels(), slot_of(params, V), nullptr, 0, logits.data(), V, scratch);
          KV_CHECK(id >= 0 && id < 200);
        }
      }
    }
  }
  const std::vector<float> lowest(V, -infinity);
  const std::uint32_t mask[7] = {0, 0, 1u << 4, 0, 0, 0, 0};
  KV_CHECK(sample_row(kernels(), slot_of(default_sampler(0), V), mask, 0, lowest.data(), V, scratch) == 68);
}

KV_TEST("log-probabilities and the likeliest tokens match float64") {
  const std::uint32_t V = 3000;
  std::vector<float> logits = random_floats(V, 23);
  for (float& logit : logits) logit *= 10;
  logits[17] = logits[2999];
  MemoryLedger ledger(true);
  SamplingScratch scratch(ledger, V);
  const RowDistribution distribution(kernels(), logits.data(), V, scratch);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  std::vector<std::int32_t> order(V);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  for (const std::uint32_t count : {1u, 20u, 24u, 256u}) {
    std::vector<std::int32_t> ids(count);
    std::vector<float> logprobs(count);
    distribution.top(count, ids.data(), logprobs.data());
    for (std::size_t i = 0; i < count; ++i) {
      const double expected = static_cast<double>(logits[static_cast<std::size_t>(order[i])]) - std::log(sum);
      KV_CHECK(ids[i] == order[i]);
      KV_CHECK(std::fabs(logprobs[i] - expected) < 1e-5);
    }
  }
}

KV_TEST("the hash sees every bit of every logit and the length") {
  std::vector<float> logits = random_floats(37, 9);
  const std::uint64_t before = hash_logits(logits.data(), logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    for (int bit = 0; bit < 32; ++bit) {
      std::uint32_t bits;
      std::memcpy(&bits, &logits[i], 4);
      const std::uint32_t flipped = bits ^ (1u << bit);
      std::memcpy(&logits[i], &flipped, 4);
      KV_CHECK(hash_logits(logits.data(), logits.size()) != before);
      std::memcpy(&logits[i], &bits, 4);
    }
  }
  logits.push_back(0.0f);
  KV_CHECK(hash_logits(logits.data(), logits.size()) != before);
}

}  // namespace

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
