// The gated activations and the reductions over logits against float64; the exponential through both.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "tests/check.h"
#include "tests/kernel_paths.h"
#include "tests/random_weights.h"

namespace {

using namespace kv::test;

double reference(kv_activation kind, double g, double u) {
  if (kind == KV_ACT_SILU) return g / (1 + std::exp(-g)) * u;
  if (kind == KV_ACT_GELU_TANH) {
    return 0.5 * g * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g))) * u;
  }
  g = std::min(g, 7.0);
  u = std::max(-7.0, std::min(u, 7.0));
  return g / (1 + std::exp(-1.702 * g)) * (u + 1);
}

KV_TEST("activations match float64 and have equal bits on every path and in any cut of the row") {
  for (const kv_activation kind : {KV_ACT_SILU, KV_ACT_GELU_TANH, KV_ACT_SWIGLU_OAI}) {
    const std::int64_t n = 333;
    std::vector<float> gate = random_floats(n, 3), up = random_floats(n, 4);
    for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= i % 3 == 0 ? 20.0f : 3.0f;
    gate[5] = 0;
    gate[6] = 200;
    gate[7] = -200;
    std::vector<float> first;
    for (const auto* path : kernel_paths()) {
      std::vector<float> out(static_cast<std::size_t>(n) + 4, -777.0f);
      path->activation({gate.data(), up.data(), out.data(), n, kind});
      for (std::size_t i = 0; i < gate.size(); ++i) {
        const double expected = reference(kind, gate[i], up[i]);
        // Where e^-z is large, z's own rounding is amplified: relative to |z| <= 200.
        KV_CHECK_MSG(std::fabs(out[i] - expected) <= 1e-6 + 2e-5 * std::fabs(expected), "%s kind %d gate %g: %g, not %g",
                     path->name, kind, static_cast<double>(gate[i]), static_cast<double>(out[i]), expected);
      }
      KV_CHECK(out[333] == -777.0f);
      if (first.empty()) first = out;
      KV_CHECK(std::memcmp(first.data(), out.data(), out.size() * 4) == 0);
      std::vector<float> cut = gate;
      for (const auto& [begin, end] : {std::pair<int, int>{0, 32}, {32, 160}, {160, 333}}) {
        path->activation({cut.data() + begin, up.data() + begin, cut.data() + begin, end - begin, kind});
      }
      KV_CHECK(std::memcmp(first.data(), cut.data(), cut.size() * 4) == 0);
    }
  }
}

// The exponential alone: a chunk of one logit sums to e^(x - maximum).
KV_TEST("the exponential stays within 2 ulp and ends in 0 and infinity") {
  Random random(11);
  for (const auto* path : kernel_paths()) {
    double worst = 0;
    for (int i = 0; i < 20000; ++i) {
      const float x = random.uniform() * 87.0f;
      float sum = 0;
      path->chunk_exp_sums(&x, 1, 0.0f, 1.0f, &sum);
      const double expected = std::exp(static_cast<double>(x));
      const double ulp = static_cast<double>(std::nextafter(static_cast<float>(expected), 1e38f)) -
                         static_cast<double>(static_cast<float>(expected));
      worst = std::max(worst, std::fabs(sum - expected) / ulp);
    }
    KV_CHECK_MSG(worst <= 2.0, "%s: %g ulp", path->name, worst);
    const float inputs[] = {0.0f, -88.0f, -1e30f, -std::numeric_limits<float>::infinity(), 89.0f};
    const float expected[] = {1.0f, 0.0f, 0.0f, 0.0f, std::numeric_limits<float>::infinity()};
    for (int i = 0; i < 5; ++i) {
      float sum = -1;
      path->chunk_exp_sums(&inputs[i], 1, 0.0f, 1.0f, &sum);
      KV_CHECK_MSG(sum == expected[i], "%s: e^%g gave %g", path->name, static_cast<double>(inputs[i]),
                   static_cast<double>(sum));
    }
  }
}

KV_TEST("chunk reductions and scaling match their definitions, tails included, with equal bits on every path") {
  for (const std::int64_t n : {1, 127, 128, 129, 1000}) {
    std::vector<float> logits = random_floats(n, static_cast<std::uint64_t>(n));
    for (float& logit : logits) logit *= 30;
    if (n == 1000) logits[700] = std::nanf("");
    std::vector<float> first;
    for (const auto* path : kernel_paths()) {
      const std::size_t chunks = static_cast<std::size_t>((n + 127) / 128);
      std::vector<float> maxima(chunks + 1, -5), sums(chunks + 1, -5), scaled = logits;
      path->chunk_maxima(logits.data(), n, maxima.data());
      path->chunk_exp_sums(logits.data(), n, 30.0f, 0.5f, sums.data());
      path->scale_logits(scaled.data(), n, 0.5f, 10.0f);
      for (std::size_t c = 0; c < chunks; ++c) {
        float most = -std::numeric_limits<float>::infinity();
        double sum = 0;
        for (std::size_t i = c * 128; i < std::min<std::size_t>(c * 128 + 128, static_cast<std::size_t>(n)); ++i) {
          if (logits[i] > most) most = logits[i];
          sum += std::exp((static_cast<double>(logits[i]) - 30) * 0.5);
          if (!std::isnan(logits[i])) {
            KV_CHECK(std::fabs(scaled[i] - 10 * std::tanh(logits[i] * 0.05)) < 1e-5);
          }
        }
        KV_CHECK(maxima[c] == most);
        KV_CHECK(std::isnan(sum) ? std::isnan(sums[c]) : std::fabs(sums[c] - sum) <= 1e-5 * sum);
      }
      KV_CHECK(maxima[chunks] == -5 && sums[chunks] == -5);
      if (n == 1000) continue;  // a NaN's payload is nobody's promise
      std::vector<float> all = sums;
      all.insert(all.end(), scaled.begin(), scaled.end());
      if (first.empty()) first = all;
      KV_CHECK(std::memcmp(first.data(), all.data(), all.size() * 4) == 0);
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
