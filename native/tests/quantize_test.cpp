// quantize_activations against its definition, written out here value by value.
#include <cmath>
#include <limits>

#include "cpu/kernels/quantized_activations.h"
#include "tests/check.h"
#include "tests/kernel_paths.h"
#include "tests/random_weights.h"

namespace {

std::vector<std::byte> quantize(const kv::cpu::KernelTable& kernels, const std::vector<float>& x, std::int64_t tokens,
                                std::int64_t cols, std::int64_t step) {
  std::vector<std::byte> out(static_cast<std::size_t>(kv::cpu::quantized_activations_bytes(tokens, cols)), std::byte{0x5a});
  for (std::int64_t t = 0; t < tokens; t += step) {
    kernels.quantize_activations({x.data(), cols, tokens, cols, out.data()}, t, std::min(t + step, tokens));
  }
  return out;
}

}  // namespace

KV_TEST("quantize_activations rounds each block of 32 half to even and sums its codes") {
  for (std::int64_t cols : {32, 96, 576, 1024}) {
    const std::int64_t tokens = 7;
    std::vector<float> x = kv::test::random_activations(tokens, cols, static_cast<std::uint64_t>(cols));
    x[0] = 127.0f;  // scale 1: halves below are ties
    for (std::size_t i = 1; i < 32; ++i) x[i] = static_cast<float>(i) - 16.5f;
    for (const kv::cpu::KernelTable* kernels : kv::test::kernel_paths()) {
      std::vector<std::byte> buffer = quantize(*kernels, x, tokens, cols, tokens);
      const kv::cpu::QuantizedActivations q = kv::cpu::quantized_activations_view(buffer.data(), tokens, cols);
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t g = 0; g < cols / 32; ++g) {
          const float* group = x.data() + t * cols + g * 32;
          float amax = 0.0f;
          for (int i = 0; i < 32; ++i) amax = std::max(amax, std::fabs(group[i]));
          const float inverse = amax > 0.0f ? 127.0f / amax : 0.0f;
          std::int32_t sum = 0, half = 0;
          for (int i = 0; i < 32; ++i) {
            const int code = static_cast<int>(std::nearbyintf(group[i] * inverse));
            KV_CHECK(q.codes[t * q.code_stride + g * 32 + i] == code);
            sum += code;
            if (i < 16) half += code;
          }
          const std::int64_t at = t * q.group_stride + g;
          KV_CHECK(q.scales[at] == amax / 127.0f);
          KV_CHECK(q.sums[at] == sum);
          KV_CHECK(q.half_sums[at] == half);
          KV_CHECK(q.scaled_sums[at] == (amax / 127.0f) * static_cast<float>(sum));
        }
      }
      KV_CHECK(quantize(*kernels, x, tokens, cols, 2) == buffer);
      KV_CHECK(quantize(*kv::cpu::select_kernels("scalar"), x, tokens, cols, tokens) == buffer);
    }
  }
}

KV_TEST("quantize_activations gives scale NaN to a block with a NaN or an infinity and leaves the others alone") {
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                       -std::numeric_limits<float>::infinity()};
  for (const kv::cpu::KernelTable* kernels : kv::test::kernel_paths()) {
    for (float value : bad) {
      for (std::size_t place : {std::size_t{32}, std::size_t{47}, std::size_t{63}}) {
        std::vector<float> x = kv::test::random_floats(96, 3);
        x[place] = value;
        std::vector<std::byte> buffer = quantize(*kernels, x, 1, 96, 1);
        const kv::cpu::QuantizedActivations q = kv::cpu::quantized_activations_view(buffer.data(), 1, 96);
        KV_CHECK(std::isnan(q.scales[1]));
        KV_CHECK(std::isfinite(q.scales[0]) && std::isfinite(q.scales[2]));
      }
    }
  }
}

KV_TEST("quantize_activations makes zeros and vanishing values zero") {
  for (const kv::cpu::KernelTable* kernels : kv::test::kernel_paths()) {
    for (float value : {0.0f, -0.0f, 1e-38f, 1e-45f}) {
      std::vector<float> x(64, 0.0f);
      x[5] = value;
      std::vector<std::byte> buffer = quantize(*kernels, x, 1, 64, 1);
      const kv::cpu::QuantizedActivations q = kv::cpu::quantized_activations_view(buffer.data(), 1, 64);
      for (int i = 0; i < 64; ++i) KV_CHECK(q.codes[i] == 0);
      KV_CHECK(q.sums[0] == 0 && q.scales[0] >= 0.0f && q.scales[0] < 1e-38f);
    }
  }
}

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
