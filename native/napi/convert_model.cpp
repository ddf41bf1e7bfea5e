#include "napi/convert_model.h"

#include "napi/errors.h"
#include "napi/fields.h"

#include <algorithm>

namespace kv::node {
namespace {

template <typename T>
T sized() {
  T value{};
  value.size = sizeof(T);
  return value;
}

kv_layer read_layer(const Fields& fields) {
  kv_layer layer = sized<kv_layer>();
  layer.group = fields.u32("group");
  layer.n_heads = fields.u32("nHeads");
  layer.n_kv_heads = fields.u32("nKvHeads");
  layer.head_dim = fields.u32("headDim");
  layer.window_tokens = fields.u32("windowTokens");
  layer.rope = fields.i32("rope");
  layer.softmax_scale = fields.f32("softmaxScale");
  layer.logit_softcap = fields.f32("logitSoftcap");
  layer.activation = fields.i32("activation");
  layer.ffn_dim = fields.u32("ffnDim");
  layer.n_experts = fields.u32("nExperts");
  layer.n_experts_used = fields.u32("nExpertsUsed");
  return layer;
}

kv_tensor read_tensor(const Fields& fields) {
  kv_tensor tensor = sized<kv_tensor>();
  tensor.role = fields.i32("role");
  tensor.layer = fields.i32("layer");
  tensor.dtype = fields.i32("dtype");
  tensor.file = fields.u32("file");
  const View<double> shape = fields.array<double>("shape");
  if (shape.length < 1 || shape.length > KV_MAX_RANK) {
    fields.refuse("shape", "1 to " + std::to_string(KV_MAX_RANK) + " extents", std::to_string(shape.length));
  }
  tensor.rank = static_cast<uint32_t>(shape.length);
  for (uint32_t i = 0; i < tensor.rank; i++) {
    const double extent = shape.data[i];
    if (!(extent >= 0 && extent <= 9007199254740991.0) || extent != static_cast<double>(static_cast<uint64_t>(extent))) {
      fields.refuse("shape", "integers of 0 to 2^53 - 1", std::to_string(extent));
    }
    tensor.shape[i] = static_cast<uint64_t>(extent);
  }
  tensor.offset = fields.u64("offset");
  tensor.bytes = fields.u64("bytes");
  return tensor;
}

}  // namespace

ModelArguments::ModelArguments(Napi::Value value) {
  const Napi::Env env = value.Env();
  const Fields fields(value, "model");
  int64_t index = 0;
  for (const Napi::Value& layer : fields.list("layers")) layers_.push_back(read_layer({layer, "layers", index++}));
  index = 0;
  for (const Napi::Value& tensor : fields.list("tensors")) {
    const Napi::HandleScope scope(env);
    tensors_.push_back(read_tensor({tensor, "tensors", index++}));
  }
  index = 0;
  for (const Napi::Value& element : fields.list("ropes")) {
    const Fields rope_fields(element, "ropes", index++);
    kv_rope rope = sized<kv_rope>();
    rope.style = rope_fields.i32("style");
    rope.rotary_dim = rope_fields.u32("rotaryDim");
    rope.attention_factor = rope_fields.f64("attentionFactor");
    const View<double> table = rope_fields.array<double>("inverseFrequencies", rope.rotary_dim / 2);
    frequencies_.emplace_back(table.data, table.data + table.length);
    ropes_.push_back(rope);
  }
  for (size_t i = 0; i < ropes_.size(); i++) ropes_[i].inverse_frequencies = frequencies_[i].data();
  for (const Napi::Value& path : fields.list("files")) {
    if (!path.IsString()) fields.refuse("files", "strings", kind_of(env, path));
    paths_.push_back(path.As<Napi::String>().Utf8Value());
    if (paths_.back().find('\0') != std::string::npos) fields.refuse("files", "paths without NUL", "one with NUL");
  }
  for (const std::string& path : paths_) files_.push_back(path.c_str());

  model_ = sized<kv_model>();
  model_.n_layers = static_cast<uint32_t>(layers_.size());
  model_.hidden = fields.u32("hidden");
  model_.vocab = fields.u32("vocab");
  model_.context_length = fields.u32("contextLength");
  model_.n_groups = fields.u32("nGroups");
  model_.n_ropes = static_cast<uint32_t>(ropes_.size());
  model_.n_tensors = static_cast<uint32_t>(tensors_.size());
  model_.n_files = static_cast<uint32_t>(files_.size());
  model_.norm_epsilon = fields.f32("normEpsilon");
  model_.embedding_scale = fields.f32("embeddingScale");
  model_.logit_scale = fields.f32("logitScale");
  model_.final_logit_softcap = fields.f32("finalLogitSoftcap");
  model_.layers = layers_.data();
  model_.ropes = ropes_.data();
  model_.tensors = tensors_.data();
  model_.files = files_.data();
}

RunnerArguments::RunnerArguments(Napi::Value value) {
  const Fields fields(value, "options");
  options_ = sized<kv_runner_options>();
  options_.block_tokens = fields.u32("blockTokens");
  const View<uint32_t> blocks = fields.array<uint32_t>("nBlocks");
  if (blocks.length < 1 || blocks.length > KV_MAX_GROUPS) {
    fields.refuse("nBlocks", "1 to " + std::to_string(KV_MAX_GROUPS) + " groups", std::to_string(blocks.length));
  }
  std::copy_n(blocks.data, blocks.length, options_.n_blocks);
  options_.kv_dtype = fields.i32("kvDtype");
  options_.activation_mode = fields.i32("activationMode");
  options_.max_batch_tokens = fields.u32("maxBatchTokens");
  options_.max_batch_sequences = fields.u32("maxBatchSequences");
  options_.max_blocks_per_sequence = fields.u32("maxBlocksPerSequence");
  options_.n_sampler_slots = fields.u32("nSamplerSlots");
  options_.n_threads = fields.u32("nThreads");
  options_.poison_pool = fields.u32("poisonPool");
  instruction_path_ = fields.text("instructionPath");
  options_.instruction_path = instruction_path_.c_str();
}

}  // namespace kv::node
