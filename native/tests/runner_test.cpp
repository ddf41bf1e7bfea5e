// The waist's promises around a step: order and count of callbacks, cancellation, block functions, sampling state,
// device-side input tokens, and that a steady stream of steps allocates nothing.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <new>

#include "host/kv_format.h"
#include "tests/backend.h"
#include "tests/check.h"
#include "tests/half_float.h"
#include "tests/test_runner.h"

namespace {
std::atomic<long> g_allocations{0};
}

// Counts every allocation of the process, the runner's included: kv_memory's own counter could forget one. Not inlined:
// the compiler would see malloc and free of one pointer under different names and warn.
__attribute__((noinline)) void* operator new(std::size_t size) {
  g_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* data = std::malloc(size == 0 ? 1 : size)) return data;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* data) noexcept { std::free(data); }
__attribute__((noinline)) void operator delete(void* data, std::size_t) noexcept { std::free(data); }

namespace {

using namespace kv::test;

RowSpec decode_row(std::int32_t token, std::int32_t position, std::vector<std::int32_t> table) {
  RowSpec row;
  row.tokens = {token};
  row.start = position;
  row.tables = {std::move(table)};
  return row;
}

kv_sampler greedy(std::uint32_t slot) { return default_sampler(slot); }

KV_TEST("two batches in flight: the second reads what the first samples") {
  const TinyModel model(TinyShape{});
  TestRunner runner(model, default_options());
  RowSpec first = decode_row(5, 0, {3});
  first.flags = KV_ROW_SAMPLE | KV_ROW_HASH;
  first.slot = 2;
  RowSpec second = decode_row(0, 1, {3});
  second.input_row = 0;
  second.flags = KV_ROW_SAMPLE | KV_ROW_HASH;
  second.slot = 2;
  second.output_index = 1;
  const BatchSpec a({first}, 1, {greedy(2)}), b({second}, 1);
  Outcome one, two;
  KV_CHECK(runner.submit(a.batch, one) == KV_OK);
  KV_CHECK(runner.submit(b.batch, two) == KV_OK);
  runner.wait(two);
  KV_CHECK(one.status == KV_OK && two.status == KV_OK && one.calls == 1 && two.calls == 1);
  second.input_row = -1;
  second.tokens = {one.sampled[0]};
  const Outcome again = runner.step(BatchSpec({second}, 1));
  KV_CHECK(again.hashes[0] == two.hashes[0] && again.sampled == two.sampled);
}

KV_TEST("stop tokens and the output limit are flagged, the token first") {
  const TinyModel model(TinyShape{});
  TestRunner runner(model, default_options());
  RowSpec row = decode_row(5, 0, {3});
  row.flags = KV_ROW_SAMPLE;
  row.slot = 0;
  kv_sampler sampler = greedy(0);
  sampler.max_outputs = 3;
  const Outcome plain = runner.step(BatchSpec({row}, 1, {sampler}));
  KV_CHECK(plain.stops[0] == KV_STOP_NONE);
  row.output_index = 2;
  KV_CHECK(runner.step(BatchSpec({row}, 1)).stops[0] == KV_STOP_LENGTH);
  sampler.stop_ids = plain.sampled.data();
  sampler.n_stop = 1;
  KV_CHECK(runner.step(BatchSpec({row}, 1, {sampler})).stops[0] == KV_STOP_TOKEN);
}

KV_TEST("log-probabilities come for the rows that asked, of the unmodified distribution") {
  const TinyModel model(TinyShape{});
  TestRunner runner(model, default_options());
  RowSpec asking = decode_row(5, 0, {3}), silent = decode_row(6, 0, {4});
  asking.flags = KV_ROW_SAMPLE | KV_ROW_LOGITS_LAST;
  silent.flags = KV_ROW_SAMPLE;
  asking.slot = 0;
  silent.slot = 1;
  kv_sampler sampler = greedy(0);
  sampler.n_logprobs = 3;
  const std::int32_t banned[] = {0};
  const float low[] = {-1000.0f};
  sampler.bias_ids = banned;
  sampler.bias_values = low;
  sampler.n_bias = 1;
  const Outcome out = runner.step(BatchSpec({silent, asking}, 1, {sampler, greedy(1)}));
  KV_CHECK(out.max_logprobs == 3 && out.top_ids.size() == 6);
  KV_CHECK(std::isnan(out.logprobs[0]) && out.top_ids[0] == -1);
  double sum = 0;
  for (const float logit : out.logits) sum += std::exp(static_cast<double>(logit));
  const double expected = static_cast<double>(out.logits[static_cast<std::size_t>(out.sampled[1])]) - std::log(sum);
  KV_CHECK(std::fabs(out.logprobs[1] - expected) < 1e-5);
  KV_CHECK(out.top_logprobs[3] >= out.top_logprobs[4] && out.top_logprobs[4] >= out.top_logprobs[5]);
}

KV_TEST("a steady stream of decoding steps allocates nothing") {
  const TinyModel model(TinyShape{});
  kv_runner_options options = default_options();
  options.n_threads = 2;
  TestRunner runner(model, options);
  std::vector<std::unique_ptr<BatchSpec>> specs;
  for (int t = 0; t < 120; ++t) {
    RowSpec row = decode_row(7, t, {1});
    row.flags = KV_ROW_SAMPLE;
    row.slot = 0;
    row.output_index = t;
    kv_sampler sampler = greedy(0);
    sampler.temperature = 1;
    sampler.top_p = 0.9f;
    sampler.repetition_penalty = 1.1f;
    specs.push_back(std::make_unique<BatchSpec>(std::vector<RowSpec>{row}, 1u,
                                                t == 0 ? std::vector<kv_sampler>{sampler} : std::vector<kv_sampler>{}));
  }
  struct Waiter {
    std::mutex mutex;
    std::condition_variable changed;
    int done = 0;
  } waiter;
  const auto on_step = [](void* user, const kv_step_result* result, const kv_error*) {
    Waiter& at = *static_cast<Waiter*>(user);
    const std::lock_guard lock(at.mutex);
    if (result != nullptr) ++at.done;
    at.changed.notify_all();
  };
  const auto allocations = [&] {
    kv_memory memory{};
    memory.size = sizeof memory;
    kv_runner_memory(runner.handle, &memory, nullptr);
    return static_cast<long>(memory.allocations);
  };
  const auto run = [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      std::unique_lock lock(waiter.mutex);
      kv_runner_submit(runner.handle, &specs[i]->batch, on_step, &waiter, nullptr);
      waiter.changed.wait(lock, [&] { return waiter.done == static_cast<int>(i) + 1; });
    }
  };
  run(0, 20);
  const long before = g_allocations, counted = allocations();
  run(20, 120);
  KV_CHECK(waiter.done == 120);
  KV_CHECK_MSG(g_allocations == before, "%ld allocations in 100 steps", g_allocations - before);
  KV_CHECK(allocations() == counted);
}

