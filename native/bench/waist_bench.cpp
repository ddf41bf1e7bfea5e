// Times a backend through the waist on a model of Qwen2.5-7B's or Llama-3.1-8B's shape with random weights: decoding of S
// sequences, two steps in flight, sampled tokens fed back on the device, and prefill. Prints one line of JSON a measurement.
//   waist_bench FILE [llama-]q4_k_m|f16|q8_0[-fast] [what ...]     FILE is written, and left for the next run
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "abi/kvasir_abi.h"
#include "common/dtype.h"
#include "tests/random_weights.h"

namespace {

struct Dimensions {
  std::uint32_t layers, hidden, heads, kv_heads, ffn, vocabulary;
};
constexpr Dimensions kQwen{28, 3584, 28, 4, 18944, 152064}, kLlama{32, 4096, 32, 8, 14336, 128256};
Dimensions dims = kQwen;  // of the model, set once before it is made
constexpr std::uint32_t kHeadDim = 128, kContext = 32768;

[[noreturn]] void stop(const char* what, const char* why) {
  std::printf("%s: %s\n", what, why);
  std::exit(1);
}

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// llama-quantize's Q4_K_M: Q6_K for the output and, in the first and last eighth of the layers and every third between,
// for V and the down projection.
kv_dtype dtype_of(const std::string& type, kv_role role, std::uint32_t layer) {
  if (type == "f16") return KV_F16;
  if (type == "q8_0") return KV_Q8_0;
  const bool more = layer < dims.layers / 8 || layer >= 7 * dims.layers / 8 || (layer - dims.layers / 8) % 3 == 2;
  if (role == KV_ROLE_OUTPUT) return KV_Q6_K;
  if ((role == KV_ROLE_ATTN_V || role == KV_ROLE_FFN_DOWN) && more) return KV_Q6_K;
  return KV_Q4_K;
}

struct BenchModel {
  std::vector<kv_tensor> tensors;
  std::vector<kv_layer> layers;
  std::vector<double> frequencies;
  kv_rope rope{};
  const char* path;
  kv_model model{};
  std::uint64_t bytes = 0, output_bytes = 0, embedding_bytes = 0;

  BenchModel(const char* file, const std::string& type) : path(file) {
    add(KV_ROLE_TOKEN_EMBEDDING, -1, dtype_of(type, KV_ROLE_TOKEN_EMBEDDING, 0), dims.vocabulary, dims.hidden);
    embedding_bytes = bytes;
    add(KV_ROLE_OUTPUT, -1, dtype_of(type, KV_ROLE_OUTPUT, 0), dims.vocabulary, dims.hidden);
    add(KV_ROLE_OUTPUT_NORM, -1, KV_F32, 0, dims.hidden);
    for (std::uint32_t i = 0; i < dims.layers; ++i) {
      const auto layer = static_cast<std::int32_t>(i);
      const auto matrix = [&](kv_role role, std::uint64_t rows, std::uint64_t cols) {
        add(role, layer, dtype_of(type, role, i), rows, cols);
      };
      matrix(KV_ROLE_ATTN_Q, dims.heads * kHeadDim, dims.hidden);
      matrix(KV_ROLE_ATTN_K, dims.kv_heads * kHeadDim, dims.hidden);
      matrix(KV_ROLE_ATTN_V, dims.kv_heads * kHeadDim, dims.hidden);
      matrix(KV_ROLE_ATTN_OUTPUT, dims.hidden, dims.heads * kHeadDim);
      matrix(KV_ROLE_FFN_GATE, dims.ffn, dims.hidden);
      matrix(KV_ROLE_FFN_UP, dims.ffn, dims.hidden);
      matrix(KV_ROLE_FFN_DOWN, dims.hidden, dims.ffn);
      add(KV_ROLE_ATTN_NORM, layer, KV_F32, 0, dims.hidden);
      add(KV_ROLE_FFN_NORM, layer, KV_F32, 0, dims.hidden);
      add(KV_ROLE_ATTN_Q_BIAS, layer, KV_F32, 0, dims.heads * kHeadDim);
      add(KV_ROLE_ATTN_K_BIAS, layer, KV_F32, 0, dims.kv_heads * kHeadDim);
      add(KV_ROLE_ATTN_V_BIAS, layer, KV_F32, 0, dims.kv_heads * kHeadDim);
      kv_layer shape{};
      shape.size = sizeof shape;
      shape.n_heads = dims.heads;
      shape.n_kv_heads = dims.kv_heads;
      shape.head_dim = kHeadDim;
      shape.softmax_scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
      shape.ffn_dim = dims.ffn;
      layers.push_back(shape);
    }
    for (std::uint32_t i = 0; i < kHeadDim / 2; ++i) frequencies.push_back(std::pow(1e6, -2.0 * i / kHeadDim));
    rope = {sizeof rope, KV_ROPE_HALVES, kHeadDim, frequencies.data(), 1.0};
    model.size = sizeof model;
    model.n_layers = dims.layers;
    model.hidden = dims.hidden;
    model.vocab = dims.vocabulary;
    model.context_length = kContext;
    model.n_groups = model.n_ropes = model.n_files = 1;
    model.n_tensors = static_cast<std::uint32_t>(tensors.size());
    model.norm_epsilon = 1e-6f;
    model.embedding_scale = model.logit_scale = 1;
    model.layers = layers.data();
    model.ropes = &rope;
    model.tensors = tensors.data();
    model.files = &path;
    write();
  }

