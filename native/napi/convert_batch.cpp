#include "napi/convert_batch.h"

#include "napi/errors.h"
#include "napi/fields.h"

#include <cstring>

namespace kv::node {

BatchArguments::BatchArguments(Napi::Value value, uint32_t vocab) {
  const Fields fields(value, "batch");
  const View<int32_t> token_ids = fields.array<int32_t>("tokenIds");
  const View<int32_t> context_lengths = fields.array<int32_t>("contextLengths");
  const size_t T = token_ids.length, S = context_lengths.length;
  if (T > UINT32_MAX - 1) fields.refuse("tokenIds", "fewer than 2^32 elements", std::to_string(T));
  if (S > T) fields.refuse("contextLengths", "at most one sequence a token", std::to_string(S));

  batch_.size = sizeof(batch_);
  batch_.n_tokens = static_cast<uint32_t>(T);
  batch_.n_sequences = static_cast<uint32_t>(S);
  batch_.token_ids = token_ids.data;
  batch_.positions = fields.array<int32_t>("positions", T).data;
  batch_.cu_seqlens_q = fields.array<int32_t>("cuSeqlensQ", S + 1).data;
  batch_.context_lengths = context_lengths.data;
  batch_.sampler_slots = fields.array<int32_t>("samplerSlots", S).data;
  batch_.output_indexes = fields.array<int32_t>("outputIndexes", S).data;
  batch_.row_flags = fields.array<uint8_t>("rowFlags", S).data;
  if (fields.has("inputRows")) batch_.input_rows = fields.array<int32_t>("inputRows", S).data;
  if (fields.has("targetIds")) batch_.target_ids = fields.array<int32_t>("targetIds", T).data;
  read_groups(fields);
  if (fields.has("masks")) read_masks(fields, vocab);
  read_samplers(fields);
}

void BatchArguments::read_groups(const Fields& fields) {
  const View<uint32_t> widths = fields.array<uint32_t>("blockTableWidth");
  const std::vector<Napi::Value> tables = fields.list("blockTables");
  const std::vector<Napi::Value> slots = fields.list("slotMapping");
  if (widths.length < 1 || widths.length > KV_MAX_GROUPS || tables.size() != widths.length ||
      slots.size() != widths.length) {
    fields.refuse("blockTables", "as many groups as blockTableWidth and slotMapping, 1 to " + std::to_string(KV_MAX_GROUPS),
                  std::to_string(tables.size()));
  }
  batch_.n_groups = static_cast<uint32_t>(widths.length);
  for (uint32_t group = 0; group < batch_.n_groups; group++) {
    View<int32_t> table, slot;
    const Napi::Env env = tables[group].Env();
    if (!try_view(env, tables[group], table) || table.length != size_t{batch_.n_sequences} * widths.data[group]) {
      fields.refuse("blockTables", "Int32Arrays of sequences * blockTableWidth elements",
                    std::to_string(table.length) + " elements in group " + std::to_string(group));
    }
    if (!try_view(env, slots[group], slot) || slot.length != batch_.n_tokens) {
      fields.refuse("slotMapping", "Int32Arrays of one element a token",
                    std::to_string(slot.length) + " elements in group " + std::to_string(group));
    }
    batch_.block_table_width[group] = widths.data[group];
    batch_.block_tables[group] = table.data;
    batch_.slot_mapping[group] = slot.data;
  }
}

void BatchArguments::read_masks(const Fields& fields, uint32_t vocab) {
  const size_t words = (size_t{vocab} + 31) / 32;
  for (const Napi::Value& mask : fields.list("masks")) {
    View<uint32_t> view;
    if (!mask.IsNull() && (!try_view(mask.Env(), mask, view) || view.length != words)) {
      fields.refuse("masks", "null or Uint32Arrays of " + std::to_string(words) + " words",
                    std::to_string(view.length) + " words");
    }
    masks_.push_back(view.data);
  }
  if (masks_.size() != batch_.n_sequences) {
    fields.refuse("masks", std::to_string(batch_.n_sequences) + " elements", std::to_string(masks_.size()));
  }
  batch_.masks = masks_.data();
}

void BatchArguments::read_samplers(const Fields& fields) {
  int64_t index = 0;
  for (const Napi::Value& element : fields.list("samplers")) {
    const Fields from(element, "samplers", index++);
    kv_sampler sampler{};
    sampler.size = sizeof(sampler);
    sampler.slot = from.u32("slot");
    sampler.seed = from.u64_from_bigint("seed");
    sampler.temperature = from.f32("temperature");
    sampler.top_k = from.u32("topK");
    sampler.top_p = from.f32("topP");
    sampler.min_p = from.f32("minP");
    sampler.repetition_penalty = from.f32("repetitionPenalty");
    sampler.frequency_penalty = from.f32("frequencyPenalty");
    sampler.presence_penalty = from.f32("presencePenalty");
    sampler.n_logprobs = from.u32("nLogprobs");
    sampler.report_logprob = from.u32("reportLogprob");
    sampler.max_outputs = from.u32("maxOutputs");
    sampler.adapter = from.i32("adapter");
    sampler.n_prompt = from.u32("nPrompt");
    const View<int32_t> history = from.array<int32_t>("history");
    const View<int32_t> bias_ids = from.array<int32_t>("biasIds");
    const View<int32_t> stop_ids = from.array<int32_t>("stopIds");
    sampler.n_history = static_cast<uint32_t>(history.length);
    sampler.history = history.data;
    sampler.n_bias = static_cast<uint32_t>(bias_ids.length);
    sampler.bias_ids = bias_ids.data;
    sampler.bias_values = from.array<float>("biasValues", bias_ids.length).data;
    sampler.n_stop = static_cast<uint32_t>(stop_ids.length);
    sampler.stop_ids = stop_ids.data;
    samplers_.push_back(sampler);
  }
  batch_.n_samplers = static_cast<uint32_t>(samplers_.size());
  batch_.samplers = samplers_.data();
}

// --------------------------------------------------------------------------------------------------------- results

namespace {

// Appends sections to a buffer whose size a first pass with a null buffer has counted.
class Packer {
 public:
  explicit Packer(std::byte* data) : data_(data) {}