KV_TEST("a payload moves a block unchanged: read, write elsewhere, and the sequence goes on with equal bits") {
  for (const kv_dtype dtype : pool_dtypes()) {
    TinyShape shape;
    shape.head_dim = kv::is_quantized_kv(dtype) ? 24 : 20;
    const TinyModel model(shape);
    kv_runner_options options = default_options();
    options.kv_dtype = dtype;
    TestRunner runner(model, options);
    RowSpec prompt;
    for (int i = 0; i < 300; ++i) prompt.tokens.push_back(i % 301);
    prompt.tables = {{2, 9}};
    KV_CHECK(runner.step(BatchSpec({prompt}, 1)).status == KV_OK);
    const Outcome expected = runner.step(BatchSpec({decode_row(8, 300, {2, 9})}, 1));

    std::uint64_t bytes = 0;
    KV_CHECK(kv_runner_block_bytes(runner.handle, 0, &bytes, nullptr) == KV_OK);
    const std::uint64_t record = dtype == KV_F32 ? 80 : dtype == KV_Q8 ? 24 + 2 : dtype == KV_Q4 ? 12 + 4 : 40;
    KV_CHECK(bytes == 2ull * 2 * 2 * 256 * record);
    std::vector<std::uint8_t> payload(2 * bytes);
    const std::int32_t from[] = {2, 9}, to[] = {30, 4};
    KV_CHECK(runner.blocks([&](kv_done_callback done, void* user, kv_error* error) {
      return kv_runner_read_blocks(runner.handle, 0, from, 2, payload.data(), 2 * bytes, done, user, error);
    }).status == KV_OK);
    KV_CHECK(runner.blocks([&](kv_done_callback done, void* user, kv_error* error) {
      return kv_runner_write_blocks(runner.handle, 0, to, 2, payload.data(), 2 * bytes, done, user, error);
    }).status == KV_OK);
    KV_CHECK(runner.step(BatchSpec({decode_row(8, 300, {30, 4})}, 1)).hashes == expected.hashes);

    // The first 44 slots of the second block are enough: 300 tokens end there.
    const std::int32_t copy_from[] = {2, 9}, copy_to[] = {11, 12}, counts[] = {256, 44};
    KV_CHECK(runner.blocks([&](kv_done_callback done, void* user, kv_error* error) {
      return kv_runner_copy_blocks(runner.handle, 0, copy_from, copy_to, counts, 2, done, user, error);
    }).status == KV_OK);
    KV_CHECK(runner.step(BatchSpec({decode_row(8, 300, {11, 12})}, 1)).hashes == expected.hashes);
  }
}

