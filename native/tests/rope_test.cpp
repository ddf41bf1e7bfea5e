// rope against its definition in float64, for both ways of pairing; dimensions past rotary_dim stay as they are.
#include <cmath>

#include "tests/check.h"
#include "tests/kernel_paths.h"
#include "tests/random_weights.h"

namespace {

using namespace kv::test;

KV_TEST("rope rotates each pair by its angle with equal bits on every path") {
  for (const std::int32_t rotary : {2, 6, 16, 64, 128}) {
    for (const kv_rope_style style : {KV_ROPE_HALVES, KV_ROPE_INTERLEAVED}) {
      const std::int32_t half = rotary / 2;
      const std::vector<float> head = random_floats(rotary + 5, static_cast<std::uint64_t>(rotary) + 7);
      std::vector<float> cosines, sines;
      for (std::int32_t i = 0; i < half; ++i) {
        cosines.push_back(static_cast<float>(std::cos(0.37 * i + 1)));
        sines.push_back(static_cast<float>(std::sin(0.37 * i + 1)));
      }
      std::vector<float> first;
      for (const auto* path : kernel_paths()) {
        std::vector<float> out = head;
        path->rope({out.data(), cosines.data(), sines.data(), rotary, style});
        for (std::int32_t i = 0; i < half; ++i) {
          const auto a = static_cast<std::size_t>(style == KV_ROPE_HALVES ? i : 2 * i);
          const auto b = static_cast<std::size_t>(style == KV_ROPE_HALVES ? i + half : 2 * i + 1);
          const auto at = static_cast<std::size_t>(i);
          const double x = static_cast<double>(head[a]) * cosines[at] - static_cast<double>(head[b]) * sines[at];
          const double y = static_cast<double>(head[b]) * cosines[at] + static_cast<double>(head[a]) * sines[at];
          KV_CHECK_MSG(std::fabs(out[a] - x) < 3e-7 && std::fabs(out[b] - y) < 3e-7, "%s pair %d", path->name, i);
        }
        for (auto i = static_cast<std::size_t>(rotary); i < head.size(); ++i) KV_CHECK(out[i] == head[i]);
        if (first.empty()) first = out;
        KV_CHECK(std::memcmp(first.data(), out.data(), out.size() * 4) == 0);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
