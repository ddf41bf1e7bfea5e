// The same token ids give the same bits: whole models, compared by the hash of their logits. What only this file can
// catch: a path, a thread count, a chunk size, a neighbour in the batch or a block table that shows in the output.
#include <algorithm>
#include <cstdlib>

#include "host/kv_format.h"
#include "tests/backend.h"
#include "tests/check.h"
#include "tests/test_runner.h"

namespace {

using namespace kv::test;

std::vector<std::int32_t> random_tokens(std::size_t count, std::uint32_t vocab, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::int32_t> tokens(count);
  for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random.below(vocab));
  return tokens;
}

// Block ids in no order, disjoint between sequences; groups use different ones.
std::vector<std::vector<std::int32_t>> tables(std::uint32_t n_groups, int n_blocks, int first, int stride) {
  std::vector<std::vector<std::int32_t>> result(n_groups);
  for (std::uint32_t g = 0; g < n_groups; ++g) {
    for (int i = 0; i < n_blocks; ++i) {
      result[g].push_back((first + (i + static_cast<int>(g)) * stride) % 40);
    }
  }
  return result;
}

struct Sequence {
  std::vector<std::int32_t> tokens;
  std::vector<std::vector<std::int32_t>> tables;
};

RowSpec row_of(const Sequence& sequence, std::size_t begin, std::size_t end) {
  RowSpec row;
  row.tokens.assign(sequence.tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                    sequence.tokens.begin() + static_cast<std::ptrdiff_t>(end));
  row.start = static_cast<std::int32_t>(begin);
  row.tables = sequence.tables;
  return row;
}

// Hashes after each of the last `decoded` tokens: the rest is prefilled in chunks, those one by one.
std::vector<std::uint64_t> hashes_alone(TestRunner& runner, const TinyModel& model, const Sequence& sequence,
                                        std::size_t chunk, std::size_t decoded) {
  std::vector<std::uint64_t> hashes;
  const std::size_t prompt = sequence.tokens.size() - decoded;
  for (std::size_t begin = 0; begin < prompt; begin += chunk) {
    const Outcome out =
        runner.step(BatchSpec({row_of(sequence, begin, std::min(prompt, begin + chunk))}, model.model.n_groups));
    KV_CHECK_MSG(out.status == KV_OK, "%s", out.message.c_str());
  }
  for (std::size_t t = prompt; t < sequence.tokens.size(); ++t) {
    const Outcome out = runner.step(BatchSpec({row_of(sequence, t, t + 1)}, model.model.n_groups));
    hashes.push_back(out.hashes.empty() ? 0 : out.hashes[0]);
  }
  return hashes;
}

// The hashes of the last `decoded` positions, all rows of one prefill apart.
std::vector<std::uint64_t> hashes_prefilled(TestRunner& runner, const TinyModel& model, const Sequence& sequence,
                                            std::size_t decoded) {
  std::vector<std::uint64_t> hashes;
  for (std::size_t end = sequence.tokens.size() - decoded + 1; end <= sequence.tokens.size(); ++end) {
    const Outcome out = runner.step(BatchSpec({row_of(sequence, 0, end)}, model.model.n_groups));
    hashes.push_back(out.hashes.empty() ? 0 : out.hashes[0]);
  }
  return hashes;
}

