// dequantize_row against blocks worked out by hand, and against the reference values of random blocks where they exist.
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "common/formats/blocks.h"
#include "tests/check.h"
#include "tests/kernel_paths.h"
#include "tests/random_weights.h"

namespace {

constexpr std::uint16_t kHalfOne = 0x3c00, kHalfHalf = 0x3800, kHalfTwo = 0x4000, kHalfMinusOne = 0xbc00;

void put_half(std::uint8_t* to, std::uint16_t bits) {
  to[0] = static_cast<std::uint8_t>(bits);
  to[1] = static_cast<std::uint8_t>(bits >> 8);
}

// Calls expected(i) for each value and compares exactly, on every path.
template <typename Block, typename Expected>
void check_block(kv_dtype dtype, const Block& block, Expected expected) {
  for (const kv::cpu::KernelTable* kernels : kv::test::kernel_paths()) {
    std::vector<float> out(Block::kValues, -1e9f);
    kernels->dequantize_row(dtype, reinterpret_cast<const std::byte*>(&block), Block::kValues, out.data());
    for (int i = 0; i < static_cast<int>(Block::kValues); ++i) {
      const float want = static_cast<float>(expected(i));
      KV_CHECK_MSG(out[static_cast<std::size_t>(i)] == want, "%s %s value %d: %g, expected %g",
                   kernels->name, kv::weight_dtype_info(dtype)->name, i,
                   static_cast<double>(out[static_cast<std::size_t>(i)]), static_cast<double>(want));
    }
  }
}

// Scales 1 2 3 63 21 38 55 15 and minima 4 5 63 0 49 34 19 9, packed by hand.
constexpr std::uint8_t kPackedScales[12] = {0x41, 0x82, 0xc3, 0x3f, 0xc4, 0x85, 0x7f, 0x00, 0x15, 0x26, 0x37, 0x9f};
constexpr int kScales[8] = {1, 2, 3, 63, 21, 38, 55, 15};
constexpr int kMinima[8] = {4, 5, 63, 0, 49, 34, 19, 9};

std::string shared_folder() {
  const char* set = std::getenv("KVASIR_SHARED");
  return set != nullptr ? set : KVASIR_SHARED_DEFAULT;
}

// The bytes of one tensor of a safetensors file whose header holds no escapes; empty when it is not there.
std::vector<std::byte> tensor_bytes(const std::vector<char>& file, const std::string& name) {
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), 8);
  const std::string header(file.data() + 8, header_bytes);
  std::size_t at = header.find('"' + name + '"');
  if (at == std::string::npos) return {};
  at = header.find("data_offsets\":[", at) + std::strlen("data_offsets\":[");
  char* after = nullptr;
  const std::uint64_t begin = std::strtoull(header.c_str() + at, &after, 10);
  const std::uint64_t end = std::strtoull(after + 1, nullptr, 10);
  const std::byte* data = reinterpret_cast<const std::byte*>(file.data()) + 8 + header_bytes;
  return {data + begin, data + end};
}

}  // namespace

KV_TEST("Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and MXFP4 blocks have the values worked out by hand") {
  kv::BlockQ8_0 q8{};
  put_half(q8.d, kHalfHalf);
  for (int i = 0; i < 32; ++i) q8.q[i] = static_cast<std::int8_t>(4 * i - 64);
  q8.q[31] = -128;
  check_block(KV_Q8_0, q8, [](int i) { return i == 31 ? -64.0 : 2.0 * i - 32.0; });

  kv::BlockQ4_0 q4{};
  put_half(q4.d, kHalfTwo);
  for (int i = 0; i < 16; ++i) q4.q[i] = static_cast<std::uint8_t>(i | (15 - i) << 4);
  check_block(KV_Q4_0, q4, [](int i) { return i < 16 ? 2.0 * (i - 8) : 2.0 * (31 - i - 8); });

  kv::BlockQ4_1 q41{};
  put_half(q41.d, kHalfHalf);
  put_half(q41.m, kHalfMinusOne);
  for (int i = 0; i < 16; ++i) q41.q[i] = static_cast<std::uint8_t>(i | (15 - i) << 4);
  check_block(KV_Q4_1, q41, [](int i) { return i < 16 ? 0.5 * i - 1.0 : 0.5 * (31 - i) - 1.0; });

  kv::BlockQ5_0 q5{};
  put_half(q5.d, kHalfOne);
  for (int i = 0; i < 16; ++i) q5.q[i] = static_cast<std::uint8_t>(i | (15 - i) << 4);
  q5.h[0] = 0x01;  // value 0
  q5.h[2] = 0x80;  // value 23
  check_block(KV_Q5_0, q5, [](int i) { return (i < 16 ? i : 31 - i) - 16 + (i == 0 || i == 23 ? 16 : 0); });

  kv::BlockQ5_1 q51{};
  put_half(q51.d, kHalfTwo);
  put_half(q51.m, kHalfMinusOne);
  for (int i = 0; i < 16; ++i) q51.q[i] = static_cast<std::uint8_t>(i | (15 - i) << 4);
  q51.h[1] = 0x02;  // value 9
  q51.h[3] = 0x40;  // value 30
  check_block(KV_Q5_1, q51,
              [](int i) { return 2 * ((i < 16 ? i : 31 - i) + (i == 9 || i == 30 ? 16 : 0)) - 1; });

  constexpr double e2m1[16] = {0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6};
  kv::BlockMxfp4 mx{};
  for (int i = 0; i < 16; ++i) mx.q[i] = static_cast<std::uint8_t>(i | (15 - i) << 4);
  for (int e : {0, 1, 2, 127, 130, 255}) {
    mx.e = static_cast<std::uint8_t>(e);
    // 2^(e-127) * 6 overflows float32 at e = 255, as the reference does.
    check_block(KV_MXFP4, mx, [&](int i) { return std::ldexp(e2m1[i < 16 ? i : 31 - i], e - 127); });
  }
}

