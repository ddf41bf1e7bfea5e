// Descriptors and batches that break the contract: each is refused with its code before anything is done, and the
// runner goes on. Every row of the tables is one mutation of something valid.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>

#include "tests/backend.h"
#include "tests/check.h"
#include "tests/test_runner.h"

namespace {

using namespace kv::test;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::uint32_t kHuge = 0xffffffffu;

TinyShape rich_shape() {
  TinyShape shape;
  shape.biases = shape.head_norms = shape.sinks = shape.post_norms = true;
  shape.tied = false;
  shape.window_of_odd_layers = 100;
  return shape;
}

struct DescriptorCase {
  const char* name;
  kv_status expected;
  std::function<void(TinyModel&)> mutate;
};

const DescriptorCase kDescriptors[] = {
    {"struct size", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.size = 8; }},
    {"no layers", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.n_layers = 0; }},
    {"too many layers", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.n_layers = kHuge; }},
    {"no hidden", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.hidden = 0; }},
    {"huge hidden", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.hidden = kHuge; }},
    {"other hidden", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.hidden = 65; }},
    {"huge vocabulary", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.vocab = kHuge; }},
    {"no context", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.context_length = 0; }},
    {"too many groups", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.n_groups = 5; }},
    {"empty group", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.n_groups = 3; }},
    {"missing group", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.n_groups = 1; }},
    {"no ropes", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.n_ropes = 0; }},
    {"ropes NULL", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.ropes = nullptr; }},
    {"layers NULL", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.layers = nullptr; }},
    {"tensors NULL", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.tensors = nullptr; }},
    {"files NULL", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.files = nullptr; }},
    {"file NULL", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.files[0] = nullptr; }},
    {"huge tensor count", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.n_tensors = kHuge; }},
    {"a tensor missing", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.n_tensors -= 9; }},
    {"epsilon NaN", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.norm_epsilon = static_cast<float>(kNaN); }},
    {"epsilon negative", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.norm_epsilon = -1; }},
    {"logit scale NaN", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.model.logit_scale = static_cast<float>(kNaN); }},
    {"layer size", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[1].size = 0; }},
    {"layer group", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[1].group = 2; }},
    {"no heads", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[0].n_heads = 0; }},
    {"no KV heads", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[0].n_kv_heads = 0; }},
    {"uneven groups", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[0].n_kv_heads = 3; }},
    {"head_dim 0", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[0].head_dim = 0; }},
    {"head_dim 513", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[0].head_dim = 513; }},
    {"rope index", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[0].rope = 1; }},
    {"rope index -2", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[0].rope = -2; }},
    {"scale infinite", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[0].softmax_scale = INFINITY; }},
    {"softcap negative", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[0].logit_softcap = -1; }},
    {"activation", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[0].activation = 3; }},
    {"ffn 0", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[0].ffn_dim = 0; }},
    {"experts", KV_UNSUPPORTED, [](TinyModel& m) { m.layers[0].n_experts = 8; }},
    {"experts used", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.layers[0].n_experts_used = 2; }},
    {"rope size", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.ropes[0].size = 1; }},
    {"rope style", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.ropes[0].style = 2; }},
    {"rotary odd", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.ropes[0].rotary_dim = 15; }},
    {"rotary above head_dim", KV_INVALID_ARGUMENT,
     [](TinyModel& m) {
       m.frequencies.resize(64, 0.5);
       m.ropes[0].inverse_frequencies = m.frequencies.data();
       m.ropes[0].rotary_dim = 32;
     }},
    {"frequencies NULL", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.ropes[0].inverse_frequencies = nullptr; }},
    {"frequency NaN", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.frequencies[2] = kNaN; }},
    {"attention factor NaN", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.ropes[0].attention_factor = kNaN; }},
    {"tensor size", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[4].size = 3; }},
    {"unknown role", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[4].role = 99; }},
    {"router without experts", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[4].role = KV_ROLE_FFN_ROUTER; }},
    {"layer of the embedding", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[0].layer = 0; }},
    {"layer out of range", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[4].layer = 2; }},
    {"layer -1", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[4].layer = -1; }},
    {"duplicate", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[5] = m.tensors[4]; }},
    {"rank 0", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[4].rank = 0; }},
    {"rank huge", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[4].rank = kHuge; }},
    {"shape swapped", KV_INVALID_ARGUMENT, [](TinyModel& m) { std::swap(m.tensors[0].shape[0], m.tensors[0].shape[1]); }},
    {"shape huge", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[0].shape[0] = UINT64_MAX; }},
    {"dtype unknown", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[4].dtype = 77; }},
    {"dtype of the pool", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[4].dtype = KV_Q8; }},
    {"dtype that does not fill rows", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[0].dtype = KV_Q4_K; }},
    {"quantized norm", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[1].dtype = KV_Q8_0; }},
    {"bytes short", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[0].bytes -= 1; }},
    {"bytes huge", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[0].bytes = UINT64_MAX; }},
    {"offset wraps", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[0].offset = UINT64_MAX - 8; }},
    {"offset past the end", KV_FILE_TRUNCATED, [](TinyModel& m) { m.tensors[0].offset = 1ull << 40; }},
    {"file index", KV_INVALID_ARGUMENT, [](TinyModel& m) { m.tensors[0].file = 1; }},
};