  // Bytes a decoding step reads of the weights: all but the embedding table.
  std::uint64_t read_bytes() const { return bytes - embedding_bytes; }

 private:
  void add(kv_role role, std::int32_t layer, kv_dtype dtype, std::uint64_t rows, std::uint64_t cols) {
    kv_tensor tensor{};
    tensor.size = sizeof tensor;
    tensor.role = role;
    tensor.layer = layer;
    tensor.dtype = dtype;
    tensor.rank = rows == 0 ? 1 : 2;
    tensor.shape[0] = rows == 0 ? cols : rows;
    tensor.shape[1] = rows == 0 ? 0 : cols;
    tensor.offset = bytes;
    if (!kv::weight_matrix_bytes(dtype, rows == 0 ? 1 : rows, cols, &tensor.bytes)) stop("tensor", "no such size");
    bytes += tensor.bytes;
    tensors.push_back(tensor);
  }

  // Random blocks of each dtype, tiled: a large file at the cost of its writing.
  void write() const {
    struct stat status {};
    if (stat(path, &status) == 0 && static_cast<std::uint64_t>(status.st_size) == bytes) return;
    std::FILE* file = std::fopen(path, "wb");
    if (file == nullptr) stop(path, "cannot be written");
    std::vector<std::byte> pools[KV_MXFP4 + 1];
    std::vector<float> ones(dims.ffn, 1.0f);
    for (const kv_tensor& tensor : tensors) {
      std::vector<std::byte>& pool = pools[tensor.dtype];
      if (tensor.dtype == KV_F32) {
        std::fwrite(ones.data(), 1, tensor.bytes, file);
        continue;
      }
      if (pool.empty()) pool = kv::test::random_weights(static_cast<kv_dtype>(tensor.dtype), 4096, dims.hidden, 7);
      for (std::uint64_t done = 0; done < tensor.bytes;) {
        const std::uint64_t count = std::min<std::uint64_t>(pool.size(), tensor.bytes - done);
        if (std::fwrite(pool.data(), 1, count, file) != count) stop(path, "the disk is full");
        done += count;
      }
    }
    std::fclose(file);
  }
};

struct Waiter {
  std::mutex mutex;
  std::condition_variable changed;
  int done = 0;
  std::string failure;

  static void on_step(void* user, const kv_step_result*, const kv_error* error) {
    Waiter& at = *static_cast<Waiter*>(user);
    const std::lock_guard lock(at.mutex);
    ++at.done;
    if (error != nullptr) at.failure = error->message;
    at.changed.notify_all();
  }
  static void on_done(void* user, const kv_error* error) { on_step(user, nullptr, error); }
  void wait_for(int count) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return done >= count; });
    if (!failure.empty()) stop("step", failure.c_str());
  }
};

// One step: S sequences with `count` tokens each from `position` on; sequence s has blocks s * width ...
struct Step {
  std::vector<std::int32_t> ids, positions, cu, contexts, inputs, slots, indexes, tables, mapping;
  std::vector<std::uint8_t> flags;
  kv_batch batch{};

