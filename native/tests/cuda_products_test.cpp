// The CUDA backend's weights, norms, activations and products. What only this file can catch: a plane that lost a bit of a
// stored weight, a product whose bits depend on how many tokens go with it, and errors above the stated bounds.
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "cpu/kernels/kernels.h"
#include "cuda/kernels/kernels.h"
#include "tests/check.h"
#include "tests/cuda_memory.h"
#include "tests/random_weights.h"

namespace {

using namespace kv::test;
using kv::cuda::DeviceMatrix;
using kv::cuda::HalfInput;

// A weight on the device, repacked from rows that begin at an odd address.
class Weight {
  kv::cuda::PlaneBytes sizes_{};  // first: filled while `planes` is made

 public:
  DeviceMatrix matrix{};
  std::vector<std::byte> stored;
  OnDevice<std::uint8_t> planes, raw;

  Weight(kv_dtype dtype, std::int32_t rows, std::int32_t cols, std::uint64_t seed)
      : Weight(dtype, rows, cols, random_weights(dtype, rows, cols, seed)) {}
  Weight(kv_dtype dtype, std::int32_t rows, std::int32_t cols, std::vector<std::byte> bytes)
      : stored(std::move(bytes)), planes(plan(dtype, rows, cols)), raw(stored.size() + 1) {
    const bool block = kv::weight_dtype_info(dtype)->is_block_quantized;
    std::uint8_t* at = raw.data() + (block ? 1 : 0);
    cuda_ok(cudaMemcpy(at, stored.data(), stored.size(), cudaMemcpyHostToDevice), "weights");
    kv::cuda::place_planes(matrix, sizes_, planes.data());
    const std::int64_t first = std::min(rows, 16 * ((rows / 2 + 15) / 16));
    const std::int64_t row = static_cast<std::int64_t>(stored.size()) / rows;
    kv::cuda::repack(matrix, at, 0, first, nullptr);
    if (first < rows) kv::cuda::repack(matrix, at + first * row, first, rows - first, nullptr);
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
    return static_cast<std::size_t>(sizes_.total());
  }
};

std::vector<std::int32_t> widths(kv_dtype dtype) {
  const auto block = static_cast<std::int32_t>(kv::weight_dtype_info(dtype)->block_values);
  if (block == 1) return {1, 20, 64, 128, 1000};
  if (block == 32) return {32, 96, 480, 544, 2080};
  return {256, 768, 2304};
}

// Activations of (tokens, cols) in f16, made by the activation kernel.
struct Activations {
  std::int32_t tokens, cols, pairs;
  OnDevice<float> x;
  OnDevice<std::uint16_t> codes;
  OnDevice<float> scales;

