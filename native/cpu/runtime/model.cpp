#include "cpu/runtime/model.h"

#include <algorithm>

#include "common/checks.h"
#include "common/dtype.h"
#include "host/model_check.h"
#include "host/tensor_roles.h"

namespace kv::cpu {

Model::Model(const kv_model* description, MemoryLedger& ledger, kv_progress_callback progress, void* user) {
  check_model(description);
  description_ = *description;
  description_.layers = nullptr;
  description_.ropes = nullptr;
  description_.tensors = nullptr;
  description_.files = nullptr;
  for (std::uint32_t i = 0; i < description->n_ropes; ++i) {
    const kv_rope& rope = description->ropes[i];
    ropes_.push_back({static_cast<kv_rope_style>(rope.style), rope.rotary_dim,
                      {rope.inverse_frequencies, rope.inverse_frequencies + rope.rotary_dim / 2},
                      rope.attention_factor});
  }
  for (std::uint32_t i = 0; i < description->n_layers; ++i) {
    layers_.emplace_back();
    layers_.back().shape = description->layers[i];
  }
  open_files(*description);
  check_extents(*description);
  for (const auto& file : files_) file->map();
  read_once(*description, progress, user);
  bind_tensors(*description, ledger);
  check_files();
}

std::uint64_t Model::mapped_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& file : files_) bytes += file->bytes();
  return bytes;
}

std::vector<KvLayerShape> Model::kv_shapes() const {
  std::vector<KvLayerShape> shapes;
  for (const Layer& layer : layers_) shapes.push_back({layer.shape.group, layer.shape.n_kv_heads, layer.shape.head_dim});
  return shapes;
}

void Model::check_files() const {
  for (const auto& file : files_) {
    if (file->truncated()) {
      fail(KV_FILE_TRUNCATED, "%s: expected %llu bytes, found fewer: the file was cut while it was in use; restore it "
           "and load the model again", file->path().c_str(), static_cast<unsigned long long>(file->bytes()));
    }
  }
}

void Model::open_files(const kv_model& description) {
  for (std::uint32_t i = 0; i < description.n_files; ++i) {
    files_.push_back(std::make_unique<MappedFile>(description.files[i]));
  }
}

void Model::check_extents(const kv_model& description) const {
  for (std::uint32_t i = 0; i < description.n_tensors; ++i) {
    const kv_tensor& tensor = description.tensors[i];
    const MappedFile& file = *files_[tensor.file];
    std::uint64_t end = 0;
    const RoleSpec* spec = role_spec(tensor.role);
    check(add(tensor.offset, tensor.bytes, &end), "tensor %u (%s, layer %d): offset %llu is beyond any file", i,
          spec->name, tensor.layer, static_cast<unsigned long long>(tensor.offset));
    if (end > file.bytes()) {
      fail(KV_FILE_TRUNCATED, "%s: tensor %u (%s, layer %d) needs bytes %llu to %llu, the file has %llu; fetch it again",
           file.path().c_str(), i, spec->name, tensor.layer, static_cast<unsigned long long>(tensor.offset),
           static_cast<unsigned long long>(end), static_cast<unsigned long long>(file.bytes()));
    }
  }
}

void Model::read_once(const kv_model& description, kv_progress_callback progress, void* user) const {
  constexpr std::uint64_t kStep = std::uint64_t{8} << 20;
  constexpr std::uint64_t kPage = 4096;
  std::uint64_t total = 0;
  for (std::uint32_t i = 0; i < description.n_tensors; ++i) total += description.tensors[i].bytes;
  std::uint64_t done = 0;
  for (std::uint32_t i = 0; i < description.n_tensors; ++i) {
    const kv_tensor& tensor = description.tensors[i];
    const volatile std::byte* data = files_[tensor.file]->data() + tensor.offset;
    for (std::uint64_t begin = 0; begin < tensor.bytes; begin += kStep) {
      const std::uint64_t end = std::min(tensor.bytes, begin + kStep);
      for (std::uint64_t at = begin; at < end; at += kPage) static_cast<void>(data[at]);
      done += end - begin;
      if (progress != nullptr && progress(user, done, total) != 0) {
        fail(KV_CANCELLED, "loading was cancelled after %llu of %llu bytes", static_cast<unsigned long long>(done),
             static_cast<unsigned long long>(total));
      }
    }
  }
}

