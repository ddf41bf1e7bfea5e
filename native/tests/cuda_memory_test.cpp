// The device's memory: what is planned is what is taken, all of it is known by purpose and lies where it should, and a
// runner that does not fit is refused before anything large is allocated.
#include <unistd.h>

#include "common/status.h"
#include "cuda/runtime/device.h"
#include "cuda/runtime/device_memory.h"
#include "tests/backend.h"
#include "tests/check.h"
#include "tests/test_runner.h"

namespace {

using namespace kv::test;
using kv::cuda::DeviceLedger;

constexpr std::uint64_t kLoadingBytes = std::uint64_t{64} << 20;  // staging on the device while weights are sent
constexpr std::uint64_t kPageBytes = std::uint64_t{2} << 20;      // the driver's own
constexpr std::uint64_t kDriverBytes = std::uint64_t{256} << 20;  // rounding, and what cuBLAS keeps for itself

kv_memory_plan plan_of(const TinyModel& model, const kv_runner_options& options) {
  kv_memory_plan plan{};
  plan.size = sizeof plan;
  kv_error error{};
  error.size = sizeof error;
  KV_CHECK_MSG(kv_plan_memory(&model.model, &options, &plan, &error) == KV_OK, "%s", error.message);
  return plan;
}

kv_memory memory_of(TestRunner& runner) {
  kv_memory memory{};
  memory.size = sizeof memory;
  KV_CHECK(kv_runner_memory(runner.handle, &memory, nullptr) == KV_OK);
  return memory;
}

RowSpec decoding_row(std::int32_t token, std::int32_t position) {
  RowSpec row;
  row.tokens = {token};
  row.start = position;
  row.tables = {{3}};
  return row;
}

KV_TEST("what is planned is what is taken, in both modes, and all of it comes back") {
  const TinyModel model(TinyShape{});
  for (const kv_activation_mode mode : {KV_ACTIVATIONS_QUANTIZED, KV_ACTIVATIONS_FAST}) {
    kv_runner_options options = default_options();
    options.activation_mode = mode;
    options.max_batch_tokens = 4096;
    { const TestRunner first(model, options); }  // the driver loads code on the first use
    const kv_memory_plan plan = plan_of(model, options);
    {
      TestRunner runner(model, options);
      KV_CHECK_MSG(runner.status == KV_OK, "%s", runner.message.c_str());
      const kv_memory memory = memory_of(runner);
      KV_CHECK(plan.weights_bytes == memory.weights_repacked_bytes && plan.weights_bytes > 0);
      KV_CHECK(plan.kv_pool_bytes == memory.kv_pool_bytes);
      KV_CHECK_MSG(memory.workspace_bytes > 0 && plan.workspace_bytes >= memory.workspace_bytes,
                   "planned %llu, found %llu", static_cast<unsigned long long>(plan.workspace_bytes),
                   static_cast<unsigned long long>(memory.workspace_bytes));
      // Beyond the plan's floor, which is what loading holds meanwhile, it is exact.
      KV_CHECK(plan.workspace_bytes <= kLoadingBytes || plan.workspace_bytes == memory.workspace_bytes);
      KV_CHECK(memory.pinned_bytes > 0 && plan.pinned_bytes >= memory.pinned_bytes);
      KV_CHECK(plan.free_bytes <= plan.total_bytes);
      const std::uint64_t held = memory.weights_repacked_bytes + memory.kv_pool_bytes + memory.workspace_bytes;
      const std::uint64_t taken = plan.free_bytes - kv::cuda::device_bytes().free;
      KV_CHECK_MSG(taken >= held && taken <= held + kDriverBytes, "held %llu, taken %llu",
                   static_cast<unsigned long long>(held), static_cast<unsigned long long>(taken));
    }
    const kv_memory_plan after = plan_of(model, options);
    KV_CHECK_MSG(after.free_bytes + kPageBytes >= plan.free_bytes, "free before %llu, after %llu",
                 static_cast<unsigned long long>(plan.free_bytes), static_cast<unsigned long long>(after.free_bytes));
  }
}

KV_TEST("a runner that does not fit is refused with every purpose, before anything is allocated") {
  const TinyModel model(TinyShape{});
  kv_runner_options options = default_options();
  options.n_blocks[0] = 8'000'000;
  const std::uint64_t before = kv::cuda::device_bytes().free;
  const TestRunner runner(model, options);
  KV_CHECK(runner.status == KV_OUT_OF_MEMORY);
  for (const char* word : {"free of", "weights", "KV pool", "workspace"}) {
    KV_CHECK_MSG(runner.message.find(word) != std::string::npos, "%s", runner.message.c_str());
  }
  KV_CHECK(kv::cuda::device_bytes().free == before);
  const TestRunner next(model, default_options());
  KV_CHECK(next.status == KV_OK);
}

KV_TEST("kernels have no heap") {
  const TinyModel model(TinyShape{});
  const TestRunner runner(model, default_options());
  std::size_t heap = 1;
  KV_CHECK(cudaDeviceGetLimit(&heap, cudaLimitMallocHeapSize) == cudaSuccess);
  KV_CHECK_MSG(heap < std::size_t{8} << 20, "%zu bytes, the driver's own choice", heap);
}

KV_TEST("residency is checked at load and again while steps run, and decoding allocates nothing") {
  const TinyModel model(TinyShape{});
  TestRunner runner(model, default_options());
  const kv_memory loaded = memory_of(runner);
  KV_CHECK(loaded.residency_checks == 1 && loaded.residency_failures == 0);
  std::int32_t position = 0;
  const auto decode = [&](int steps) {
    for (int i = 0; i < steps; ++i) {
      const Outcome out = runner.step(BatchSpec({decoding_row(5, position)}, 1));
      KV_CHECK_MSG(out.status == KV_OK, "%s", out.message.c_str());
      position = (position + 1) % kBk;
    }
  };
  decode(10);
  const kv_memory warm = memory_of(runner);
  const std::uint64_t free_bytes = kv::cuda::device_bytes().free;
  decode(2100);
  const kv_memory later = memory_of(runner);
  KV_CHECK_MSG(later.residency_checks >= warm.residency_checks + 2, "%llu checks",
               static_cast<unsigned long long>(later.residency_checks));
  KV_CHECK(later.residency_failures == 0);
  KV_CHECK(later.allocations == warm.allocations);
  KV_CHECK(kv::cuda::device_bytes().free + kPageBytes >= free_bytes);
}

KV_TEST("a step whose results fit no memory ends with its code, and the next one works") {
  const long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
  if (static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page_bytes) > std::uint64_t{250} << 30) return skip("this machine has memory for 256 GiB of logits");
  TinyShape shape;
  shape.vocab = 1 << 20;
  shape.weights = KV_F16;
  shape.context_length = 65536;
  const TinyModel model(shape);
  kv_runner_options options = default_options();
  options.max_batch_tokens = 65535;
  options.max_blocks_per_sequence = 256;
  options.n_blocks[0] = 256;
  options.poison_pool = 0;
  TestRunner runner(model, options);
  KV_CHECK_MSG(runner.status == KV_OK, "%s", runner.message.c_str());
  RowSpec row;
  row.tokens.assign(65535, 7);
  row.tables = {{}};
  for (std::int32_t block = 0; block < 256; ++block) row.tables[0].push_back(block);
  row.flags = KV_ROW_LOGITS_ALL;
  const Outcome refused = runner.step(BatchSpec({row}, 1));  // 256 GiB of logits
  KV_CHECK(refused.status == KV_OUT_OF_MEMORY);
  KV_CHECK_MSG(refused.message.find("returned logits") != std::string::npos, "%s", refused.message.c_str());
  const kv_memory held = memory_of(runner);
  row.tokens.assign(3, 7);
  row.flags = KV_ROW_LOGITS_ALL | KV_ROW_HASH;
  const Outcome next = runner.step(BatchSpec({row}, 1));
  KV_CHECK_MSG(next.status == KV_OK && next.logits.size() == std::size_t{3} << 20, "%s", next.message.c_str());
  const Outcome decoded = runner.step(BatchSpec({decoding_row(7, 0)}, 1));
  KV_CHECK(decoded.status == KV_OK);
  KV_CHECK(runner.step(BatchSpec({decoding_row(7, 0)}, 1)).hashes == decoded.hashes);
  KV_CHECK(memory_of(runner).host_bytes == held.host_bytes);
}