  template <typename T>
  void add(const T* values, size_t count) {
    const size_t bytes = count * sizeof(T);
    if (data_ != nullptr && bytes > 0) std::memcpy(data_ + used_, values, bytes);
    used_ += bytes;
  }
  size_t used() const { return used_; }

 private:
  std::byte* data_;
  size_t used_ = 0;
};

void pack(Packer& packer, const kv_step_result& result, size_t n_targets, size_t vocab) {
  const size_t S = result.n_sequences, K = result.max_logprobs, R = result.n_logits_rows;
  packer.add(result.hashes, S);
  packer.add(result.sampled_ids, S);
  packer.add(result.sampled_logprobs, S);
  packer.add(result.top_ids, S * K);
  packer.add(result.top_logprobs, S * K);
  packer.add(result.logits_tokens, R);
  packer.add(result.target_logprobs, n_targets);
  packer.add(result.logits, R * vocab);
  packer.add(result.stops, S);
}

// Typed arrays over one ArrayBuffer, section after section.
class Unpacker {
 public:
  Unpacker(Napi::Env env, Napi::Object object, napi_value buffer) : env_(env), object_(object), buffer_(buffer) {}

  void add(const char* name, napi_typedarray_type type, size_t count, size_t element_bytes) {
    napi_value array = nullptr;
    if (napi_create_typedarray(env_, type, count, buffer_, offset_, &array) != napi_ok ||
        napi_set_named_property(env_, object_, name, array) != napi_ok) {
      throw Napi::Error::New(env_);
    }
    offset_ += count * element_bytes;
  }

 private:
  Napi::Env env_;
  Napi::Object object_;
  napi_value buffer_;
  size_t offset_ = 0;
};

}  // namespace

PackedStep::PackedStep(const kv_step_result& result, uint32_t n_tokens, uint32_t vocab)
    : n_sequences_(result.n_sequences),
      n_logits_rows_(result.n_logits_rows),
      max_logprobs_(result.max_logprobs),
      n_targets_(result.target_logprobs == nullptr ? 0 : n_tokens),
      vocab_(vocab),
      bytes_(0),
      execute_ns_(result.execute_ns) {
  Packer counter(nullptr);
  pack(counter, result, n_targets_, vocab_);
  bytes_ = counter.used();
  data_ = std::make_unique_for_overwrite<std::byte[]>(bytes_);
  Packer packer(data_.get());
  pack(packer, result, n_targets_, vocab_);
}

Napi::Value PackedStep::to_javascript(Napi::Env env) const {
  Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, bytes_);
  if (bytes_ > 0) std::memcpy(buffer.Data(), data_.get(), bytes_);
  Napi::Object object = Napi::Object::New(env);
  Unpacker unpack(env, object, buffer);
  unpack.add("hashes", napi_biguint64_array, n_sequences_, 8);
  unpack.add("sampledIds", napi_int32_array, n_sequences_, 4);
  unpack.add("sampledLogprobs", napi_float32_array, n_sequences_, 4);
  unpack.add("topIds", napi_int32_array, n_sequences_ * max_logprobs_, 4);
  unpack.add("topLogprobs", napi_float32_array, n_sequences_ * max_logprobs_, 4);
  unpack.add("logitsTokens", napi_uint32_array, n_logits_rows_, 4);
  unpack.add("targetLogprobs", napi_float32_array, n_targets_, 4);
  unpack.add("logits", napi_float32_array, n_logits_rows_ * vocab_, 4);
  unpack.add("stops", napi_uint8_array, n_sequences_, 1);
  object.Set("maxLogprobs", Napi::Number::New(env, static_cast<double>(max_logprobs_)));
  object.Set("executeNs", Napi::Number::New(env, static_cast<double>(execute_ns_)));
  return object;
}

}  // namespace kv::node