std::vector<TinyShape> shapes() {
  TinyShape llama;
  llama.rope_style = KV_ROPE_INTERLEAVED;
  TinyShape quantized;
  quantized.weights = KV_Q8_0;
  quantized.biases = true;
  quantized.n_heads = 7;
  quantized.n_kv_heads = 1;
  quantized.head_dim = 32;
  quantized.rotary_dim = 16;
  TinyShape hybrid;
  hybrid.n_layers = 4;
  hybrid.window_of_odd_layers = 100;
  hybrid.head_norms = hybrid.post_norms = hybrid.sinks = true;
  hybrid.logit_softcap = 20;
  hybrid.head_dim = 24;
  hybrid.tied = false;
  hybrid.activation = KV_ACT_GELU_TANH;
  if (!kWideHeadsDiffer) return {llama, quantized, hybrid};
  TinyShape wide;
  wide.n_heads = 6;
  wide.n_kv_heads = 2;
  wide.head_dim = 64;
  wide.rotary_dim = 64;
  wide.n_layers = 3;
  wide.window_of_odd_layers = 150;
  wide.sinks = true;
  TinyShape wider;
  wider.n_heads = 7;
  wider.n_kv_heads = 1;
  wider.head_dim = 128;
  wider.rotary_dim = 128;
  wider.n_layers = 1;
  // Heads of odd length whose means are whole blocks of columns.
  TinyShape odd;
  odd.weights = KV_BF16;
  odd.n_heads = 256;
  odd.n_kv_heads = 2;
  odd.head_dim = 3;
  odd.rotary_dim = 2;
  odd.n_layers = 1;
  return {llama, quantized, hybrid, wide, wider, odd};
}

// Quantized pools take heads of whole groups alone.
std::vector<kv_dtype> pools_of(const TinyShape& shape) {
  std::vector<kv_dtype> dtypes = pool_dtypes();
  std::erase_if(dtypes, [&](kv_dtype dtype) { return !kv::kv_dtype_takes(dtype, shape.head_dim); });
  return dtypes;
}

constexpr std::size_t kDecoded = 3;

KV_TEST("equal tokens give equal bits on every path, thread count, chunk size and KV dtype") {
  for (const TinyShape& shape : shapes()) {
    const TinyModel model(shape);
    const Sequence sequence{random_tokens(700, shape.vocab, 5), tables(model.model.n_groups, 3, 7, 11)};
    for (const kv_dtype dtype : pools_of(shape)) {
      std::vector<std::uint64_t> expected;
      for (const std::string& path : instruction_paths()) {
        for (const std::uint32_t threads : {1u, 2u, 3u}) {
          // The scalar path is a hundred times slower: one thread count is enough for it.
          if (path == "scalar" && threads != 2) continue;
          kv_runner_options options = default_options();
          options.kv_dtype = dtype;
          options.n_threads = threads;
          options.instruction_path = path.c_str();
          TestRunner runner(model, options);
          KV_CHECK_MSG(runner.status == KV_OK, "%s", runner.message.c_str());
          for (const std::size_t chunk : {std::size_t{7}, std::size_t{256}, std::size_t{2048}}) {
            // Small chunks are many steps: one thread count is enough for them.
            if (chunk == 7 && (threads != 2 || dtype == KV_F32 || dtype == KV_BF16)) continue;
            const auto hashes = hashes_alone(runner, model, sequence, chunk, kDecoded);
            if (expected.empty()) expected = hashes;
            KV_CHECK_MSG(hashes == expected, "%s, %u threads, chunk %zu, dtype %d", path.c_str(), threads, chunk, dtype);
          }
        }
      }
    }
  }
}

KV_TEST("a token decoded alone has the bits it has as the last of one prefill, chunks of 1 included") {
  for (const TinyShape& shape : shapes()) {
    const TinyModel model(shape);
    const Sequence sequence{random_tokens(300, shape.vocab, 6), tables(model.model.n_groups, 2, 3, 17)};
    for (const kv_dtype dtype : pools_of(shape)) {
      kv_runner_options options = default_options();
      options.n_threads = 2;
      options.kv_dtype = dtype;
      TestRunner runner(model, options);
      const auto decoded = hashes_alone(runner, model, sequence, 1, kDecoded);
      const auto prefilled = hashes_prefilled(runner, model, sequence, kDecoded);
      KV_CHECK_MSG(decoded == prefilled, "dtype %d", dtype);
      KV_CHECK(decoded[0] != decoded[1]);
    }
  }
}