KV_TEST("with no byte of the device left steps work or end with their code, and afterwards all work with the same bits") {
  const TinyModel model(TinyShape{});
  TestRunner runner(model, default_options());
  const auto steps = [&](std::int32_t position) {
    std::vector<Outcome> outcomes;
    for (int width = 1; width <= 8; ++width) {
      for (int repetition = 0; repetition < 3; ++repetition) {  // as it is, captured, replayed
        std::vector<RowSpec> rows;
        for (int i = 0; i < width; ++i) {
          rows.push_back(decoding_row(5 + i, position));
          rows.back().tables = {{4 + i}};
        }
        outcomes.push_back(runner.step(BatchSpec(rows, 1)));
      }
    }
    RowSpec prompt = decoding_row(1, 0);
    prompt.tokens.assign(200, 9);
    outcomes.push_back(runner.step(BatchSpec({prompt}, 1)));
    return outcomes;
  };
  const Outcome first = runner.step(BatchSpec({decoding_row(5, 0)}, 1));
  KV_CHECK(first.status == KV_OK);
  std::vector<void*> hogs;
  for (std::size_t bytes = std::size_t{1} << 36; bytes >= std::size_t{1} << 12; bytes /= 2) {
    void* hog = nullptr;
    while (cudaMalloc(&hog, bytes) == cudaSuccess) hogs.push_back(hog);
    cudaGetLastError();
  }
  int refused = 0;
  for (const Outcome& outcome : steps(0)) {
    KV_CHECK_MSG(outcome.status == KV_OK || outcome.status == KV_OUT_OF_MEMORY, "%s", outcome.message.c_str());
    refused += outcome.status != KV_OK ? 1 : 0;
  }
  std::printf("of 25 steps without device memory %d were refused\n", refused);
  for (void* hog : hogs) cudaFree(hog);
  const std::vector<Outcome> after = steps(0);
  for (const Outcome& outcome : after) KV_CHECK_MSG(outcome.status == KV_OK, "%s", outcome.message.c_str());
  TestRunner fresh(model, default_options());
  KV_CHECK(after[0].hashes[0] == fresh.step(BatchSpec({decoding_row(5, 0)}, 1)).hashes[0]);
  for (std::size_t i = 0; i + 2 < 24; i += 3) {
    KV_CHECK(after[i].hashes == after[i + 1].hashes && after[i].hashes == after[i + 2].hashes);
  }
}