kv_status plan_status(const TinyModel& model, const kv_runner_options& options) {
  kv_memory_plan plan{};
  plan.size = sizeof plan;
  return kv_plan_memory(&model.model, &options, &plan, nullptr);
}

KV_TEST("a descriptor that breaks the contract is refused with its code and a message") {
  for (const DescriptorCase& c : kDescriptors) {
    TinyModel model(rich_shape());
    c.mutate(model);
    const TestRunner runner(model, default_options());
    KV_CHECK_MSG(runner.status == c.expected, "%s: status %d (%s)", c.name, runner.status, runner.message.c_str());
    KV_CHECK_MSG(runner.message.size() > 10 && runner.handle == nullptr, "%s: no message", c.name);
    const kv_status planned = plan_status(model, default_options());
    // Planning opens no file.
    KV_CHECK_MSG(planned == c.expected || planned == KV_OK, "%s: planning says %d", c.name, planned);
  }
  const TinyModel intact(rich_shape());
  KV_CHECK(TestRunner(intact, default_options()).status == KV_OK);
  KV_CHECK(plan_status(intact, default_options()) == KV_OK);
  KV_CHECK(kv_plan_memory(&intact.model, nullptr, nullptr, nullptr) == KV_INVALID_ARGUMENT);
}

KV_TEST("options out of range are refused; limits no machine can hold end in KV_OUT_OF_MEMORY") {
  struct OptionCase {
    const char* name;
    kv_status expected;
    std::function<void(kv_runner_options&)> mutate;
  };
  const OptionCase cases[] = {
      {"size", KV_INVALID_ARGUMENT, [](kv_runner_options& o) { o.size = 4; }},
      {"block tokens", KV_UNSUPPORTED, [](kv_runner_options& o) { o.block_tokens = 128; }},
      {"no blocks", KV_INVALID_ARGUMENT, [](kv_runner_options& o) { o.n_blocks[1] = 0; }},
      {"slots beyond int32", KV_INVALID_ARGUMENT, [](kv_runner_options& o) { o.n_blocks[0] = kHuge; }},
      {"huge pool", KV_OUT_OF_MEMORY, [](kv_runner_options& o) { o.n_blocks[0] = (1u << 23) - 1; }},
      {"no dtype", KV_INVALID_ARGUMENT, [](kv_runner_options& o) { o.kv_dtype = 14; }},
      {"weights' dtype for the pool", KV_INVALID_ARGUMENT, [](kv_runner_options& o) { o.kv_dtype = KV_Q4_K; }},
      {"mode", KV_INVALID_ARGUMENT, [](kv_runner_options& o) { o.activation_mode = 3; }},
      {"no tokens", KV_INVALID_ARGUMENT, [](kv_runner_options& o) { o.max_batch_tokens = 0; }},
      {"huge batch", KV_OUT_OF_MEMORY, [](kv_runner_options& o) { o.max_batch_tokens = INT32_MAX; }},
      {"huge batch of sequences", KV_OUT_OF_MEMORY,
       [](kv_runner_options& o) { o.max_batch_tokens = o.max_batch_sequences = INT32_MAX; }},
      {"more sequences than tokens", KV_INVALID_ARGUMENT, [](kv_runner_options& o) { o.max_batch_sequences = 4096; }},
      {"no table", KV_INVALID_ARGUMENT, [](kv_runner_options& o) { o.max_blocks_per_sequence = 0; }},
      {"sampler slots", KV_INVALID_ARGUMENT, [](kv_runner_options& o) { o.n_sampler_slots = kHuge; }},
      {"threads", KV_INVALID_ARGUMENT, [](kv_runner_options& o) { o.n_threads = 100000; }},
      {"path", KV_UNSUPPORTED, [](kv_runner_options& o) { o.instruction_path = "sse2"; }},
  };
  const TinyModel model(rich_shape());
  for (const OptionCase& c : cases) {
    kv_runner_options options = default_options();
    options.poison_pool = 0;
    c.mutate(options);
    const TestRunner runner(model, options);
    KV_CHECK_MSG(runner.status == c.expected && runner.handle == nullptr, "%s: status %d (%s)", c.name, runner.status,
                 runner.message.c_str());
  }
}