  Step(std::uint32_t S, std::uint32_t count, std::uint32_t position, std::uint32_t width, bool sample, bool chained) {
    cu.push_back(0);
    for (std::uint32_t s = 0; s < S; ++s) {
      for (std::uint32_t i = 0; i < count; ++i) {
        const std::uint32_t p = position + i;
        ids.push_back(static_cast<std::int32_t>((s * 7919 + p * 104729) % dims.vocabulary));
        positions.push_back(static_cast<std::int32_t>(p));
        mapping.push_back(static_cast<std::int32_t>((s * width + p / 256) * 256 + p % 256));
      }
      cu.push_back(static_cast<std::int32_t>(ids.size()));
      contexts.push_back(static_cast<std::int32_t>(position + count));
      inputs.push_back(chained ? static_cast<std::int32_t>(s) : -1);
      slots.push_back(sample ? static_cast<std::int32_t>(s) : -1);
      indexes.push_back(static_cast<std::int32_t>(position));
      flags.push_back(sample ? KV_ROW_SAMPLE : 0);
      for (std::uint32_t b = 0; b < width; ++b) tables.push_back(static_cast<std::int32_t>(s * width + b));
    }
    batch.size = sizeof batch;
    batch.n_tokens = static_cast<std::uint32_t>(ids.size());
    batch.n_sequences = S;
    batch.n_groups = 1;
    batch.token_ids = ids.data();
    batch.positions = positions.data();
    batch.cu_seqlens_q = cu.data();
    batch.context_lengths = contexts.data();
    batch.block_table_width[0] = width;
    batch.block_tables[0] = tables.data();
    batch.slot_mapping[0] = mapping.data();
    batch.input_rows = inputs.data();
    batch.sampler_slots = slots.data();
    batch.output_indexes = indexes.data();
    batch.row_flags = flags.data();
  }
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Bench {
 public:
  Bench(kv_runner* runner, const BenchModel& model, std::string type)
      : runner_(runner), model_(model), type_(std::move(type)) {}

  void prefill(std::uint32_t tokens, std::uint32_t chunk, int runs) {
    std::vector<double> times;
    for (int run = 0; run < runs; ++run) {
      const double begin = seconds();
      fill(1, tokens, chunk, true);
      times.push_back(seconds() - begin);
    }
    std::sort(times.begin(), times.end());
    std::printf("{\"what\":\"prefill\",\"type\":\"%s\",\"tokens\":%u,\"chunk\":%u,\"median_s\":%.4f,\"min_s\":%.4f,"
                "\"max_s\":%.4f,\"tokens_per_s\":%.1f}\n", type_.c_str(), tokens, chunk, median(times), times.front(),
                times.back(), tokens / median(times));
    std::fflush(stdout);
  }

  void decode(std::uint32_t S, std::uint32_t context, std::uint32_t steps, int runs, float temperature) {
    const std::uint32_t width = (context + steps + 255) / 256;
    width_ = width;
    fill(S, context, 512, false);
    std::vector<double> rates;
    for (int run = 0; run < runs; ++run) {
      std::vector<kv_sampler> samplers;
      for (std::uint32_t s = 0; s < S; ++s) {
        kv_sampler sampler{};
        sampler.size = sizeof sampler;
        sampler.slot = s;
        sampler.seed = s;
        sampler.temperature = temperature;
        sampler.top_p = 1;
        sampler.repetition_penalty = 1;
        sampler.adapter = -1;
        samplers.push_back(sampler);
      }
      Waiter waiter;
      std::vector<std::unique_ptr<Step>> all;
      for (std::uint32_t i = 0; i < steps; ++i) {
        all.push_back(std::make_unique<Step>(S, 1, context + i, width, true, i != 0));
      }
      all[0]->batch.n_samplers = S;
      all[0]->batch.samplers = samplers.data();
      const int warm = static_cast<int>(steps) / 8;
      double begin = 0;
      for (int i = 0; i < static_cast<int>(steps); ++i) {
        submit(all[static_cast<std::size_t>(i)]->batch, waiter);
        if (i >= 1) waiter.wait_for(i);
        if (i == warm) begin = seconds();
      }
      waiter.wait_for(static_cast<int>(steps));
      rates.push_back(S * (static_cast<double>(steps) - warm) / (seconds() - begin));
    }
    std::string all_rates;
    for (const double one : rates) all_rates += (all_rates.empty() ? "" : ",") + std::to_string(one);
    std::sort(rates.begin(), rates.end());
    const double rate = median(rates);
    const double kv_bytes = 2.0 * dims.layers * dims.kv_heads * kHeadDim * 2.0 * (context + steps / 2.0) * S;
    const double bytes = static_cast<double>(model_.read_bytes()) + kv_bytes;
    std::printf("{\"what\":\"decode\",\"type\":\"%s\",\"sequences\":%u,\"context\":%u,\"temperature\":%g,"
                "\"tokens_per_s\":%.1f,\"min\":%.1f,\"max\":%.1f,\"step_ms\":%.4f,\"gigabytes_per_s\":%.1f,\"runs\":[%s]}\n",
                type_.c_str(), S, context, static_cast<double>(temperature), rate, rates.front(), rates.back(),
                1000.0 * S / rate, bytes * rate / S / 1e9, all_rates.c_str());
    std::fflush(stdout);
  }

  // From the submission of a short prompt behind a context to its first sampled token.
  void resume(std::uint32_t context, std::uint32_t tokens, int runs) {
    width_ = (context + tokens + 255) / 256;
    fill(1, context, 2048, false);
    kv_sampler sampler{};
    sampler.size = sizeof sampler;
    sampler.top_p = sampler.repetition_penalty = 1;
    sampler.adapter = -1;
    std::vector<double> times;
    for (int run = 0; run < runs; ++run) {
      Step step(1, tokens, context, width_, true, false);
      step.batch.n_samplers = 1;
      step.batch.samplers = &sampler;
      Waiter waiter;
      const double begin = seconds();
      submit(step.batch, waiter);
      waiter.wait_for(1);
      times.push_back(1000 * (seconds() - begin));
    }
    std::sort(times.begin(), times.end());
    std::printf("{\"what\":\"resume\",\"type\":\"%s\",\"context\":%u,\"tokens\":%u,\"median_ms\":%.2f,\"min_ms\":%.2f,"
                "\"max_ms\":%.2f}\n", type_.c_str(), context, tokens, median(times), times.front(), times.back());
    std::fflush(stdout);
  }

  // Blocks of a context from the caller's ordinary memory into the pool and back.
  void restore(std::uint32_t tokens, int runs) {
    const std::uint32_t count = tokens / 256;
    std::uint64_t bytes = 0;
    kv_error error{};
    error.size = sizeof error;
    if (kv_runner_block_bytes(runner_, 0, &bytes, &error) != KV_OK) stop("block bytes", error.message);
    std::vector<std::byte> data(bytes * count, std::byte{1});
    std::vector<std::int32_t> blocks;
    for (std::uint32_t i = 0; i < count; ++i) blocks.push_back(static_cast<std::int32_t>(i));
    for (const bool writes : {true, false}) {
      std::vector<double> rates;
      for (int run = 0; run < runs; ++run) {
        Waiter waiter;
        const double begin = seconds();
        const kv_status status =
            writes ? kv_runner_write_blocks(runner_, 0, blocks.data(), count, data.data(), data.size(), &Waiter::on_done,
                                            &waiter, &error)
                   : kv_runner_read_blocks(runner_, 0, blocks.data(), count, data.data(), data.size(), &Waiter::on_done,
                                           &waiter, &error);
        if (status != KV_OK) stop("blocks", error.message);
        waiter.wait_for(1);
        rates.push_back(static_cast<double>(data.size()) / (seconds() - begin) / 1e9);
      }
      std::sort(rates.begin(), rates.end());
      std::printf("{\"what\":\"%s\",\"tokens\":%u,\"bytes\":%zu,\"gigabytes_per_s\":%.1f,\"min\":%.1f,\"max\":%.1f}\n",
                  writes ? "write blocks" : "read blocks", tokens, data.size(), median(rates), rates.front(),
                  rates.back());
      std::fflush(stdout);
    }
  }

 private:
  void submit(const kv_batch& batch, Waiter& waiter) {
    kv_error error{};
    error.size = sizeof error;
    if (kv_runner_submit(runner_, &batch, &Waiter::on_step, &waiter, &error) != KV_OK) stop("submit", error.message);
  }
  // Prompts of all sequences, a chunk of one sequence a step.
  void fill(std::uint32_t S, std::uint32_t tokens, std::uint32_t chunk, bool wants_last) {
    if (wants_last) width_ = (tokens + 255) / 256;
    Waiter waiter;
    std::vector<std::unique_ptr<Step>> all;
    for (std::uint32_t s = 0; s < S; ++s) {
      for (std::uint32_t at = 0; at < tokens; at += chunk) {
        all.push_back(std::make_unique<Step>(1, std::min(chunk, tokens - at), at, width_, false, false));
        Step& step = *all.back();
        for (std::int32_t& slot : step.mapping) slot += static_cast<std::int32_t>(s * width_ * 256);
        for (std::int32_t& block : step.tables) block += static_cast<std::int32_t>(s * width_);
        if (wants_last && at + chunk >= tokens) step.flags[0] = KV_ROW_HASH;
      }
    }
    int sent = 0;
    for (const auto& step : all) {
      submit(step->batch, waiter);
      if (++sent > 1) waiter.wait_for(sent - 1);
    }
    waiter.wait_for(sent);
  }

  kv_runner* runner_;
  const BenchModel& model_;
  std::string type_;
  std::uint32_t width_ = 1;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) stop("usage", "waist_bench FILE [llama-]q4_k_m|f16|q8_0[-fast] [what ...]");
  // "-fast" behind the type: the fast mode, in steps of 4,096 tokens.
  std::string type = argv[2];
  const bool fast = type.size() > 5 && type.ends_with("-fast");
  if (fast) type.resize(type.size() - 5);
  if (type.starts_with("llama-")) {
    dims = kLlama;
    type.erase(0, 6);
  }
  const BenchModel model(argv[1], type);
  kv_runner_options options{};
  options.size = sizeof options;
  options.block_tokens = 256;
  options.n_blocks[0] = 512;
  options.kv_dtype = KV_F16;
  options.max_batch_tokens = fast ? 4096 : 2048;
  options.activation_mode = fast ? KV_ACTIVATIONS_FAST : KV_ACTIVATIONS_QUANTIZED;
  options.max_batch_sequences = 64;
  options.max_blocks_per_sequence = 128;
  options.n_sampler_slots = 64;
  kv_error error{};
  error.size = sizeof error;
  kv_runner* runner = nullptr;
  const double begin = seconds();
  if (kv_runner_create(&model.model, &options, nullptr, nullptr, &runner, &error) != KV_OK) stop("create", error.message);
  kv_memory memory{};
  memory.size = sizeof memory;
  kv_runner_memory(runner, &memory, nullptr);
  std::printf("{\"what\":\"load\",\"type\":\"%s\",\"seconds\":%.2f,\"weight_bytes\":%llu,\"pool_bytes\":%llu,"
              "\"workspace_bytes\":%llu,\"read_bytes_per_token\":%llu}\n", type.c_str(), seconds() - begin,
              static_cast<unsigned long long>(memory.weights_repacked_bytes + memory.weights_mapped_bytes),
              static_cast<unsigned long long>(memory.kv_pool_bytes), static_cast<unsigned long long>(memory.workspace_bytes),
              static_cast<unsigned long long>(model.read_bytes()));
  Bench bench(runner, model, argv[2]);
  std::vector<std::string> what(argv + 3, argv + argc);
  const auto wants = [&](const char* name) {
    return what.empty() || std::find(what.begin(), what.end(), name) != what.end();
  };
  if (wants("decode1")) bench.decode(1, 512, 128, 5, 0.0f);
  if (wants("decode1t")) bench.decode(1, 512, 128, 3, 0.8f);
  if (wants("decode8")) bench.decode(8, 512, 128, 3, 0.0f);
  if (wants("decode32")) bench.decode(32, 512, 128, 3, 0.0f);
  if (wants("decode64")) bench.decode(64, 512, 128, 3, 0.0f);
  if (wants("prefill")) bench.prefill(8192, options.max_batch_tokens, 5);
  if (wants("long")) bench.decode(1, 32000, 64, 3, 0.0f);
  if (wants("resume")) {
    bench.resume(32000, 1, 9);
    bench.resume(32000, 8, 9);
    bench.resume(32000, 16, 9);
    bench.resume(32000, 32, 9);
  }
  if (wants("restore")) bench.restore(32768, 7);
  kv_runner_destroy(runner);
  return 0;
}