KV_TEST("memory that is not where it was allocated is an error with a code, and counted (negative control)") {
  DeviceLedger ledger(false);
  const kv::cuda::DeviceBuffer<float> device(ledger, ledger.workspace_bytes, 1000, "a buffer");
  const kv::cuda::PinnedBuffer<float> pinned(ledger, 1000, "staging");
  ledger.verify_residency();
  KV_CHECK(ledger.residency_checks == 1 && ledger.residency_failures == 0);
  std::vector<float> ordinary(1000);
  void* managed = nullptr;
  KV_CHECK(cudaMallocManaged(&managed, 4096) == cudaSuccess);
  for (const void* stray : {static_cast<const void*>(ordinary.data()), static_cast<const void*>(pinned.data()),
                            static_cast<const void*>(managed)}) {
    const std::uint64_t failures = ledger.residency_failures;
    DeviceLedger other(false);
    other.enter(stray, 4000, DeviceLedger::Home::kVram, "a stray");
    kv_error error{};
    error.size = sizeof error;
    KV_CHECK(kv::abi_guard(&error, [&] { other.verify_residency(); }) == KV_DEVICE_LOST);
    KV_CHECK(std::string(error.message).find("a stray (4000 bytes)") != std::string::npos);
    KV_CHECK(other.residency_failures == 1 && ledger.residency_failures == failures);
    other.leave(stray);
    other.verify_residency();
    KV_CHECK(other.residency_failures == 1 && other.residency_checks == 2);
  }
  cudaFree(managed);
}

}  // namespace

int main(int argc, char** argv) {
  kv::test::instruction_paths();  // exits where the backend has no device
  return kv::test::run(argc, argv);
}