KV_TEST("a quantized pool is refused for heads its groups do not divide") {
  const auto status_for = [](std::uint32_t head_dim, kv_dtype dtype) {
    TinyShape shape;
    shape.head_dim = head_dim;
    shape.rotary_dim = 4;
    const TinyModel model(shape);
    kv_runner_options options = default_options();
    options.kv_dtype = dtype;
    const TestRunner runner(model, options);
    KV_CHECK_MSG(runner.status == KV_OK || runner.message.find("choose") != std::string::npos, "%s",
                 runner.message.c_str());
    return runner.status;
  };
  for (const kv_dtype dtype : {KV_Q8, KV_Q4}) {
    for (const std::uint32_t head_dim : {8u, 24u, 56u, 64u, 128u, 192u}) {
      KV_CHECK_MSG(status_for(head_dim, dtype) == KV_OK, "head_dim %u", head_dim);
    }
    for (const std::uint32_t head_dim : {4u, 12u, 20u, 65u, 80u, 96u, 100u, 160u}) {
      KV_CHECK_MSG(status_for(head_dim, dtype) == KV_UNSUPPORTED, "head_dim %u", head_dim);
    }
  }
}

struct BatchCase {
  const char* name;
  std::function<void(BatchSpec&)> mutate;
};

const BatchCase kBatches[] = {
    {"size", [](BatchSpec& b) { b.batch.size = 1; }},
    {"no tokens", [](BatchSpec& b) { b.batch.n_tokens = 0; }},
    {"too many tokens", [](BatchSpec& b) { b.batch.n_tokens = kHuge; }},
    {"no sequences", [](BatchSpec& b) { b.batch.n_sequences = 0; }},
    {"too many sequences", [](BatchSpec& b) { b.batch.n_sequences = kHuge; }},
    {"groups", [](BatchSpec& b) { b.batch.n_groups = 1; }},
    {"token_ids NULL", [](BatchSpec& b) { b.batch.token_ids = nullptr; }},
    {"row_flags NULL", [](BatchSpec& b) { b.batch.row_flags = nullptr; }},
    {"tables NULL", [](BatchSpec& b) { b.batch.block_tables[1] = nullptr; }},
    {"slots NULL", [](BatchSpec& b) { b.batch.slot_mapping[0] = nullptr; }},
    {"token -1", [](BatchSpec& b) { b.token_ids[3] = -1; }},
    {"token V", [](BatchSpec& b) { b.token_ids[3] = 301; }},
    {"position gap", [](BatchSpec& b) { b.positions[3] += 1; }},
    {"position negative", [](BatchSpec& b) { b.positions[0] = -1; }},
    {"position wraps", [](BatchSpec& b) { b.positions[0] = INT32_MAX; }},
    {"beyond the context", [](BatchSpec& b) { b.positions[20] = 4096; b.context_lengths[1] = 4097; }},
    {"cu first", [](BatchSpec& b) { b.cu_seqlens[0] = 1; }},
    {"cu empty row", [](BatchSpec& b) { b.cu_seqlens[1] = 0; }},
    {"cu falls", [](BatchSpec& b) { b.cu_seqlens[1] = -5; }},
    {"cu past the end", [](BatchSpec& b) { b.cu_seqlens[1] = INT32_MAX; }},
    {"cu last", [](BatchSpec& b) { b.batch.n_tokens -= 1; }},
    {"context length", [](BatchSpec& b) { b.context_lengths[0] += 1; }},
    {"table width 0", [](BatchSpec& b) { b.batch.block_table_width[0] = 0; }},
    {"table width", [](BatchSpec& b) { b.batch.block_table_width[0] = kHuge; }},
    {"block -1", [](BatchSpec& b) { b.tables[0][2] = -1; }},
    {"block N", [](BatchSpec& b) { b.tables[0][2] = 40; }},
    {"block of the past", [](BatchSpec& b) { b.tables[0][2 + 0] = -7; }},
    {"slot elsewhere", [](BatchSpec& b) { b.slots[0][0] += 1; }},
    {"slot negative", [](BatchSpec& b) { b.slots[0][0] = -2; }},
    {"slot out of the pool", [](BatchSpec& b) { b.slots[0][0] = INT32_MAX; }},
    {"slot twice", [](BatchSpec& b) { b.tables[0][2] = b.tables[0][0]; b.positions[20] = 3; b.context_lengths[1] = 4;
                                     b.slots[0][20] = b.slots[0][3]; b.tables[1][2] = b.tables[1][0];
                                     b.slots[1][20] = b.slots[1][3]; }},
    {"input row", [](BatchSpec& b) { b.input_rows[1] = 2; }},
    {"input row -2", [](BatchSpec& b) { b.input_rows[1] = -2; }},
    {"input row that did not sample", [](BatchSpec& b) { b.input_rows[1] = 0; }},
    {"unknown flag", [](BatchSpec& b) { b.row_flags[0] = 0x80; }},
    {"sampler slot", [](BatchSpec& b) { b.sampler_slots[1] = 8; }},
    {"sampler slot -2", [](BatchSpec& b) { b.sampler_slots[1] = -2; }},
    {"sampling without a slot", [](BatchSpec& b) { b.sampler_slots[1] = -1; }},
    {"sampling with an empty slot", [](BatchSpec& b) { b.sampler_slots[1] = 5; }},
    {"a slot twice", [](BatchSpec& b) { b.row_flags[0] |= KV_ROW_SAMPLE; b.sampler_slots[0] = b.sampler_slots[1]; }},
    {"output index", [](BatchSpec& b) { b.output_indexes[1] = -1; }},
    {"target", [](BatchSpec& b) { b.row_flags[0] |= KV_ROW_TARGETS; b.target_ids[2] = 301; }},
    {"targets NULL", [](BatchSpec& b) { b.row_flags[0] |= KV_ROW_TARGETS; b.batch.target_ids = nullptr; }},
    {"samplers NULL", [](BatchSpec& b) { b.batch.samplers = nullptr; }},
    {"sampler size", [](BatchSpec& b) { b.samplers[0].size = 0; }},
    {"sampler of no slot", [](BatchSpec& b) { b.samplers[0].slot = 8; }},
    {"temperature", [](BatchSpec& b) { b.samplers[0].temperature = -1; }},
    {"temperature NaN", [](BatchSpec& b) { b.samplers[0].temperature = NAN; }},
    {"top_p 0", [](BatchSpec& b) { b.samplers[0].top_p = 0; }},
    {"min_p", [](BatchSpec& b) { b.samplers[0].min_p = 2; }},
    {"repetition 0", [](BatchSpec& b) { b.samplers[0].repetition_penalty = 0; }},
    {"frequency NaN", [](BatchSpec& b) { b.samplers[0].frequency_penalty = NAN; }},
    {"too many logprobs", [](BatchSpec& b) { b.samplers[0].n_logprobs = 100000; }},
    {"prompt beyond history", [](BatchSpec& b) { b.samplers[0].n_prompt = 1; }},
    {"history NULL", [](BatchSpec& b) { b.samplers[0].n_history = 1; }},
    {"bias NULL", [](BatchSpec& b) { b.samplers[0].n_bias = 1; }},
    {"stop NULL", [](BatchSpec& b) { b.samplers[0].n_stop = 1; }},
};