void Model::bind_tensors(const kv_model& description, MemoryLedger& ledger) {
  const KernelTable* scalar = select_kernels("scalar");
  std::uint64_t values = 0;
  for (std::uint32_t i = 0; i < description.n_tensors; ++i) {
    const kv_tensor& tensor = description.tensors[i];
    if (role_spec(tensor.role)->kind == TensorKind::kVector) values += tensor.shape[0];
  }
  vectors_ = Buffer<float>(ledger, ledger.repacked_bytes, values, "norms and biases");
  float* next = vectors_.data();
  for (std::uint32_t i = 0; i < description.n_tensors; ++i) {
    const kv_tensor& tensor = description.tensors[i];
    const std::byte* data = files_[tensor.file]->data() + tensor.offset;
    const auto dtype = static_cast<kv_dtype>(tensor.dtype);
    if (role_spec(tensor.role)->kind == TensorKind::kVector) {
      scalar->dequantize_row(dtype, data, static_cast<std::int64_t>(tensor.shape[0]), next);
      bind(tensor, next, {});
      next += tensor.shape[0];
    } else {
      bind(tensor, nullptr,
           {dtype, static_cast<std::int64_t>(tensor.shape[0]), static_cast<std::int64_t>(tensor.shape[1]), data});
    }
  }
  if (output_.data == nullptr) output_ = embedding_;
}

void Model::bind(const kv_tensor& tensor, const float* vector, const WeightMatrix& matrix) {
  if (tensor.layer < 0) {
    if (tensor.role == KV_ROLE_TOKEN_EMBEDDING) embedding_ = matrix;
    if (tensor.role == KV_ROLE_OUTPUT) output_ = matrix;
    if (tensor.role == KV_ROLE_OUTPUT_NORM) output_norm_ = vector;
    return;
  }
  Layer& layer = layers_[static_cast<std::size_t>(tensor.layer)];
  switch (tensor.role) {
    case KV_ROLE_ATTN_NORM: layer.attention_norm = vector; break;
    case KV_ROLE_ATTN_Q: layer.q.weight = matrix; break;
    case KV_ROLE_ATTN_K: layer.k.weight = matrix; break;
    case KV_ROLE_ATTN_V: layer.v.weight = matrix; break;
    case KV_ROLE_ATTN_Q_BIAS: layer.q.bias = vector; break;
    case KV_ROLE_ATTN_K_BIAS: layer.k.bias = vector; break;
    case KV_ROLE_ATTN_V_BIAS: layer.v.bias = vector; break;
    case KV_ROLE_ATTN_Q_NORM: layer.q_norm = vector; break;
    case KV_ROLE_ATTN_K_NORM: layer.k_norm = vector; break;
    case KV_ROLE_ATTN_OUTPUT: layer.attention_output.weight = matrix; break;
    case KV_ROLE_ATTN_OUTPUT_BIAS: layer.attention_output.bias = vector; break;
    case KV_ROLE_ATTN_SINKS: layer.sinks = vector; break;
    case KV_ROLE_ATTN_POST_NORM: layer.attention_post_norm = vector; break;
    case KV_ROLE_FFN_NORM: layer.ffn_norm = vector; break;
    case KV_ROLE_FFN_GATE: layer.gate.weight = matrix; break;
    case KV_ROLE_FFN_UP: layer.up.weight = matrix; break;
    case KV_ROLE_FFN_DOWN: layer.down.weight = matrix; break;
    case KV_ROLE_FFN_GATE_BIAS: layer.gate.bias = vector; break;
    case KV_ROLE_FFN_UP_BIAS: layer.up.bias = vector; break;
    case KV_ROLE_FFN_DOWN_BIAS: layer.down.bias = vector; break;
    case KV_ROLE_FFN_POST_NORM: layer.ffn_post_norm = vector; break;
    default: fail(KV_INTERNAL, "tensor role %d has a description but no place in a layer", tensor.role);
  }
}

}  // namespace kv::cpu