// Each run of values by the Walsh-Hadamard matrix: sign by the parity of the bits that row and column share.
void rotate_runs(float* x, std::uint32_t n, const kv::KvRotation& rotation) {
  for (std::uint32_t begin = 0; begin < n; begin += rotation.block) {
    std::vector<float> y(rotation.block, 0.0f);
    for (std::uint32_t i = 0; i < rotation.block; ++i) {
      for (std::uint32_t j = 0; j < rotation.block; ++j) {
        y[i] += (__builtin_popcount(i & j) % 2 == 0 ? 1.0f : -1.0f) * x[begin + j] * rotation.key_factor;
      }
    }
    std::copy(y.begin(), y.end(), x + begin);
  }
}

KV_TEST("a quantized payload's record is codes, scales, minima; K is rotated, V is not") {
  for (const kv_dtype dtype : pool_dtypes()) {
    if (!kv::is_quantized_kv(dtype)) continue;
    TinyShape shape;
    shape.n_layers = 1;
    shape.head_dim = 128;
    shape.head_norms = true;
    const TinyModel model(shape);
    const auto payload_of = [&](kv_dtype pool_dtype) {
      kv_runner_options options = default_options();
      options.kv_dtype = pool_dtype;
      TestRunner runner(model, options);
      RowSpec prompt;
      for (int i = 0; i < 200; ++i) prompt.tokens.push_back(i);
      prompt.tables = {{5}};
      KV_CHECK(runner.step(BatchSpec({prompt}, 1)).status == KV_OK);
      std::uint64_t bytes = 0;
      kv_runner_block_bytes(runner.handle, 0, &bytes, nullptr);
      std::vector<std::uint8_t> payload(bytes);
      const std::int32_t block = 5;
      KV_CHECK(runner.blocks([&](kv_done_callback done, void* user, kv_error* error) {
        return kv_runner_read_blocks(runner.handle, 0, &block, 1, payload.data(), bytes, done, user, error);
      }).status == KV_OK);
      return payload;
    };
    const std::vector<std::uint8_t> exact = payload_of(KV_F32), stored = payload_of(dtype);
    const std::size_t record = kv::kv_record_bytes(dtype, 128), code_bytes = dtype == KV_Q8 ? 128 : 64;
    const kv::KvRotation rotation = kv::kv_rotation(dtype, 128);
    const auto half_at = [&](std::size_t at) {
      Half half;
      std::memcpy(&half, &stored[at], 2);
      return static_cast<float>(half);
    };
    for (std::size_t head = 0; head < 4; ++head) {  // K of both KV heads, then V
      for (std::size_t token = 0; token < 200; ++token) {
        const std::size_t at = (head * 256 + token) * record;
        float x[128], most = 0;
        std::memcpy(x, &exact[(head * 256 + token) * 512], 512);
        if (head < 2) rotate_runs(x, 128, rotation);
        for (const float value : x) most = std::max(most, std::fabs(value));
        for (std::size_t d = 0; d < 128; ++d) {
          const std::size_t group = d / 64;
          float value = half_at(at + code_bytes + 2 * group);
          if (dtype == KV_Q8) {
            value *= static_cast<float>(static_cast<std::int8_t>(stored[at + d]));
          } else {
            const std::uint8_t byte = stored[at + group * 32 + d % 32];
            value = value * static_cast<float>(d % 64 < 32 ? byte & 15 : byte >> 4) +
                    half_at(at + code_bytes + 4 + 2 * group);
          }
          KV_CHECK_MSG(std::fabs(value - x[d]) < most * (dtype == KV_Q8 ? 0.006f : 0.07f), "head %zu token %zu d=%zu: %g, not %g",
                       head, token, d, static_cast<double>(value), static_cast<double>(x[d]));
        }
      }
    }
  }
}

