// The CUDA backend's weights, norms, activations and products. What only this file can catch: a plane that lost a bit of a
// stored weight, a product whose bits depend on how many tokens go with it, and errors above the stated bounds.
#include <cmath>

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/quantized_activations.h"
#include "cuda/kernels/kernels.h"
#include "tests/check.h"
#include "tests/cuda_memory.h"
#include "tests/random_weights.h"

namespace {

using namespace kv::test;
using kv::cuda::DeviceMatrix;
using kv::cuda::GroupInfo;

// A weight on the device, repacked from rows that begin at an odd address.
class Weight {
  kv::cuda::PlaneBytes sizes_{};  // first: planning fills it while `planes` is made

 public:
  DeviceMatrix matrix{};
  std::vector<std::byte> stored;
  OnDevice<std::uint8_t> planes, raw;

  Weight(kv_dtype dtype, std::int32_t rows, std::int32_t cols, std::uint64_t seed)
      : stored(random_weights(dtype, rows, cols, seed)), planes(plan(dtype, rows, cols)), raw(stored.size() + 1) {
    const bool block = kv::weight_dtype_info(dtype)->is_block_quantized;
    std::uint8_t* at = raw.data() + (block ? 1 : 0);
    cuda_ok(cudaMemcpy(at, stored.data(), stored.size(), cudaMemcpyHostToDevice), "weights");
    matrix.codes = planes.data();
    matrix.high = matrix.codes + sizes_.codes;
    matrix.scales = matrix.high + sizes_.high;
    matrix.extra = matrix.scales + sizes_.scales;
    const std::int64_t half = rows / 2, row = static_cast<std::int64_t>(stored.size()) / rows;
    kv::cuda::repack(matrix, at, 0, half, nullptr);
    kv::cuda::repack(matrix, at + half * row, half, rows - half, nullptr);
    cuda_ok(cudaDeviceSynchronize(), "repack");
  }
  std::vector<float> row(std::int64_t index) const {
    std::vector<float> values(static_cast<std::size_t>(matrix.cols));
    const std::int64_t bytes = static_cast<std::int64_t>(stored.size()) / matrix.rows;
    kv::cpu::select_kernels("scalar")->dequantize_row(static_cast<kv_dtype>(matrix.dtype), stored.data() + index * bytes,
                                                      matrix.cols, values.data());
    return values;
  }

 private:
  std::size_t plan(kv_dtype dtype, std::int32_t rows, std::int32_t cols) {
    matrix.dtype = dtype;
    matrix.rows = rows;
    matrix.cols = cols;
    sizes_ = kv::cuda::plan_planes(matrix);
    return static_cast<std::size_t>(sizes_.codes + sizes_.high + sizes_.scales + sizes_.extra);
  }
};

bool is_quantized(kv_dtype dtype) { return kv::weight_dtype_info(dtype)->is_block_quantized; }

std::vector<std::int32_t> widths(kv_dtype dtype) {
  const auto block = static_cast<std::int32_t>(kv::weight_dtype_info(dtype)->block_values);
  if (block == 1) return {1, 20, 64, 1000};
  if (block == 32) return {32, 96, 480, 544, 2080};
  return {256, 768, 2304};
}

// Eight-bit activations of (tokens, cols), made by the activation kernel.
struct Activations {
  std::int32_t pairs;
  OnDevice<float> x;
  OnDevice<std::int8_t> codes;
  OnDevice<GroupInfo> groups;