KV_TEST("random batches with strangers give the bits of each sequence alone") {
  // Under emulation (KVASIR_TEST_SMALL set) a round takes minutes.
  const int rounds = std::getenv("KVASIR_TEST_SMALL") != nullptr ? 1 : 6;
  for (const TinyShape& shape : shapes()) {
    const TinyModel model(shape);
    Random random(99);
    for (int round = 0; round < rounds; ++round) {
      kv_runner_options options = default_options();
      const std::vector<kv_dtype> dtypes = pools_of(shape);
      options.kv_dtype = dtypes[static_cast<std::size_t>(round) % dtypes.size()];
      options.n_threads = 1 + random.below(3);
      TestRunner together(model, options);
      options.n_threads = 1;
      TestRunner alone(model, options);
      constexpr int kSequences = 8;
      std::vector<Sequence> sequences;
      for (int i = 0; i < kSequences; ++i) {
        sequences.push_back({random_tokens(20 + random.below(600), shape.vocab, random.next()),
                             tables(model.model.n_groups, 3, i, kSequences)});
      }
      std::vector<std::size_t> done(kSequences, 0);
      std::vector<std::uint64_t> last(kSequences, 0);
      bool busy = true;
      while (busy) {
        std::vector<RowSpec> rows;
        std::vector<int> who;
        busy = false;
        for (int i = 0; i < kSequences; ++i) {
          const auto at = static_cast<std::size_t>(i);
          const std::size_t left = sequences[at].tokens.size() - done[at];
          if (left == 0) continue;
          busy = true;
          if (random.below(4) == 0) continue;  // sits this step out
          const std::size_t count = std::min<std::size_t>(left, 1 + random.below(random.below(2) == 0 ? 2 : 200));
          rows.push_back(row_of(sequences[at], done[at], done[at] + count));
          // Some rows only fill the pool.
          if (random.below(3) == 0 && count < left) rows.back().flags = 0;
          done[at] += count;
          who.push_back(i);
        }
        if (rows.empty()) continue;
        const Outcome out = together.step(BatchSpec(rows, model.model.n_groups));
        KV_CHECK_MSG(out.status == KV_OK, "%s", out.message.c_str());
        for (std::size_t r = 0; r < who.size(); ++r) last[static_cast<std::size_t>(who[r])] = out.hashes[r];
      }
      for (int i = 0; i < kSequences; ++i) {
        const auto at = static_cast<std::size_t>(i);
        Sequence moved = sequences[at];
        moved.tables = tables(model.model.n_groups, 3, 39 - i, 13);
        const Outcome out = alone.step(BatchSpec({row_of(moved, 0, moved.tokens.size())}, model.model.n_groups));
        KV_CHECK_MSG(out.hashes[0] == last[at], "round %d, sequence %d of %zu tokens", round, i, moved.tokens.size());
      }
    }
  }
}

KV_TEST("each of 32 sequences decoded together has the bits it has alone") {
  for (const TinyShape& shape : shapes()) {
    const TinyModel model(shape);
    kv_runner_options options = default_options();
    options.max_batch_sequences = 32;
    TestRunner together(model, options);
    TestRunner alone(model, default_options());
    constexpr std::size_t kSequences = 32;
    std::vector<Sequence> sequences;
    for (std::size_t i = 0; i < kSequences; ++i) {
      sequences.push_back({random_tokens(20 + 7 * i, shape.vocab, 100 + i),
                           tables(model.model.n_groups, 1, static_cast<int>(i), 1)});
    }
    std::vector<std::uint64_t> last;
    for (std::size_t left = kDecoded; left-- > 0;) {
      std::vector<RowSpec> rows;
      for (const Sequence& sequence : sequences) {
        const std::size_t end = sequence.tokens.size() - left;
        if (left == kDecoded - 1) {
          const Outcome out = together.step(BatchSpec({row_of(sequence, 0, end - 1)}, model.model.n_groups));
          KV_CHECK_MSG(out.status == KV_OK, "%s", out.message.c_str());
        }
        rows.push_back(row_of(sequence, end - 1, end));
      }
      const Outcome out = together.step(BatchSpec(rows, model.model.n_groups));
      KV_CHECK_MSG(out.status == KV_OK, "%s", out.message.c_str());
      last = out.hashes;
    }
    for (std::size_t i = 0; i < kSequences; ++i) {
      Sequence moved = sequences[i];
      moved.tables = tables(model.model.n_groups, 1, 39, 1);
      const Outcome out = alone.step(BatchSpec({row_of(moved, 0, moved.tokens.size())}, model.model.n_groups));
      KV_CHECK_MSG(out.hashes[0] == last[i], "sequence %zu of %zu tokens", i, moved.tokens.size());
    }
  }
}

