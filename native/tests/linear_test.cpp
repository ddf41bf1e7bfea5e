// linear against its definition. What only this file can catch: a path, a row split or a token tiling whose bits differ
// from the others', a read past a tensor's end, and a format whose products are wrong although its values are right.
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <memory>

#include "cpu/kernels/quantized_activations.h"
#include "tests/check.h"
#include "tests/kernel_paths.h"
#include "tests/random_weights.h"

namespace {

using kv::cpu::KernelTable;
using kv::cpu::LinearArgs;
using kv::cpu::WeightMatrix;

constexpr float kPoison = -12345.678f;

// 64-byte aligned memory filled with NaN patterns.
class Buffer {
 public:
  explicit Buffer(std::int64_t bytes)
      : bytes_(static_cast<std::size_t>((bytes + 127) / 64 * 64)),
        data_(static_cast<std::byte*>(std::aligned_alloc(64, bytes_)), &std::free) {
    std::memset(data_.get(), 0xff, bytes_);
  }
  std::byte* data() const { return data_.get(); }

 private:
  std::size_t bytes_;
  std::unique_ptr<std::byte, decltype(&std::free)> data_;
};

struct Case {
  kv_dtype dtype;
  std::int64_t rows, cols, tokens;
  bool float_activations = false;
  bool with_bias = false;
};

struct Inputs {
  std::vector<std::byte> weights;
  std::vector<float> x;
  std::vector<float> bias;
};

Inputs make_inputs(const Case& c, std::uint64_t seed) {
  return {kv::test::random_weights(c.dtype, c.rows, c.cols, seed),
          kv::test::random_activations(c.tokens, c.cols, seed + 1), kv::test::random_floats(c.rows, seed + 2)};
}

// y (tokens, rows) of tokens first .. first + count - 1, rows split at every multiple of `rows_per_call`.
std::vector<float> run_linear(const KernelTable& kernels, const Case& c, const Inputs& in, std::int64_t rows_per_call,
                              std::int64_t first, std::int64_t count, const std::byte* weights = nullptr) {
  const WeightMatrix weight{c.dtype, c.rows, c.cols, weights != nullptr ? weights : in.weights.data()};
  const std::int64_t ldy = c.rows + 3;
  std::vector<float> y(static_cast<std::size_t>(count * ldy), kPoison);
  const float* x = in.x.data() + first * c.cols;
  const bool quantized = !c.float_activations && kv::cpu::uses_quantized_activations(c.dtype);
  Buffer codes(quantized ? kv::cpu::quantized_activations_bytes(count, c.cols) : 64);
  if (quantized) kernels.quantize_activations({x, c.cols, count, c.cols, codes.data()}, 0, count);
  Buffer scratch(kv::cpu::linear_scratch_bytes(weight));
  const LinearArgs args{weight, x,        c.cols, quantized ? codes.data() : nullptr, count, c.with_bias ? in.bias.data() : nullptr,
                        y.data(), ldy};
  for (std::int64_t r = 0; r < c.rows; r += rows_per_call) {
    kernels.linear(args, r, std::min(r + rows_per_call, c.rows), scratch.data());
  }
  std::vector<float> dense;
  for (std::int64_t t = 0; t < count; ++t) {
    for (std::int64_t r = 0; r < ldy; ++r) {
      const float value = y[static_cast<std::size_t>(t * ldy + r)];
      if (r < c.rows) dense.push_back(value);
      else KV_CHECK_MSG(value == kPoison, "%s wrote past row %ld", kernels.name, static_cast<long>(c.rows));
    }
  }
  return dense;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

const char* name_of(const Case& c) { return kv::weight_dtype_info(c.dtype)->name; }

void check_same(const char* what, const KernelTable& kernels, const Case& c, const std::vector<float>& got,
                const std::vector<float>& expected) {
  KV_CHECK_MSG(same_bits(got, expected), "%s: %s %s rows %ld cols %ld tokens %ld%s", what, kernels.name, name_of(c),
               static_cast<long>(c.rows), static_cast<long>(c.cols), static_cast<long>(c.tokens),
               c.float_activations ? " float activations" : "");
}

// Activations as the products see them: rounded to codes for quantized formats. In double, from the definition.
std::vector<double> activations_in_double(const Case& c, const std::vector<float>& x) {
  std::vector<double> out(x.begin(), x.end());
  if (c.float_activations || !kv::cpu::uses_quantized_activations(c.dtype)) return out;
  for (std::size_t g = 0; g < x.size(); g += 32) {
    float amax = 0.0f;
    for (std::size_t i = 0; i < 32; ++i) amax = std::max(amax, std::fabs(x[g + i]));
    for (std::size_t i = 0; i < 32; ++i) {
      const float inverse = amax > 0.0f ? 127.0f / amax : 0.0f;
      out[g + i] = std::nearbyintf(x[g + i] * inverse) * static_cast<double>(amax / 127.0f);
    }
  }
  return out;
}

// Largest error against float64 in units of the bound: n * 2^-23 * sum |w*x|, where n counts the roundings of one chain.
double worst_error(const Case& c, const Inputs& in, const std::vector<float>& y) {
  const KernelTable& scalar = *kv::cpu::select_kernels("scalar");
  const std::vector<double> x = activations_in_double(c, in.x);
  std::vector<float> w(static_cast<std::size_t>(c.cols));
  const std::int64_t stride = static_cast<std::int64_t>(in.weights.size()) / c.rows;
  double worst = 0.0;
  for (std::int64_t r = 0; r < c.rows; ++r) {
    scalar.dequantize_row(c.dtype, in.weights.data() + r * stride, c.cols, w.data());
    for (std::int64_t t = 0; t < c.tokens; ++t) {
      double sum = c.with_bias ? in.bias[static_cast<std::size_t>(r)] : 0.0, magnitude = std::fabs(sum);
      for (std::int64_t i = 0; i < c.cols; ++i) {
        const double term = static_cast<double>(w[static_cast<std::size_t>(i)]) * x[static_cast<std::size_t>(t * c.cols + i)];
        sum += term;
        magnitude += std::fabs(term);
      }
      const double bound = (static_cast<double>(c.cols) / 16.0 + 8.0) * 0x1p-23 * magnitude + 1e-30;
      worst = std::max(worst, std::fabs(y[static_cast<std::size_t>(t * c.rows + r)] - sum) / bound);
    }
  }
  return worst;
}

std::vector<std::int64_t> columns_for(kv_dtype dtype, bool thorough) {
  const std::uint32_t block = kv::weight_dtype_info(dtype)->block_values;
  if (block == 256) return thorough ? std::vector<std::int64_t>{256, 512, 1536} : std::vector<std::int64_t>{512};
  if (block == 32) return thorough ? std::vector<std::int64_t>{32, 96, 576, 896} : std::vector<std::int64_t>{96, 576};
  return thorough ? std::vector<std::int64_t>{1, 16, 37, 100, 576} : std::vector<std::int64_t>{37, 96};
}

void check_case(const Case& c, std::uint64_t seed) {
  const Inputs in = make_inputs(c, seed);
  const std::vector<const KernelTable*> paths = kv::test::kernel_paths();
  const std::vector<float> expected = run_linear(*paths[0], c, in, c.rows, 0, c.tokens);
  const double error = worst_error(c, in, expected);
  KV_CHECK_MSG(error <= 1.0, "%s rows %ld cols %ld tokens %ld: error %.3f of its bound", name_of(c),
               static_cast<long>(c.rows), static_cast<long>(c.cols), static_cast<long>(c.tokens), error);
  for (const KernelTable* kernels : paths) {
    // The scalar path multiplies by library calls: it sees every case once and every small case in full.
    const bool small = c.rows * c.cols * c.tokens < 400000;
    check_same("whole", *kernels, c, run_linear(*kernels, c, in, c.rows, 0, c.tokens), expected);
    if (!small && std::strcmp(kernels->name, "scalar") == 0) continue;
    check_same("split by 5 rows", *kernels, c, run_linear(*kernels, c, in, 5, 0, c.tokens), expected);
    check_same("split by 16 rows", *kernels, c, run_linear(*kernels, c, in, 16, 0, c.tokens), expected);
    std::vector<float> one_by_one;
    for (std::int64_t t = 0; t < c.tokens; ++t) {
      const std::vector<float> y = run_linear(*kernels, c, in, c.rows, t, 1);
      one_by_one.insert(one_by_one.end(), y.begin(), y.end());
    }
    check_same("token by token", *kernels, c, one_by_one, expected);
  }
}

// Under emulation (KVASIR_TEST_SMALL set) the largest batches are left out.
std::vector<std::int64_t> token_counts() {
  if (std::getenv("KVASIR_TEST_SMALL") != nullptr) return {1, 2, 3, 7, 8};
  return {1, 2, 3, 7, 8, 16, 33, 300};
}

void check_dtypes(bool float_activations) {
  std::uint64_t seed = 1000;
  for (kv_dtype dtype : kv::test::kWeightDtypes) {
    if (float_activations && !kv::cpu::uses_quantized_activations(dtype)) continue;
    for (std::int64_t tokens : token_counts()) {
      for (std::int64_t cols : columns_for(dtype, tokens <= 8)) {
        for (std::int64_t rows : {1, 19, 70}) {
          if (tokens > 16 && rows == 1) continue;
          check_case({dtype, rows, cols, tokens, float_activations, rows == 19}, ++seed);
        }
      }
    }
  }
}

}  // namespace

KV_TEST("linear gives the same bits on every path, row split and token tiling, close to float64") { check_dtypes(false); }

KV_TEST("linear with float activations does so for block-quantized weights too") { check_dtypes(true); }

KV_TEST("linear spans several panels of a long row") {
  check_case({KV_Q8_0, 40, 4864, 9}, 5);
  check_case({KV_Q4_K, 40, 4864, 50}, 6);
  check_case({KV_F16, 9, 4864, 13}, 7);
  check_case({KV_Q6_K, 300, 512, 9}, 8);
}

KV_TEST("linear is exact at the extremes of the codes") {
  // Codes of -128 and activations of +-127 are where 16-bit intermediate sums would saturate.
  for (std::int64_t tokens : {1, 4}) {
    Case c{KV_Q8_0, 16, 64, tokens};
    Inputs in = make_inputs(c, 77);
    for (std::size_t i = 0; i < in.weights.size(); ++i) {
      if (i % 34 >= 2) in.weights[i] = std::byte{0x80};
    }
    for (float& x : in.x) x = -3.0f;
    for (const KernelTable* kernels : kv::test::kernel_paths()) {
      const std::vector<float> y = run_linear(*kernels, c, in, c.rows, 0, tokens);
      const double error = worst_error(c, in, y);
      KV_CHECK_MSG(error <= 1.0, "%s: error %.3f of its bound", kernels->name, error);
    }
  }
}

KV_TEST("linear reads no byte outside the tensor") {
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  for (kv_dtype dtype : kv::test::kWeightDtypes) {
    for (std::int64_t tokens : {1, 2, 9}) {
      for (std::int64_t cols : columns_for(dtype, true)) {
        for (bool float_activations : {false, true}) {
          const Case c{dtype, 19, cols, tokens, float_activations};
          const Inputs in = make_inputs(c, 31);
          const std::size_t pages = (in.weights.size() + page - 1) / page;
          char* map = static_cast<char*>(
              mmap(nullptr, (pages + 2) * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
          if (!KV_CHECK(map != MAP_FAILED)) return;
          mprotect(map, page, PROT_NONE);
          mprotect(map + (pages + 1) * page, page, PROT_NONE);
          std::byte* at_end = reinterpret_cast<std::byte*>(map + (pages + 1) * page - in.weights.size());
          std::byte* at_start = reinterpret_cast<std::byte*>(map + page);
          for (const KernelTable* kernels : kv::test::kernel_paths()) {
            const std::vector<float> expected = run_linear(*kernels, c, in, c.rows, 0, tokens);
            for (std::byte* place : {at_end, at_start}) {
              std::memcpy(place, in.weights.data(), in.weights.size());
              check_same("guarded", *kernels, c, run_linear(*kernels, c, in, c.rows, 0, tokens, place), expected);
            }
          }
          munmap(map, (pages + 2) * page);
        }
      }
    }
  }
}

KV_TEST("the comparison sees a single changed code, scale or activation") {
  const KernelTable& kernels = *kv::cpu::select_kernels("auto");
  for (kv_dtype dtype : kv::test::kWeightDtypes) {
    const Case c{dtype, 19, 512, 3};
    Inputs in = make_inputs(c, 99);
    const std::vector<float> expected = run_linear(kernels, c, in, c.rows, 0, c.tokens);
    in.weights[in.weights.size() / 2] ^= std::byte{0x40};
    KV_CHECK_MSG(!same_bits(run_linear(kernels, c, in, c.rows, 0, c.tokens), expected), "%s weight", name_of(c));
    in.weights[in.weights.size() / 2] ^= std::byte{0x40};
    KV_CHECK(same_bits(run_linear(kernels, c, in, c.rows, 0, c.tokens), expected));
    in.x[700] += 1.0f;
    KV_CHECK_MSG(!same_bits(run_linear(kernels, c, in, c.rows, 0, c.tokens), expected), "%s activation", name_of(c));
  }
}

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