KV_TEST("a batch that breaks the contract is refused, calls nothing back and changes nothing") {
  const TinyModel model(rich_shape());
  TestRunner runner(model, default_options());
  RowSpec prompt, decode;
  for (int i = 0; i < 20; ++i) prompt.tokens.push_back(i);
  prompt.tables = {{3, 4}, {5, 6}};
  decode.tokens = {9};
  decode.tables = {{7, 8}, {9, 10}};
  decode.flags = KV_ROW_SAMPLE | KV_ROW_HASH;
  decode.slot = 0;
  const std::vector<RowSpec> rows{prompt, decode};
  const BatchSpec valid(rows, 2, {default_sampler(0)});
  const Outcome expected = runner.step(valid);
  KV_CHECK_MSG(expected.status == KV_OK, "%s", expected.message.c_str());
  for (const BatchCase& c : kBatches) {
    BatchSpec spec(rows, 2, {default_sampler(0)});
    c.mutate(spec);
    const Outcome out = runner.step(spec);
    KV_CHECK_MSG(out.status == KV_INVALID_ARGUMENT && out.calls == 0, "%s: status %d (%s)", c.name, out.status,
                 out.message.c_str());
  }
  BatchSpec adapted(rows, 2, {default_sampler(0)});
  adapted.samplers[0].adapter = 1;
  KV_CHECK(runner.step(adapted).status == KV_UNSUPPORTED);
  BatchSpec masked(rows, 2);
  const std::vector<std::uint32_t> nothing(10, 0);
  const std::uint32_t* masks[] = {nullptr, nothing.data()};
  masked.batch.masks = masks;
  KV_CHECK(runner.step(masked).status == KV_INVALID_ARGUMENT);
  KV_CHECK(runner.step(valid).hashes == expected.hashes);
}