KV_TEST("logits of all rows, targets and hashes agree with each other") {
  const TinyModel model(shapes()[1]);
  kv_runner_options options = default_options();
  options.n_threads = 2;
  TestRunner runner(model, options);
  const Sequence sequence{random_tokens(90, 301, 8), tables(1, 1, 5, 1)};
  RowSpec row = row_of(sequence, 0, 90);
  row.flags = KV_ROW_LOGITS_ALL | KV_ROW_TARGETS | KV_ROW_HASH;
  row.targets.assign(90, 17);
  row.targets[3] = -1;
  const Outcome all = runner.step(BatchSpec({row}, 1));
  KV_CHECK(all.logits.size() == 90u * 301u);
  row.flags = KV_ROW_LOGITS_LAST | KV_ROW_HASH;
  const Outcome last = runner.step(BatchSpec({row}, 1));
  KV_CHECK(last.hashes[0] == all.hashes[0]);
  KV_CHECK(std::equal(last.logits.begin(), last.logits.end(), all.logits.end() - 301));
  for (std::size_t t = 0; t < 90; ++t) {
    double sum = 0;
    for (std::size_t i = 0; i < 301; ++i) sum += std::exp(static_cast<double>(all.logits[t * 301 + i]));
    const double expected = all.logits[t * 301 + 17] - std::log(sum);
    if (t == 3) {
      KV_CHECK(std::isnan(all.targets[t]));
    } else {
      KV_CHECK_MSG(std::fabs(all.targets[t] - expected) < 1e-5, "token %zu: %g, expected %g", t,
                   static_cast<double>(all.targets[t]), expected);
    }
  }
}

KV_TEST("the hash notices one changed token and one changed KV value (negative control)") {
  const TinyModel model(shapes()[0]);
  TestRunner runner(model, default_options());
  Sequence sequence{random_tokens(400, 301, 9), tables(1, 2, 5, 1)};
  const auto expected = hashes_alone(runner, model, sequence, 400, kDecoded);
  Sequence other = sequence;
  other.tokens[10] = (other.tokens[10] + 1) % 301;
  KV_CHECK(hashes_alone(runner, model, other, 400, kDecoded) != expected);

  KV_CHECK(hashes_alone(runner, model, sequence, 400, kDecoded) == expected);
  std::uint64_t bytes = 0;
  KV_CHECK(kv_runner_block_bytes(runner.handle, 0, &bytes, nullptr) == KV_OK);
  std::vector<std::uint8_t> payload(bytes);
  const std::int32_t block = 5;
  KV_CHECK(runner.blocks([&](kv_done_callback done, void* user, kv_error* error) {
    return kv_runner_read_blocks(runner.handle, 0, &block, 1, payload.data(), bytes, done, user, error);
  }).status == KV_OK);
  payload[bytes - 2] ^= 0x10;  // a mantissa bit of the last value of V in the last layer
  KV_CHECK(runner.blocks([&](kv_done_callback done, void* user, kv_error* error) {
    return kv_runner_write_blocks(runner.handle, 0, &block, 1, payload.data(), bytes, done, user, error);
  }).status == KV_OK);
  const Outcome out = runner.step(BatchSpec({row_of(sequence, 399, 400)}, 1));
  KV_CHECK(out.hashes[0] != expected[2]);
}

}  // namespace

int main(int argc, char** argv) {
  kv::test::instruction_paths();  // exits where the backend has no device
  return kv::test::run(argc, argv);
}