KV_TEST("the payload's order is layer, K then V, head, token, dim") {
  TinyShape shape;
  shape.n_layers = 1;
  const TinyModel model(shape);
  kv_runner_options options = default_options();
  options.kv_dtype = KV_F32;
  TestRunner runner(model, options);
  std::uint64_t bytes = 0;
  kv_runner_block_bytes(runner.handle, 0, &bytes, nullptr);
  std::vector<float> payload(bytes / 4, 0.0f);
  // V of head 1, token 0 differs from head 0's; K all zero: attention returns V of token 0 and 1 averaged.
  const std::int32_t block = 6;
  const auto write = [&] {
    return runner.blocks([&](kv_done_callback done, void* user, kv_error* error) {
      return kv_runner_write_blocks(runner.handle, 0, &block, 1, payload.data(), bytes, done, user, error);
    }).status;
  };
  RowSpec row = decode_row(3, 1, {6});
  KV_CHECK(write() == KV_OK);
  const Outcome before = runner.step(BatchSpec({row}, 1));
  const std::size_t half = 2u * 256 * 16;
  payload[half + 256 * 16 + 200 * 16] = 1.0f;  // V, head 1, token 200: not attended to
  KV_CHECK(write() == KV_OK);
  KV_CHECK(runner.step(BatchSpec({row}, 1)).hashes == before.hashes);
  payload[half + 256 * 16 + 3] = 1.0f;  // V, head 1, token 0, dim 3
  KV_CHECK(write() == KV_OK);
  KV_CHECK(runner.step(BatchSpec({row}, 1)).hashes != before.hashes);
}

KV_TEST("slot -1 leaves the pool alone and gives the bits of the written token") {
  const TinyModel model(TinyShape{});
  TestRunner runner(model, default_options());
  RowSpec prompt;
  prompt.tokens = {1, 2, 3, 4};
  prompt.tables = {{8}};
  const Outcome written = runner.step(BatchSpec({prompt}, 1));
  RowSpec last = decode_row(4, 3, {8});
  last.write = false;
  KV_CHECK(runner.step(BatchSpec({last}, 1)).hashes == written.hashes);
}