  Activations(const std::vector<float>& values, std::int32_t tokens, std::int32_t cols)
      : pairs((cols + 63) / 64),
        x(values),
        codes(static_cast<std::size_t>(tokens) * static_cast<std::size_t>(pairs) * 64),
        groups(static_cast<std::size_t>(tokens) * static_cast<std::size_t>(pairs) * 2) {
    kv::cuda::activation({x.data(), nullptr, nullptr, codes.data(), groups.data(), cols, pairs, tokens, -1}, nullptr);
  }
};

std::vector<float> product(const Weight& w, const Activations& a, std::int32_t tokens, std::int32_t first,
                           std::int32_t count, bool quantized, const float* bias) {
  const std::int32_t cols = w.matrix.cols, rows = w.matrix.rows;
  OnDevice<float> y(static_cast<std::size_t>(count) * static_cast<std::size_t>(rows));
  kv::cuda::LinearArgs args{};
  args.parts[0] = {w.matrix, bias, y.data(), rows, 0};
  args.n_parts = 1;
  if (quantized) args.quantized = {a.codes.data() + first * a.pairs * 64, a.groups.data() + first * a.pairs * 2};
  args.x = a.x.data() + std::int64_t{first} * cols;
  args.ldx = cols;
  args.tokens = count;
  kv::cuda::linear(args, nullptr);
  const std::vector<float> result = y.read();
  KV_CHECK_MSG(y.end_is_intact(), "wrote past the end, %d tokens", tokens);
  return result;
}

KV_TEST("every stored bit of a weight survives repacking: embeddings equal the CPU's dequantized rows") {
  for (const kv_dtype dtype : kWeightDtypes) {
    for (const std::int32_t cols : widths(dtype)) {
      const std::int32_t rows = 37;
      const Weight w(dtype, rows, cols, 11);
      std::vector<std::int32_t> ids, none;
      for (std::int32_t i = rows - 1; i >= 0; --i) {
        ids.push_back(i);
        none.push_back(-1);
      }
      const OnDevice<std::int32_t> token_ids(ids), input_rows(none);
      const OnDevice<float> x(static_cast<std::size_t>(rows * cols));
      kv::cuda::embed({w.matrix, token_ids.data(), input_rows.data(), nullptr, x.data(), 1.0f, rows}, nullptr);
      const std::vector<float> got = x.read();
      for (std::int32_t i = 0; i < rows; ++i) {
        const std::vector<float> expected = w.row(ids[static_cast<std::size_t>(i)]);
        KV_CHECK_MSG(std::memcmp(expected.data(), got.data() + i * cols, expected.size() * 4) == 0,
                     "%s, %d columns, row %d", kv::weight_dtype_info(dtype)->name, cols, ids[static_cast<std::size_t>(i)]);
      }
      KV_CHECK(x.end_is_intact());
    }
  }
}

KV_TEST("8-bit activations are the CPU's, codes, scales and sums, bit for bit") {
  for (const std::int32_t cols : {32, 96, 512, 3584}) {
    const std::int32_t tokens = 5;
    std::vector<float> x = random_activations(tokens, cols, 3);
    x[static_cast<std::size_t>(cols) + 7] = INFINITY;
    x[2 * static_cast<std::size_t>(cols) + 8] = NAN;
    const Activations a(x, tokens, cols);
    const std::vector<std::int8_t> codes = a.codes.read();
    const std::vector<GroupInfo> groups = a.groups.read();
    std::vector<std::byte> buffer(static_cast<std::size_t>(kv::cpu::quantized_activations_bytes(tokens, cols)) + 64);
    std::byte* aligned = buffer.data() + (64 - reinterpret_cast<std::uintptr_t>(buffer.data()) % 64) % 64;
    kv::cpu::select_kernels("scalar")->quantize_activations({x.data(), cols, tokens, cols, aligned}, 0, tokens);
    const kv::cpu::QuantizedActivations view = kv::cpu::quantized_activations_view(aligned, tokens, cols);
    for (std::int32_t t = 0; t < tokens; ++t) {
      KV_CHECK(std::memcmp(codes.data() + t * a.pairs * 64, view.codes + t * view.code_stride,
                           static_cast<std::size_t>(cols)) == 0);
      for (std::int32_t g = 0; g < cols / 32; ++g) {
        const GroupInfo& got = groups[static_cast<std::size_t>(t * a.pairs * 2 + g)];
        const std::int64_t at = t * view.group_stride + g;
        const bool broken = std::isnan(view.scales[at]);
        KV_CHECK(broken ? std::isnan(got.scale) : got.scale == view.scales[at] && got.scaled_sum == view.scaled_sums[at]);
        KV_CHECK(broken || (got.sum == view.sums[at] && got.half_sum == view.half_sums[at]));
      }
    }
  }
}

// Bound: 40 * 2^-24 of the sum of |w * x|, x as the product sees it. Roundings of one chain: fewer than 40 in any order here.
KV_TEST("products stay within 40 roundings of float64, and a token's bits do not depend on its company") {
  for (const kv_dtype dtype : kWeightDtypes) {
    for (const std::int32_t cols : widths(dtype)) {
      for (const bool quantized : {true, false}) {
        if (quantized && !is_quantized(dtype)) continue;
        const std::int32_t rows = cols % 64 == 0 ? 83 : 7, tokens = 21;
        const Weight w(dtype, rows, cols, 21);
        const std::vector<float> x = random_activations(tokens, cols, 22);
        const Activations a(x, tokens, cols);
        const OnDevice<float> bias(random_floats(rows, 23));
        const std::vector<float> together = product(w, a, tokens, 0, tokens, quantized, bias.data());
        for (const std::int32_t count : {1, 2, 8, 9}) {
          const std::int32_t first = 5;
          const std::vector<float> few = product(w, a, tokens, first, count, quantized, bias.data());
          KV_CHECK_MSG(std::memcmp(few.data(), together.data() + first * rows, few.size() * 4) == 0,
                       "%s, %d columns, %d tokens of 21, %s", kv::weight_dtype_info(dtype)->name, cols, count,
                       quantized ? "8-bit" : "float");
        }
        const std::vector<float> biases = bias.read();
        const std::vector<std::int8_t> codes = a.codes.read();
        const std::vector<GroupInfo> groups = a.groups.read();
        double worst = 0;
        for (std::int32_t r = 0; r < rows; ++r) {
          const std::vector<float> row = w.row(r);
          for (std::int32_t t = 0; t < tokens; ++t) {
            double sum = biases[static_cast<std::size_t>(r)], size = std::fabs(sum);
            for (std::int32_t c = 0; c < cols; ++c) {
              const auto at = static_cast<std::size_t>(t * a.pairs * 64 + c);
              const double input = quantized ? static_cast<double>(codes[at]) * groups[at / 32].scale
                                             : static_cast<double>(x[static_cast<std::size_t>(t * cols + c)]);
              sum += static_cast<double>(row[static_cast<std::size_t>(c)]) * input;
              size += std::fabs(static_cast<double>(row[static_cast<std::size_t>(c)]) * input);
            }
            const double error = std::fabs(together[static_cast<std::size_t>(t * rows + r)] - sum) / size * 0x1p24;
            worst = error > worst || std::isnan(error) ? error : worst;
          }
        }
        KV_CHECK_MSG(worst <= 40.0 + cols / 256.0 * 8, "%s, %d columns, %s: %g units",
                     kv::weight_dtype_info(dtype)->name, cols, quantized ? "8-bit" : "float", worst);
      }
    }
  }
}

KV_TEST("several parts of one input, added to what is there, are the parts alone") {
  const std::int32_t cols = 768, tokens = 3;
  const Weight a(KV_Q4_K, 40, cols, 1), b(KV_Q6_K, 24, cols, 2), c(KV_Q4_K, 17, cols, 3);
  const Activations x(random_activations(tokens, cols, 4), tokens, cols);
  const Weight* weights[] = {&a, &c, &b};
  std::vector<float> start(3 * 40, 2.0f);
  OnDevice<float> y0(start), y1(start), y2(start);
  OnDevice<float>* outputs[] = {&y0, &y1, &y2};
  kv::cuda::LinearArgs args{};
  for (int i = 0; i < 3; ++i) args.parts[i] = {weights[i]->matrix, nullptr, outputs[i]->data(), 40, 1};
  args.n_parts = 3;
  args.quantized = {x.codes.data(), x.groups.data()};
  args.tokens = tokens;
  kv::cuda::linear(args, nullptr);
  for (int i = 0; i < 3; ++i) {
    const std::vector<float> alone = product(*weights[i], x, tokens, 0, tokens, true, nullptr);
    const std::vector<float> got = outputs[i]->read();
    const std::int32_t rows = weights[i]->matrix.rows;
    for (std::int32_t t = 0; t < tokens; ++t) {
      for (std::int32_t r = 0; r < 40; ++r) {
        const float expected = r < rows ? 2.0f + alone[static_cast<std::size_t>(t * rows + r)] : 2.0f;
        KV_CHECK(got[static_cast<std::size_t>(t * 40 + r)] == expected);
      }
    }
  }
}

KV_TEST("norms and gated activations stay within 2e-6 of float64") {
  for (const std::int32_t n : {1, 63, 64, 1000, 4096}) {
    const std::int32_t tokens = 3;
    const std::vector<float> x = random_floats(tokens * n, 5), joined = random_floats(tokens * n, 6);
    const std::vector<float> weight = random_floats(n, 7), join_weight = random_floats(n, 8);
    const OnDevice<float> x_at(x), joined_at(joined), weight_at(weight), join_at(join_weight);
    const OnDevice<float> y(static_cast<std::size_t>(tokens * n));
    kv::cuda::rms_norm({x_at.data(), joined_at.data(), join_at.data(), weight_at.data(), y.data(), nullptr, nullptr,
                        nullptr, n, (n + 63) / 64, tokens, 1e-5f}, nullptr);
    const std::vector<float> got = y.read();
    for (std::int32_t t = 0; t < tokens; ++t) {
      const auto at = [&](const std::vector<float>& v, std::int32_t i) {
        return static_cast<double>(v[static_cast<std::size_t>(t * n + i)]);
      };
      double squares = 0;
      for (std::int32_t i = 0; i < n; ++i) squares += at(joined, i) * at(joined, i);
      const double joined_inverse = 1 / std::sqrt(squares / n + 1e-5);
      std::vector<double> sum(static_cast<std::size_t>(n));
      squares = 0;
      for (std::int32_t i = 0; i < n; ++i) {
        sum[static_cast<std::size_t>(i)] = at(x, i) + at(joined, i) * joined_inverse * join_weight[static_cast<std::size_t>(i)];
        squares += sum[static_cast<std::size_t>(i)] * sum[static_cast<std::size_t>(i)];
      }
      const double inverse = 1 / std::sqrt(squares / n + 1e-5);
      for (std::int32_t i = 0; i < n; ++i) {
        const double expected = sum[static_cast<std::size_t>(i)] * inverse * weight[static_cast<std::size_t>(i)];
        KV_CHECK(std::fabs(at(got, i) - expected) <= 2e-6 * (std::fabs(expected) + 1));
      }
    }
    for (const int kind : {KV_ACT_SILU, KV_ACT_GELU_TANH, KV_ACT_SWIGLU_OAI}) {
      std::vector<float> gate = random_floats(tokens * n, 9), up = random_floats(tokens * n, 10);
      for (float& value : gate) value *= 12;
      for (float& value : up) value *= 9;
      const OnDevice<float> gate_at(gate), up_at(up), out(static_cast<std::size_t>(tokens * n));
      kv::cuda::activation({gate_at.data(), up_at.data(), out.data(), nullptr, nullptr, n, (n + 63) / 64, tokens, kind},
                           nullptr);
      std::vector<float> expected(gate.size());
      kv::cpu::select_kernels("scalar")->activation(
          {gate.data(), up.data(), expected.data(), tokens * n, static_cast<kv_activation>(kind)});
      const std::vector<float> values = out.read();
      for (std::size_t i = 0; i < values.size(); ++i) {
        KV_CHECK_MSG(std::fabs(values[i] - expected[i]) <= 2e-6f * (std::fabs(expected[i]) + 1), "kind %d: %g, %g", kind,
                     static_cast<double>(values[i]), static_cast<double>(expected[i]));
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