  Activations(const std::vector<float>& values, std::int32_t n, std::int32_t width)
      : tokens(n),
        cols(width),
        pairs(kv::cuda::pairs_of(width)),
        x(values),
        codes(static_cast<std::size_t>((n + 7) / 8 * pairs) * 512),
        scales(static_cast<std::size_t>((n + 7) / 8) * kv::cuda::kSegments * 8) {
    kv::cuda::activation({x.data(), nullptr, nullptr, halves(), cols, tokens, -1, 0}, nullptr);
  }
  HalfInput halves() const { return {codes.data(), scales.data()}; }
  std::int32_t segment_of(std::int32_t column) const {
    std::int32_t i = 0;
    while (kv::cuda::segment_begin(pairs, kv::cuda::segments_of(pairs), i + 1) * 256 <= column) ++i;
    return i;
  }
  // What a product sees, (tokens, pairs * 64).
  std::vector<float> seen() const {
    const std::vector<std::uint16_t> code = codes.read();
    const std::vector<float> scale = scales.read();
    std::vector<float> values;
    for (std::int32_t t = 0; t < tokens; ++t) {
      for (std::int32_t c = 0; c < pairs * 64; ++c) {
        const std::int32_t at = ((t / 8 * pairs + c / 64) * 8 + t % 8) * 64 + kv::cuda::input_place(t % 8, c % 64);
        __half_raw raw;
        raw.x = code[static_cast<std::size_t>(at)];
        values.push_back(__half2float(__half(raw)) *
                         scale[static_cast<std::size_t>((t / 8 * kv::cuda::kSegments + segment_of(c)) * 8 + t % 8)]);
      }
    }
    return values;
  }
};

// Of tokens first .. first + count alone; x: all tokens' activations.
std::vector<float> product(const Weight& w, const std::vector<float>& x, std::int32_t first, std::int32_t count, bool halves,
                           const float* bias) {
  const std::int32_t cols = w.matrix.cols, rows = w.matrix.rows;
  const auto begin = x.begin() + std::ptrdiff_t{first} * cols;
  const Activations a(std::vector<float>(begin, begin + std::ptrdiff_t{count} * cols), count, cols);
  OnDevice<float> y(static_cast<std::size_t>(count) * static_cast<std::size_t>(rows));
  kv::cuda::LinearArgs args{};
  args.parts[0] = {w.matrix, bias, y.data(), rows, 0};
  args.n_parts = 1;
  if (halves) args.halves = a.halves();
  args.x = a.x.data();
  args.ldx = cols;
  args.tokens = count;
  kv::cuda::linear(args, nullptr);
  const std::vector<float> result = y.read();
  KV_CHECK_MSG(y.end_is_intact(), "wrote past the end, %d tokens", count);
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

KV_TEST("16-bit floats come back to the rows of the file for the fast mode's library") {
  for (const kv_dtype dtype : {KV_F16, KV_BF16}) {
    for (const std::int32_t cols : {8, 64, 264, 1000}) {
      const std::int32_t rows = 37;
      const Weight w(dtype, rows, cols, 13);
      const OnDevice<std::uint16_t> out(static_cast<std::size_t>(rows * cols));
      kv::cuda::half_weights(w.matrix, out.data(), nullptr);
      KV_CHECK(std::memcmp(out.read().data(), w.stored.data(), w.stored.size()) == 0 && out.end_is_intact());
    }
  }
}

KV_TEST("activations in f16 keep 11 bits of whatever magnitudes a segment has; what is not finite stays so, beside others") {
  for (const std::int32_t cols : {8, 33, 96, 512, 3584, 9000}) {
    const std::int32_t tokens = 11;
    std::vector<float> x = random_activations(tokens, cols, 3);
    for (std::int32_t t = 0; t < tokens; ++t) {
      for (std::int32_t c = 0; c < cols; ++c) {
        x[static_cast<std::size_t>(t * cols + c)] *= std::ldexp(1.0f, 7 * (t - 5) + c / 256 % 3 * 9);
      }
    }
    x[static_cast<std::size_t>(cols) + 7] = INFINITY;
    x[2 * static_cast<std::size_t>(cols) + 5] = NAN;
    std::fill(x.begin() + std::ptrdiff_t{3} * cols, x.begin() + std::ptrdiff_t{4} * cols, 0.0f);
    const Activations a(x, tokens, cols);
    const std::vector<float> seen = a.seen();
    std::vector<float> most(static_cast<std::size_t>(tokens * kv::cuda::kSegments), 0.0f);
    for (std::int32_t t = 0; t < tokens; ++t) {
      for (std::int32_t c = 0; c < cols; ++c) {
        const float value = std::fabs(x[static_cast<std::size_t>(t * cols + c)]);
        float& of = most[static_cast<std::size_t>(t * kv::cuda::kSegments + a.segment_of(c))];
        if (std::isfinite(value)) of = std::max(of, value);
      }
      for (std::int32_t c = 0; c < a.pairs * 64; ++c) {
        const float got = seen[static_cast<std::size_t>(t * a.pairs * 64 + c)];
        const float expected = c < cols ? x[static_cast<std::size_t>(t * cols + c)] : 0.0f;
        const float of = most[static_cast<std::size_t>(t * kv::cuda::kSegments + a.segment_of(c))];
        KV_CHECK_MSG(std::isfinite(expected) ? std::fabs(got - expected) <= std::fabs(expected) * 0x1p-11f + of * 0x1p-38f
                                             : std::isnan(expected) ? std::isnan(got) : got == expected,
                     "token %d, column %d of %d: %g, %g", t, c, cols, static_cast<double>(got), static_cast<double>(expected));
      }
    }
    KV_CHECK(a.codes.end_is_intact() && a.scales.end_is_intact());
  }
}

KV_TEST("a norm's halves are its floats rounded to 11 bits") {
  for (const std::int32_t n : {8, 320, 3584, 5120, 9216}) {
    const std::int32_t tokens = 9;
    const OnDevice<float> x(random_floats(tokens * n, 5)), weight(random_floats(n, 7)), y(static_cast<std::size_t>(tokens * n));
    const Activations a(std::vector<float>(static_cast<std::size_t>(tokens * n), 1.0f), tokens, n);
    kv::cuda::rms_norm({x.data(), nullptr, nullptr, weight.data(), y.data(), a.halves(), nullptr, n, tokens, 1e-5f}, nullptr);
    const std::vector<float> exact = y.read(), seen = a.seen();
    for (std::int32_t t = 0; t < tokens; ++t) {
      for (std::int32_t c = 0; c < a.pairs * 64; ++c) {
        const float expected = c < n ? exact[static_cast<std::size_t>(t * n + c)] : 0.0f;
        const float got = seen[static_cast<std::size_t>(t * a.pairs * 64 + c)];
        KV_CHECK(std::fabs(got - expected) <= std::fabs(expected) * 0x1p-11f + 1e-7f);
      }
    }
    KV_CHECK(a.codes.end_is_intact() && a.scales.end_is_intact());
  }
}

// The largest magnitude among the columns that share a column's scale and minimum.
std::vector<float> group_maxima(const std::vector<float>& row) {
  std::vector<float> most(row.size());
  for (std::size_t c = 0; c < row.size(); ++c) {
    const std::size_t begin = c / 32 * 32, end = std::min(begin + 32, row.size());
    for (std::size_t i = begin; i < end; ++i) most[c] = std::max(most[c], std::fabs(row[i]));
  }
  return most;
}

// A column alone shows the operand that stands for a weight: S, C and their sum are rounded to 11 bits each.
KV_TEST("every weight alone comes within 3 * 2^-10 of its group's largest, F16 exactly") {
  for (const kv_dtype dtype : kWeightDtypes) {
    if (dtype == KV_F32) continue;
    const std::int32_t cols = 512, rows = 37;
    const Weight w(dtype, rows, cols, 31);
    std::vector<float> x(static_cast<std::size_t>(cols) * cols, 0.0f);
    for (std::int32_t c = 0; c < cols; ++c) x[static_cast<std::size_t>(c * cols + c)] = 1.0f;
    const std::vector<float> got = product(w, x, 0, cols, true, nullptr);
    double worst = 0;
    for (std::int32_t r = 0; r < rows; ++r) {
      const std::vector<float> row = w.row(r), most = group_maxima(row);
      for (std::int32_t c = 0; c < cols; ++c) {
        const auto at = static_cast<std::size_t>(c);
        const double error = std::fabs(got[static_cast<std::size_t>(c * rows + r)] - row[at]) / (most[at] + 1e-30f);
        worst = error > worst || std::isnan(error) ? error : worst;
      }
    }
    KV_CHECK_MSG(worst <= (dtype == KV_F16 ? 0.0 : 0x3p-10), "%s: %g", kv::weight_dtype_info(dtype)->name, worst);
  }
}

KV_TEST("weights at the upper end of what their format can say stay finite") {
  const std::int32_t rows = 2, cols = 512;
  std::vector<std::byte> bf16, mxfp4;
  for (std::int32_t i = 0; i < rows * cols; ++i) {
    const int bits = i % 7 == 0 ? 0x7f7f : 0x3f80 + i % 100;  // 3.4e38 beside some ones
    bf16.push_back(static_cast<std::byte>(bits & 255));
    bf16.push_back(static_cast<std::byte>(bits >> 8));
  }
  for (std::int32_t i = 0; i < rows * cols / 32; ++i) {
    mxfp4.push_back(static_cast<std::byte>(i % 3 == 0 ? 251 : 240));
    for (int j = 0; j < 16; ++j) mxfp4.push_back(static_cast<std::byte>(17 * i + 5 * j));
  }
  for (const auto& [dtype, bytes] : {std::pair{KV_BF16, bf16}, std::pair{KV_MXFP4, mxfp4}}) {
    const Weight w(dtype, rows, cols, bytes);
    for (const std::int32_t tokens : {1, 8}) {
      const std::vector<float> x(static_cast<std::size_t>(tokens * cols), 0x1p-40f);
      const std::vector<float> got = product(w, x, 0, tokens, true, nullptr);
      for (std::int32_t r = 0; r < rows; ++r) {
        double sum = 0, size = 0;
        for (const float value : w.row(r)) {
          sum += static_cast<double>(value) * 0x1p-40;
          size += std::fabs(static_cast<double>(value)) * 0x1p-40;
        }
        KV_CHECK_MSG(std::fabs(got[static_cast<std::size_t>(r)] - sum) <= size * 0x1p-9, "%s: %g, %g",
                     kv::weight_dtype_info(dtype)->name, static_cast<double>(got[static_cast<std::size_t>(r)]), sum);
      }
    }
  }
}

// Bounds: of halves 2^-9 of the sum of |w * x|, w the group's largest and x as the product sees it; of floats 40 * 2^-24 and
// more for long rows, roundings of one chain.
KV_TEST("products stay within their bounds of float64, and a token's bits do not depend on its company") {
  for (const kv_dtype dtype : kWeightDtypes) {
    for (const std::int32_t cols : widths(dtype)) {
      for (const bool halves : {true, false}) {
        const std::int32_t rows = cols % 64 == 0 ? 83 : 7, tokens = 75;
        const Weight w(dtype, rows, cols, 21);
        if (halves && !kv::cuda::takes_halves(w.matrix)) continue;
        const std::vector<float> x = random_activations(tokens, cols, 22);
        const OnDevice<float> bias(random_floats(rows, 23));
        const std::vector<float> together = product(w, x, 0, tokens, halves, bias.data());
        for (const std::int32_t count : {1, 2, 8, 9, 12, 16, 20, 32, 33, 40, 64}) {
          const std::int32_t first = 5;
          const std::vector<float> few = product(w, x, first, count, halves, bias.data());
          KV_CHECK_MSG(std::memcmp(few.data(), together.data() + first * rows, few.size() * 4) == 0,
                       "%s, %d columns, %d tokens of 75, %s", kv::weight_dtype_info(dtype)->name, cols, count,
                       halves ? "halves" : "float");
        }
        const Activations a(x, tokens, cols);
        const std::vector<float> seen = a.seen(), biases = bias.read();
        double worst = 0;
        for (std::int32_t r = 0; r < rows; ++r) {
          const std::vector<float> row = w.row(r), most = group_maxima(row);
          for (std::int32_t t = 0; t < tokens; ++t) {
            double sum = biases[static_cast<std::size_t>(r)], size = std::fabs(sum);
            for (std::int32_t c = 0; c < cols; ++c) {
              const auto at = static_cast<std::size_t>(c);
              const double input = halves ? static_cast<double>(seen[static_cast<std::size_t>(t * a.pairs * 64 + c)])
                                          : static_cast<double>(x[static_cast<std::size_t>(t * cols + c)]);
              sum += static_cast<double>(row[at]) * input;
              size += std::fabs(static_cast<double>(halves ? most[at] : row[at]) * input);
            }
            const double error = std::fabs(together[static_cast<std::size_t>(t * rows + r)] - sum) / size;
            worst = error > worst || std::isnan(error) ? error : worst;
          }
        }
        const double bound = halves ? (dtype == KV_F16 ? 0x1p-18 : 0x1p-9) : (40.0 + cols / 256.0 * 8) * 0x1p-24;
        KV_CHECK_MSG(worst <= bound, "%s, %d columns, %s: %g", kv::weight_dtype_info(dtype)->name, cols,
                     halves ? "halves" : "float", worst);
      }
    }
  }
}

// Rows enough for whole waves of the card and a rest that is cut into segments.
KV_TEST("large matrices have the same bits in every shape of tile") {
  // Under racecheck (KVASIR_TEST_SMALL set) narrow ones.
  const std::int32_t cols = std::getenv("KVASIR_TEST_SMALL") != nullptr ? 256 : 2048;
  for (const kv_dtype dtype : {KV_Q4_K, KV_Q6_K, KV_Q8_0, KV_F16}) {
    const std::int32_t rows = 128 * 300 + 5, tokens = 130;
    const Weight w(dtype, rows, cols, 41);
    const std::vector<float> x = random_activations(tokens, cols, 42);
    const std::vector<float> together = product(w, x, 0, tokens, true, nullptr);
    for (const std::int32_t count : {1, 2, 8, 16, 32, 64}) {
      const std::int32_t first = 66;
      const std::vector<float> few = product(w, x, first, count, true, nullptr);
      const float* of_all = together.data() + std::ptrdiff_t{first} * rows;
      KV_CHECK_MSG(std::memcmp(few.data(), of_all, few.size() * 4) == 0, "%s, %d tokens", kv::weight_dtype_info(dtype)->name,
                   count);
    }
  }
}

KV_TEST("a token that is not finite leaves the others' bits alone") {
  const std::int32_t cols = 768, rows = 40, tokens = 40;
  const Weight w(KV_Q4_K, rows, cols, 1);
  std::vector<float> x = random_activations(tokens, cols, 4);
  const std::vector<float> before = product(w, x, 0, tokens, true, nullptr);
  x[static_cast<std::size_t>(9 * cols + 300)] = INFINITY;
  const std::vector<float> after = product(w, x, 0, tokens, true, nullptr);
  for (std::int32_t t = 0; t < tokens; ++t) {
    for (std::int32_t r = 0; r < rows; ++r) {
      const auto at = static_cast<std::size_t>(t * rows + r);
      KV_CHECK(t == 9 ? !std::isfinite(after[at]) : after[at] == before[at]);
    }
  }
}

KV_TEST("several parts of one input, added to what is there, are the parts alone") {
  const std::int32_t cols = 768;
  for (const std::int32_t tokens : {1, 2, 3, 19}) {
    const Weight a(KV_Q4_K, 40, cols, 1), b(KV_Q6_K, 24, cols, 2), c(KV_Q4_K, 17, cols, 3);
    const std::vector<float> x = random_activations(tokens, cols, 4);
    const Activations input(x, tokens, cols);
    const Weight* weights[] = {&a, &c, &b};
    std::vector<float> start(static_cast<std::size_t>(tokens) * 40, 2.0f);
    OnDevice<float> y0(start), y1(start), y2(start);
    OnDevice<float>* outputs[] = {&y0, &y1, &y2};
    kv::cuda::LinearArgs args{};
    for (int i = 0; i < 3; ++i) args.parts[i] = {weights[i]->matrix, nullptr, outputs[i]->data(), 40, 1};
    args.n_parts = 3;
    args.halves = input.halves();
    args.tokens = tokens;
    kv::cuda::linear(args, nullptr);
    for (int i = 0; i < 3; ++i) {
      const std::vector<float> alone = product(*weights[i], x, 0, tokens, true, nullptr);
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
}

KV_TEST("norms and gated activations stay within 2e-6 of float64") {
  for (const std::int32_t n : {1, 63, 64, 1000, 4096}) {
    const std::int32_t tokens = 3;
    const std::vector<float> x = random_floats(tokens * n, 5), joined = random_floats(tokens * n, 6);
    const std::vector<float> weight = random_floats(n, 7), join_weight = random_floats(n, 8);
    const OnDevice<float> x_at(x), joined_at(joined), weight_at(weight), join_at(join_weight);
    const OnDevice<float> y(static_cast<std::size_t>(tokens * n));
    kv::cuda::rms_norm({x_at.data(), joined_at.data(), join_at.data(), weight_at.data(), y.data(), {}, nullptr, n,
                        tokens, 1e-5f}, nullptr);
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
      kv::cuda::activation({gate_at.data(), up_at.data(), out.data(), {}, n, tokens, kind, 0},
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