KV_TEST("destroying a runner with work queued calls every callback once: finished or cancelled") {
  const TinyModel model(TinyShape{});
  for (int round = 0; round < 20; ++round) {
    std::vector<Outcome> outcomes(12);
    {
      TestRunner runner(model, default_options());
      RowSpec prompt;
      for (int i = 0; i < 60; ++i) prompt.tokens.push_back(i);
      prompt.tables = {{8}};
      const BatchSpec spec({prompt}, 1);
      for (Outcome& outcome : outcomes) KV_CHECK(runner.submit(spec.batch, outcome) == KV_OK);
    }
    bool cancelled = false;
    for (const Outcome& outcome : outcomes) {
      KV_CHECK(outcome.calls == 1);
      KV_CHECK(outcome.status == KV_OK || outcome.status == KV_CANCELLED);
      KV_CHECK(!cancelled || outcome.status == KV_CANCELLED);
      cancelled = cancelled || outcome.status == KV_CANCELLED;
    }
  }
}

KV_TEST("loading reports progress to the end and stops when asked") {
  const TinyModel model(TinyShape{});
  const kv_runner_options options = default_options();
  struct Seen {
    std::uint64_t last = 0, total = 0;
    int calls = 0;
    bool stop = false;
  } seen;
  const auto on_progress = [](void* user, std::uint64_t done, std::uint64_t total) {
    Seen& at = *static_cast<Seen*>(user);
    KV_CHECK(done > at.last && done <= total);
    at.last = done;
    at.total = total;
    return ++at.calls == 3 && at.stop ? 1 : 0;
  };
  kv_runner* runner = nullptr;
  KV_CHECK(kv_runner_create(&model.model, &options, on_progress, &seen, &runner, nullptr) == KV_OK);
  kv_runner_destroy(runner);
  KV_CHECK(seen.last == seen.total && seen.calls > 3);
  seen = {};
  seen.stop = true;
  runner = nullptr;
  KV_CHECK(kv_runner_create(&model.model, &options, on_progress, &seen, &runner, nullptr) == KV_CANCELLED);
  KV_CHECK(runner == nullptr && seen.calls == 3);
  kv_runner_destroy(nullptr);
}

KV_TEST("the runner names its numerics, its path and its memory") {
  const TinyModel model(TinyShape{});
  kv_runner_options options = default_options();
  char text[64];
  for (const auto& [mode, id] : {std::pair{KV_ACTIVATIONS_FLOAT, "/float-activations"},
                                 std::pair{KV_ACTIVATIONS_QUANTIZED, kQuantizedActivations}}) {
    options.activation_mode = mode;
    TestRunner runner(model, options);
    KV_CHECK(kv_runner_numerics_id(runner.handle, text, sizeof text, nullptr) == KV_OK && std::string(text) == kNumerics + std::string(id));
    KV_CHECK(kv_runner_instruction_path(runner.handle, text, sizeof text, nullptr) == KV_OK);
    KV_CHECK(kv_runner_numerics_id(runner.handle, text, 3, nullptr) == KV_INVALID_ARGUMENT);
    kv_memory memory{};
    memory.size = sizeof memory;
    KV_CHECK(kv_runner_memory(runner.handle, &memory, nullptr) == KV_OK);
    KV_CHECK(memory.kv_pool_bytes == 40ull * 2 * 2 * 2 * 256 * 16 * 2);
    KV_CHECK(kMapsFiles ? memory.weights_mapped_bytes == model.bytes.size() : memory.weights_repacked_bytes > 0);
    KV_CHECK(memory.workspace_bytes > 0 && memory.allocations > 0);
  }
  kv_backend_info info{};
  info.size = sizeof info;
  KV_CHECK(kv_get_backend_info(&info, nullptr) == KV_OK && std::string(info.name) == kBackend);
}

}  // namespace

int main(int argc, char** argv) {
  kv::test::instruction_paths();  // exits where the backend has no device
  return kv::test::run(argc, argv);
}
