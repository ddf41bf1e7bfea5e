// Sampling on the device against the CPU backend on the same logits: the same token for every setting, the same hash, and
// log-probabilities to 1e-5. What only this file can catch: a cut found by descent that is not the one sorting finds.
#include <bit>
#include <cmath>
#include <cstdlib>

#include "cpu/kernels/kernels.h"
#include "cpu/runtime/sampling.h"
#include "cuda/kernels/kernels.h"
#include "host/logits_hash.h"
#include "tests/check.h"
#include "tests/cuda_memory.h"
#include "tests/test_runner.h"

namespace {

using namespace kv::test;

struct Row {
  kv_sampler params;
  std::vector<std::int32_t> history;
  std::uint32_t n_prompt = 0;
  std::vector<std::int32_t> bias_ids;
  std::vector<float> biases;
  std::vector<std::uint32_t> mask;
  std::int32_t output_index = 0;
};

kv_sampler random_sampler(Random& random, std::uint32_t slot, std::uint32_t vocabulary) {
  kv_sampler params = default_sampler(slot);
  params.seed = random.next();
  params.temperature = random.below(5) == 0 ? 0.0f : 0.2f + 0.3f * static_cast<float>(random.below(6));
  const std::uint32_t ks[] = {0, 0, 1, 2, 40, 1000, vocabulary, vocabulary + 5};
  params.top_k = ks[random.below(8)];
  const float ps[] = {1.0f, 1.0f, 0.95f, 0.5f, 1e-6f, 0.999f};
  params.top_p = ps[random.below(6)];
  const float ms[] = {0.0f, 0.0f, 0.05f, 0.5f, 1.0f};
  params.min_p = ms[random.below(5)];
  params.n_logprobs = random.below(3) == 0 ? random.below(6) : 0;
  params.report_logprob = random.below(2);
  return params;
}

// Runs all rows in one call and compares each with the CPU.
void compare(std::vector<Row>& rows, const std::vector<float>& logits, std::int32_t V) {
  const auto n = static_cast<std::int32_t>(rows.size());
  const std::size_t words = static_cast<std::size_t>((V + 31) / 32), chunks = static_cast<std::size_t>((V + 127) / 128);
  std::vector<kv::cuda::SlotParams> slots;
  std::vector<kv::cuda::WantedRow> wanted;
  std::vector<std::uint32_t> masks;
  std::vector<kv::SamplerSlot> expected_slots;
  std::int32_t n_masks = 0, max_logprobs = 0;
  const OnDevice<std::uint32_t> counts(static_cast<std::size_t>(n * V));
  const OnDevice<float> biases(static_cast<std::size_t>(n * V));
  for (std::int32_t i = 0; i < n; ++i) {
    Row& row = rows[static_cast<std::size_t>(i)];
    kv_sampler& p = row.params;
    p.history = row.history.data();
    p.n_history = static_cast<std::uint32_t>(row.history.size());
    p.n_prompt = row.n_prompt;
    p.bias_ids = row.bias_ids.data();
    p.bias_values = row.biases.data();
    p.n_bias = static_cast<std::uint32_t>(row.bias_ids.size());
    expected_slots.push_back(kv::make_sampler_slot(p, static_cast<std::uint32_t>(V), 4096));
    const kv::SamplerSlot& slot = expected_slots.back();
    kv::cuda::clear_slot(counts.data() + i * V, biases.data() + i * V, V, nullptr);
    std::vector<std::int32_t> entries;
    for (const auto& entry : slot.counts.entries()) {
      if (entry.token < 0) continue;
      entries.push_back(entry.token);
      entries.push_back(static_cast<std::int32_t>((entry.in_prompt != 0 ? 0x80000000u : 0u) | entry.outputs));
    }
    const OnDevice<std::int32_t> counted(entries);
    kv::cuda::set_counts(counts.data() + i * V, counted.data(), static_cast<std::int32_t>(entries.size() / 2), nullptr);
    std::vector<std::int32_t> added;
    for (std::size_t b = 0; b < row.bias_ids.size(); ++b) {
      added.push_back(row.bias_ids[b]);
      added.push_back(std::bit_cast<std::int32_t>(row.biases[b]));
    }
    const OnDevice<std::int32_t> added_at(added);
    kv::cuda::add_biases(biases.data() + i * V, added_at.data(), static_cast<std::int32_t>(added.size() / 2), nullptr);
    cuda_ok(cudaDeviceSynchronize(), "admission");
    slots.push_back({p.seed, p.temperature, p.top_p, p.min_p, p.repetition_penalty, p.frequency_penalty,
                     p.presence_penalty, p.top_k, p.n_logprobs, p.report_logprob, added.empty() ? 0u : 1u,
                     slot.counts.entries().empty() ? 0u : 1u});
    wanted.push_back({i, i, i, row.output_index, i % 3 == 0 ? i : -1, row.mask.empty() ? -1 : n_masks++, 1, 0});
    masks.insert(masks.end(), row.mask.begin(), row.mask.end());
    max_logprobs = std::max(max_logprobs, static_cast<std::int32_t>(p.n_logprobs));
  }
  masks.resize(masks.size() + words);
  const OnDevice<float> logits_at(logits), modified(logits.size()), maxima(static_cast<std::size_t>(n) * chunks),
      sums(static_cast<std::size_t>(n) * chunks), logprobs(rows.size()), targets(rows.size()),
      top_logprobs(static_cast<std::size_t>(n * max_logprobs) + 1);
  const OnDevice<kv::cuda::WantedRow> wanted_at(wanted);
  const OnDevice<kv::cuda::SlotParams> slots_at(slots);
  const OnDevice<std::uint32_t> masks_at(masks);
  const OnDevice<std::int32_t> sampled(rows.size()), top_ids(static_cast<std::size_t>(n * max_logprobs) + 1);
  const OnDevice<std::uint64_t> hashes(rows.size());
  const kv::cuda::SampleArgs args{logits_at.data(), wanted_at.data(), slots_at.data(), counts.data(), biases.data(),
                                  masks_at.data(), modified.data(), maxima.data(), sums.data(), V, n, max_logprobs,
                                  sampled.data(), logprobs.data(), top_ids.data(), top_logprobs.data(), hashes.data(),
                                  targets.data()};
  kv::cuda::sample(args, nullptr);
  kv::cuda::hash_rows(args, nullptr);
  const std::vector<std::int32_t> got = sampled.read(), got_top = top_ids.read();
  const std::vector<float> got_logprobs = logprobs.read(), got_targets = targets.read(), got_tops = top_logprobs.read();
  const std::vector<std::uint64_t> got_hashes = hashes.read();

  kv::MemoryLedger ledger(true);
  kv::cpu::SamplingScratch scratch(ledger, static_cast<std::uint32_t>(V));
  const kv::cpu::KernelTable& kernels = *kv::cpu::select_kernels("auto");
  for (std::int32_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const Row& row = rows[at];
    const float* own = logits.data() + std::int64_t{i} * V;
    const std::int32_t expected = kv::cpu::sample_row(kernels, expected_slots[at], row.mask.empty() ? nullptr : row.mask.data(),
                                                      row.output_index, own, V, scratch);
    KV_CHECK_MSG(got[at] == expected, "row %d of %d values: %d, expected %d (T %g k %u p %g m %g)", i, V, got[at], expected,
                 static_cast<double>(row.params.temperature), row.params.top_k, static_cast<double>(row.params.top_p),
                 static_cast<double>(row.params.min_p));
    KV_CHECK(got_hashes[at] == kv::hash_logits(own, static_cast<std::uint64_t>(V)));
    const kv::cpu::RowDistribution distribution(kernels, own, V, scratch);
    if (row.params.report_logprob != 0 || row.params.n_logprobs != 0) {
      KV_CHECK(std::fabs(got_logprobs[at] - distribution.logprob(expected)) < 1e-5);
      std::vector<std::int32_t> ids(row.params.n_logprobs + 1);
      std::vector<float> values(row.params.n_logprobs + 1);
      distribution.top(row.params.n_logprobs, ids.data(), values.data());
      for (std::size_t j = 0; j < row.params.n_logprobs; ++j) {
        const std::size_t place = at * static_cast<std::size_t>(max_logprobs) + j;
        KV_CHECK(got_top[place] == ids[j] && std::fabs(got_tops[place] - values[j]) < 1e-5);
      }
    } else {
      KV_CHECK(std::isnan(got_logprobs[at]));
    }
    if (i % 3 == 0) {
      const float target = distribution.logprob(i);
      KV_CHECK(std::isnan(target) ? std::isnan(got_targets[at]) : std::fabs(got_targets[at] - target) < 1e-5f);
    }
  }
}

KV_TEST("the device draws the CPU's token under random settings, penalties, biases and masks") {
  Random random(77);
  // Under racecheck (KVASIR_TEST_SMALL set) a round of the largest vocabulary takes a minute.
  const bool is_small = std::getenv("KVASIR_TEST_SMALL") != nullptr;
  for (const std::int32_t V : {301, 4096, 50257}) {
    if (is_small && V > 4096) continue;
    for (int round = 0; round < (is_small ? 1 : 12); ++round) {
      std::vector<Row> rows(16);
      std::vector<float> logits = random_floats(std::int64_t{16} * V, random.next());
      const float spread = round % 3 == 0 ? 1.0f : round % 3 == 1 ? 8.0f : 30.0f;
      for (float& logit : logits) logit *= spread;
      for (std::size_t i = 0; i < rows.size(); ++i) {
        Row& row = rows[i];
        row.params = random_sampler(random, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(V));
        row.output_index = static_cast<std::int32_t>(random.below(5000));
        if (random.below(2) == 0) {
          row.params.repetition_penalty = 1.3f;
          row.params.frequency_penalty = 0.5f;
          row.params.presence_penalty = 0.25f;
          for (int j = 0; j < 200; ++j) row.history.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(V))));
          row.n_prompt = 120;
        }
        if (random.below(3) == 0) {
          for (int j = 0; j < 9; ++j) {
            row.bias_ids.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(V))));
            row.biases.push_back(5.0f * random.uniform());
          }
        }
        if (random.below(3) == 0) {
          for (std::int32_t word = 0; word < (V + 31) / 32; ++word) {
            row.mask.push_back(static_cast<std::uint32_t>(random.next() & random.next()));
          }
          row.mask[0] |= 2;
        }
      }
      compare(rows, logits, V);
    }
  }
}

KV_TEST("ties, infinities and rows that are not numbers are decided as on the CPU") {
  const std::int32_t V = 1000;
  std::vector<Row> rows(16);
  std::vector<float> logits(16 * 1000);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].params = default_sampler(static_cast<std::uint32_t>(i));
    rows[i].params.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    rows[i].params.top_k = i % 4 == 1 ? 5 : 0;
    rows[i].params.seed = i;
    for (std::size_t j = 0; j < 1000; ++j) {
      float value = 1.0f;                                   // all equal
      if (i / 4 == 1) value = j % 7 == 3 ? 2.0f : -2.0f;    // many equal maxima
      if (i / 4 == 2) value = -INFINITY;                    // nothing
      if (i / 4 == 3) value = j == 500 ? NAN : static_cast<float>(j % 13);
      logits[i * 1000 + j] = value;
    }
  }
  for (Row& row : rows) row.params.n_logprobs = 0;
  // Log-probabilities of such rows are NaN on both sides or not asked for.
  compare(rows, logits, V);
}

}  // namespace

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