KV_TEST("block calls out of range are refused") {
  const TinyModel model(TinyShape{});
  TestRunner runner(model, default_options());
  std::uint64_t bytes = 0;
  KV_CHECK(kv_runner_block_bytes(runner.handle, 1, &bytes, nullptr) == KV_INVALID_ARGUMENT);
  KV_CHECK(kv_runner_block_bytes(runner.handle, 0, nullptr, nullptr) == KV_INVALID_ARGUMENT);
  KV_CHECK(kv_runner_block_bytes(nullptr, 0, &bytes, nullptr) == KV_INVALID_ARGUMENT);
  KV_CHECK(kv_runner_block_bytes(runner.handle, 0, &bytes, nullptr) == KV_OK);
  std::vector<std::uint8_t> data(bytes);
  const auto done = [](void*, const kv_error*) { KV_CHECK(false); };
  for (const std::int32_t block : {-1, 40, INT32_MAX, INT32_MIN}) {
    const std::int32_t fine = 0, count = 3;
    KV_CHECK(kv_runner_read_blocks(runner.handle, 0, &block, 1, data.data(), bytes, done, nullptr, nullptr) ==
             KV_INVALID_ARGUMENT);
    KV_CHECK(kv_runner_write_blocks(runner.handle, 0, &block, 1, data.data(), bytes, done, nullptr, nullptr) ==
             KV_INVALID_ARGUMENT);
    KV_CHECK(kv_runner_copy_blocks(runner.handle, 0, &fine, &block, &count, 1, done, nullptr, nullptr) ==
             KV_INVALID_ARGUMENT);
    KV_CHECK(kv_runner_copy_blocks(runner.handle, 0, &block, &fine, &count, 1, done, nullptr, nullptr) ==
             KV_INVALID_ARGUMENT);
  }
  const std::int32_t block = 0, counts[] = {-1, 257};
  for (const std::int32_t& count : counts) {
    KV_CHECK(kv_runner_copy_blocks(runner.handle, 0, &block, &block, &count, 1, done, nullptr, nullptr) ==
             KV_INVALID_ARGUMENT);
  }
  KV_CHECK(kv_runner_read_blocks(runner.handle, 0, &block, 1, data.data(), bytes - 1, done, nullptr, nullptr) ==
           KV_INVALID_ARGUMENT);
  KV_CHECK(kv_runner_read_blocks(runner.handle, 0, &block, 1, nullptr, bytes, done, nullptr, nullptr) ==
           KV_INVALID_ARGUMENT);
  KV_CHECK(kv_runner_read_blocks(runner.handle, 0, nullptr, 1, data.data(), bytes, done, nullptr, nullptr) ==
           KV_INVALID_ARGUMENT);
  KV_CHECK(kv_runner_read_blocks(runner.handle, 0, &block, 1, data.data(), bytes, nullptr, nullptr, nullptr) ==
           KV_INVALID_ARGUMENT);
  KV_CHECK(kv_runner_read_blocks(runner.handle, 9, &block, 1, data.data(), bytes, done, nullptr, nullptr) ==
           KV_INVALID_ARGUMENT);
}

}  // namespace

int main(int argc, char** argv) {
  kv::test::instruction_paths();  // exits where the backend has no device
  return kv::test::run(argc, argv);
}