KV_TEST("Q4_K, Q5_K and Q6_K blocks have the values worked out by hand") {
  kv::BlockQ4_K q4{};
  put_half(q4.d, kHalfTwo);
  put_half(q4.dmin, kHalfHalf);
  std::memcpy(q4.scales, kPackedScales, 12);
  for (int i = 0; i < 128; ++i) q4.q[i] = static_cast<std::uint8_t>((i % 16) | (15 - i % 16) << 4);
  const auto low = [](int i) { return (i / 32) % 2 == 0 ? i % 16 : 15 - i % 16; };
  check_block(KV_Q4_K, q4, [&](int i) { return 2.0 * kScales[i / 32] * low(i) - 0.5 * kMinima[i / 32]; });

  kv::BlockQ5_K q5{};
  put_half(q5.d, kHalfTwo);
  put_half(q5.dmin, kHalfHalf);
  std::memcpy(q5.scales, kPackedScales, 12);
  for (int i = 0; i < 128; ++i) q5.q[i] = q4.q[i];
  for (int i = 0; i < 32; ++i) q5.h[i] = static_cast<std::uint8_t>(1 << (i % 8));  // bit g of byte i: group g = i % 8
  check_block(KV_Q5_K, q5, [&](int i) {
    const int code = low(i) + (i / 32 == i % 8 ? 16 : 0);
    return 2.0 * kScales[i / 32] * code - 0.5 * kMinima[i / 32];
  });

  kv::BlockQ6_K q6{};
  put_half(q6.d, kHalfHalf);
  for (int g = 0; g < 16; ++g) q6.scales[g] = static_cast<std::int8_t>(8 * g - 64);
  // Code of value i is i % 61, split into the fields as the format says.
  for (int i = 0; i < 256; ++i) {
    const int code = i % 61, half = i / 128, quarter = i % 128 / 32, j = i % 32;
    q6.ql[64 * half + 32 * (quarter % 2) + j] |= static_cast<std::uint8_t>((code & 15) << (4 * (quarter / 2)));
    q6.h[32 * half + j] |= static_cast<std::uint8_t>((code >> 4) << (2 * quarter));
  }
  check_block(KV_Q6_K, q6, [](int i) { return 0.5 * (8 * (i / 16) - 64) * (i % 61 - 32); });
}

KV_TEST("float rows of any length convert on every path and write nothing past their end") {
  for (kv_dtype dtype : {KV_F32, KV_F16, KV_BF16}) {
    for (std::int64_t cols : {1, 15, 16, 17, 33}) {
      const std::vector<std::byte> row = kv::test::random_weights(dtype, 1, cols, 9);
      std::vector<float> expected(static_cast<std::size_t>(cols) + 1, 7.0f);
      kv::cpu::select_kernels("scalar")->dequantize_row(dtype, row.data(), cols, expected.data());
      KV_CHECK(expected.back() == 7.0f && expected[0] != 7.0f);
      for (const kv::cpu::KernelTable* kernels : kv::test::kernel_paths()) {
        std::vector<float> out(static_cast<std::size_t>(cols) + 1, 7.0f);
        kernels->dequantize_row(dtype, row.data(), cols, out.data());
        KV_CHECK(out == expected);
      }
    }
  }
}

KV_TEST("random blocks have the reference values bit for bit") {
  const std::string path = shared_folder() + "/data/dequantization/dequant_golden.safetensors";
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return kv::test::skip(("no reference values at " + path + " (set KVASIR_SHARED)").c_str());
  const std::vector<char> file((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  for (kv_dtype dtype : kv::test::kWeightDtypes) {
    const kv::DtypeInfo& info = *kv::weight_dtype_info(dtype);
    if (!info.is_block_quantized) continue;
    const std::string name = info.name;
    const std::vector<std::byte> raw = tensor_bytes(file, name + ".raw"), golden = tensor_bytes(file, name + ".f32");
    const std::size_t values = golden.size() / 4;
    if (!KV_CHECK(values > 0 && raw.size() / info.block_bytes * info.block_values == values)) continue;
    for (const kv::cpu::KernelTable* kernels : kv::test::kernel_paths()) {
      std::vector<float> out(values);
      kernels->dequantize_row(dtype, raw.data(), static_cast<std::int64_t>(values), out.data());
      std::size_t different = 0;
      for (std::size_t i = 0; i < values; ++i) {
        float want;
        std::memcpy(&want, golden.data() + 4 * i, 4);
        const bool same = std::memcmp(&out[i], &want, 4) == 0 || (std::isnan(out[i]) && std::isnan(want));
        if (!same) ++different;
      }
      KV_CHECK_MSG(different == 0, "%s %s: %zu of %zu values differ", kernels->name, info.name, different, values);
    }
  }
}

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
