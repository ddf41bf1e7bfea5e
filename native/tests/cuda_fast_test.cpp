// The fast mode as a whole: what only this file can catch is a large step whose library products, 16-bit operands or
// attention on matrix units leave the bound that the strict modes are judged by, and a chunked prompt that decodes wrongly.
#include <cmath>
#include <cstdlib>

#include "tests/backend.h"
#include "tests/check.h"
#include "tests/test_runner.h"

namespace {

using namespace kv::test;

TinyShape shape_of(kv_dtype weights, std::uint32_t head_dim) {
  TinyShape shape;
  shape.weights = weights;
  shape.hidden = 256;
  shape.ffn = 512;
  shape.n_heads = 8;  // whole blocks of 256 columns for every head size
  shape.n_kv_heads = 2;
  shape.head_dim = head_dim;
  shape.rotary_dim = head_dim;
  shape.biases = true;
  shape.tied = false;
  return shape;
}

std::unique_ptr<BatchSpec> step_of(const std::vector<std::int32_t>& tokens, std::size_t begin, std::size_t end, std::uint8_t flags) {
  RowSpec row;
  row.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(begin), tokens.begin() + static_cast<std::ptrdiff_t>(end));
  row.start = static_cast<std::int32_t>(begin);
  row.tables = {{9, 4, 17, 2}};
  row.flags = flags;
  return std::make_unique<BatchSpec>(std::vector<RowSpec>{row}, 1);
}

// Logits of every token of a prompt given in chunks, then of the rest one by one.
std::vector<float> logits_of(const TinyModel& model, kv_activation_mode mode, const std::vector<std::int32_t>& tokens,
                             std::size_t chunk, std::size_t decoded) {
  kv_runner_options options = default_options();
  options.activation_mode = mode;
  TestRunner runner(model, options);
  KV_CHECK_MSG(runner.status == KV_OK, "%s", runner.message.c_str());
  std::vector<float> logits;
  if (runner.status != KV_OK) return logits;
  const std::size_t prompt = tokens.size() - decoded;
  for (std::size_t begin = 0; begin < tokens.size();) {
    const std::size_t end = begin < prompt ? std::min(prompt, begin + chunk) : begin + 1;
    const auto step = step_of(tokens, begin, end, KV_ROW_LOGITS_ALL);
    const Outcome out = runner.step(*step);
    KV_CHECK_MSG(out.status == KV_OK, "%s", out.message.c_str());
    logits.insert(logits.end(), out.logits.begin(), out.logits.end());
    begin = end;
  }
  return logits;
}

KV_TEST("large steps in fast mode stay within 3e-2 of float32 activations, chunked or not, and decode goes on from them") {
  for (const kv_dtype weights : {KV_F16, KV_BF16, KV_Q8_0, KV_Q4_K, KV_Q6_K, KV_Q5_0, KV_MXFP4, KV_F32}) {
    for (const std::uint32_t head_dim : {64u, 128u, 32u}) {
      // Under racecheck (KVASIR_TEST_SMALL set) two kinds of weights.
      if (std::getenv("KVASIR_TEST_SMALL") != nullptr && (head_dim != 64 || (weights != KV_F16 && weights != KV_Q4_K))) continue;
      const TinyModel model(shape_of(weights, head_dim));
      Random random(3);
      std::vector<std::int32_t> tokens(700);
      for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random.below(301));
      const std::vector<float> expected = logits_of(model, KV_ACTIVATIONS_FLOAT, tokens, 696, 4);
      for (const std::size_t chunk : {std::size_t{696}, std::size_t{200}}) {
        const std::vector<float> got = logits_of(model, KV_ACTIVATIONS_FAST, tokens, chunk, 4);
        KV_CHECK(got.size() == expected.size() && !got.empty());
        double error = 0, size = 0;
        for (std::size_t i = 0; i < std::min(got.size(), expected.size()); ++i) {
          error += std::pow(static_cast<double>(got[i]) - expected[i], 2);
          size += std::pow(static_cast<double>(expected[i]), 2);
        }
        const double relative = std::sqrt(error / size);
        std::printf("  weights %2d, head %3u, chunks of %zu: %.2e\n", weights, head_dim, chunk, relative);
        KV_CHECK_MSG(relative <= 3e-2, "weights %d, head %u, chunks of %zu: %g", weights, head_dim, chunk, relative);
      }
    }
  }
}

KV_TEST("fast mode has its own numerics id") {
  const TinyModel model(shape_of(KV_Q8_0, 64));
  kv_runner_options options = default_options();
  options.activation_mode = KV_ACTIVATIONS_FAST;
  TestRunner runner(model, options);
  KV_CHECK_MSG(runner.status == KV_OK, "%s", runner.message.c_str());
  char id[64] = "";
  if (runner.status == KV_OK) KV_CHECK(kv_runner_numerics_id(runner.handle, id, sizeof id, nullptr) == KV_OK);
  KV_CHECK_MSG(std::string(id) == "cuda-3/fast", "%s", id);
}

}  // namespace

int main(int argc, char** argv) {
  kv::test::instruction_paths();  // exits where the backend has no device
  return kv::test::run(argc, argv);
}
