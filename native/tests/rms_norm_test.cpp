// rms_norm against its definition in float64; equal bits on every path; nothing written past n.
#include <cmath>

#include "tests/check.h"
#include "tests/kernel_paths.h"
#include "tests/random_weights.h"

namespace {

using namespace kv::test;

KV_TEST("rms_norm is (x / sqrt(mean(x^2) + epsilon)) * w, in place too, with equal bits on every path") {
  std::uint64_t seed = 1;
  for (const std::int64_t n : {1, 2, 15, 16, 17, 31, 64, 100, 576, 896, 4097}) {
    const std::vector<float> x = random_activations(1, n, ++seed);
    const std::vector<float> weight = random_floats(n, ++seed);
    double squares = 0;
    for (const float value : x) squares += static_cast<double>(value) * value;
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
    std::vector<float> first;
    for (const auto* path : kernel_paths()) {
      std::vector<float> y(static_cast<std::size_t>(n) + 8, -777.0f);
      path->rms_norm({x.data(), weight.data(), y.data(), n, 1e-5f});
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        const double expected = x[i] * inverse * weight[i];
        // Four roundings and a mean whose error grows with the square root of n / 16.
        KV_CHECK_MSG(std::fabs(y[i] - expected) <= 2e-6 * std::fabs(expected), "%s n=%ld i=%zu", path->name, n, i);
      }
      for (std::size_t i = static_cast<std::size_t>(n); i < y.size(); ++i) KV_CHECK(y[i] == -777.0f);
      if (first.empty()) first = y;
      KV_CHECK_MSG(std::memcmp(first.data(), y.data(), y.size() * 4) == 0, "%s n=%ld differs in bits", path->name, n);
      std::vector<float> in_place = x;
      path->rms_norm({in_place.data(), weight.data(), in_place.data(), n, 1e-5f});
      KV_CHECK(std::memcmp(in_place.data(), y.data(), in_place.size() * 4) == 0);
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
