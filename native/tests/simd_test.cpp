// The conversions that every path must round alike, seen through dequantize_row and written out here by bits.
#include <cmath>
#include <cstring>

#include "tests/check.h"
#include "tests/kernel_paths.h"

namespace {

std::uint32_t bits_of(float f) {
  std::uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}

double value_of_f16(std::uint32_t h) {
  const int exponent = static_cast<int>((h >> 10) & 31u);
  const double mantissa = static_cast<double>(h & 1023u);
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024.0 + mantissa, exponent - 25);
  return (h & 0x8000u) != 0 ? -magnitude : magnitude;
}

}  // namespace

KV_TEST("every f16 and bf16 value converts to float32 exactly on every path") {
  std::vector<std::uint16_t> all(65536);
  for (std::uint32_t h = 0; h < 65536; ++h) all[h] = static_cast<std::uint16_t>(h);
  const std::byte* row = reinterpret_cast<const std::byte*>(all.data());
  for (const kv::cpu::KernelTable* kernels : kv::test::kernel_paths()) {
    std::vector<float> out(65536);
    kernels->dequantize_row(KV_F16, row, 65536, out.data());
    for (std::uint32_t h = 0; h < 65536; ++h) {
      if (((h >> 10) & 31u) == 31) {
        const bool nan = (h & 1023u) != 0;
        KV_CHECK(nan ? std::isnan(out[h]) : std::isinf(out[h]) && std::signbit(out[h]) == ((h & 0x8000u) != 0));
      } else {
        KV_CHECK(bits_of(out[h]) == bits_of(static_cast<float>(value_of_f16(h))));
      }
    }
    kernels->dequantize_row(KV_BF16, row, 65536, out.data());
    for (std::uint32_t h = 0; h < 65536; ++h) {
      KV_CHECK(bits_of(out[h]) == h << 16 || std::isnan(out[h]));
    }
  }
}

KV_TEST("an unknown instruction path is no table, and auto is the first of those available") {
  KV_CHECK(kv::cpu::select_kernels("sse9") == nullptr);
  KV_CHECK(kv::cpu::select_kernels("scalar") != nullptr);
  KV_CHECK(kv::cpu::select_kernels(nullptr) == kv::test::kernel_paths()[0]);
  KV_CHECK(kv::cpu::select_kernels("auto") == kv::test::kernel_paths()[0]);
  std::printf("  paths: %s\n", kv::cpu::available_instruction_paths());
}

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
