#include "host/model_check.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "common/checks.h"
#include "common/dtype.h"
#include "host/block_tokens.h"
#include "host/kv_format.h"
#include "host/tensor_roles.h"

namespace kv {

namespace {

// Far above any published model and low enough that products of two of them fit 64 bits with room to spare.
constexpr std::uint32_t kMaxLayers = 1u << 12;
constexpr std::uint32_t kMaxExtent = 1u << 24;
constexpr std::uint32_t kMaxHeads = 1u << 12;
constexpr std::uint32_t kMaxHeadDim = 512;
constexpr std::uint32_t kMaxFiles = 1u << 12;
constexpr std::uint32_t kMaxTensors = 1u << 18;
constexpr std::uint32_t kMaxRopes = 1u << 12;
constexpr std::uint32_t kMaxContext = 1u << 26;
constexpr std::uint32_t kMaxThreads = 256;

void check_extent(const char* name, std::uint32_t value, std::uint32_t low, std::uint32_t high) {
  check(value >= low && value <= high, "%s: expected %u to %u, found %u", name, low, high, value);
}

void check_rope(const kv_rope& rope, std::uint32_t index) {
  check(rope.size == sizeof(kv_rope), "rope %u: expected size %u, found %u", index,
        static_cast<unsigned>(sizeof(kv_rope)), rope.size);
  check(rope.style == KV_ROPE_HALVES || rope.style == KV_ROPE_INTERLEAVED, "rope %u: unknown style %d", index,
        rope.style);
  check(rope.rotary_dim >= 2 && rope.rotary_dim <= kMaxHeadDim && rope.rotary_dim % 2 == 0,
        "rope %u: expected an even rotary_dim of 2 to %u, found %u", index, kMaxHeadDim, rope.rotary_dim);
  check(rope.inverse_frequencies != nullptr, "rope %u: expected %u frequencies, found NULL", index,
        rope.rotary_dim / 2);
  for (std::uint32_t i = 0; i < rope.rotary_dim / 2; ++i) {
    check(std::isfinite(rope.inverse_frequencies[i]), "rope %u: frequency %u is not finite", index, i);
  }
  check(std::isfinite(rope.attention_factor), "rope %u: attention_factor is not finite", index);
}

void check_layer(const kv_model& model, const kv_layer& layer, std::uint32_t index) {
  check(layer.size == sizeof(kv_layer), "layer %u: expected size %u, found %u", index,
        static_cast<unsigned>(sizeof(kv_layer)), layer.size);
  check(layer.group < model.n_groups, "layer %u: expected a group below %u, found %u", index, model.n_groups,
        layer.group);
  check(layer.n_heads >= 1 && layer.n_heads <= kMaxHeads && layer.n_kv_heads >= 1 &&
            layer.n_kv_heads <= layer.n_heads && layer.n_heads % layer.n_kv_heads == 0,
        "layer %u: expected 1 to %u query heads in equal groups, found %u query and %u KV heads", index, kMaxHeads,
        layer.n_heads, layer.n_kv_heads);
  check(layer.head_dim >= 1 && layer.head_dim <= kMaxHeadDim, "layer %u: expected head_dim 1 to %u, found %u", index,
        kMaxHeadDim, layer.head_dim);
  check(layer.rope >= -1 && layer.rope < static_cast<std::int64_t>(model.n_ropes),
        "layer %u: expected a rope index below %u or -1, found %d", index, model.n_ropes, layer.rope);
  if (layer.rope >= 0) {
    const std::uint32_t rotary = model.ropes[layer.rope].rotary_dim;
    check(rotary <= layer.head_dim, "layer %u: rotary_dim %u exceeds head_dim %u", index, rotary, layer.head_dim);
  }
  check(std::isfinite(layer.softmax_scale), "layer %u: softmax_scale is not finite", index);
  check(std::isfinite(layer.logit_softcap) && layer.logit_softcap >= 0, "layer %u: expected logit_softcap >= 0", index);
  check(layer.activation >= KV_ACT_SILU && layer.activation <= KV_ACT_SWIGLU_OAI, "layer %u: unknown activation %d",
        index, layer.activation);
  check(layer.ffn_dim >= 1 && layer.ffn_dim <= kMaxExtent, "layer %u: expected ffn_dim 1 to %u, found %u", index,
        kMaxExtent, layer.ffn_dim);
  if (layer.n_experts != 0) {
    fail(KV_UNSUPPORTED, "layer %u: this backend has no kernel for routed experts (%u declared)", index,
         layer.n_experts);
  }
  check(layer.n_experts_used == 0, "layer %u: expected n_experts_used 0 without experts, found %u", index,
        layer.n_experts_used);
}

// Returns the position of (layer, role) in a table of all possible tensors.
std::size_t tensor_index(const RoleSpec& spec, const kv_tensor& tensor, int n_roles) {
  int count = 0;
  const RoleSpec* roles = all_roles(&count);
  return static_cast<std::size_t>(tensor.layer + 1) * static_cast<std::size_t>(n_roles) +
         static_cast<std::size_t>(&spec - roles);
}

void check_tensor(const kv_model& model, const kv_tensor& tensor, std::uint32_t index) {
  check(tensor.size == sizeof(kv_tensor), "tensor %u: expected size %u, found %u", index,
        static_cast<unsigned>(sizeof(kv_tensor)), tensor.size);
  const RoleSpec* spec = role_spec(tensor.role);
  check(spec != nullptr, "tensor %u: unknown role %d", index, tensor.role);
  if (spec->of_layer) {
    check(tensor.layer >= 0 && tensor.layer < static_cast<std::int64_t>(model.n_layers),
          "tensor %u (%s): expected a layer below %u, found %d", index, spec->name, model.n_layers, tensor.layer);
  } else {
    check(tensor.layer == -1, "tensor %u (%s): expected layer -1, found %d", index, spec->name, tensor.layer);
  }
  if (spec->role == KV_ROLE_FFN_ROUTER || spec->role == KV_ROLE_FFN_ROUTER_BIAS) {
    check(false, "tensor %u (%s): layer %d declares no experts", index, spec->name, tensor.layer);
  }
  check(tensor.file < model.n_files, "tensor %u (%s, layer %d): expected a file below %u, found %u", index, spec->name,
        tensor.layer, model.n_files, tensor.file);
  const RoleShape shape = role_shape(model, spec->role, tensor.layer);
  if (spec->kind == TensorKind::kVector) {
    check(tensor.rank == 1 && tensor.shape[0] == shape.cols,
          "tensor %u (%s, layer %d): expected shape (%llu), found rank %u with %llu first", index, spec->name,
          tensor.layer, static_cast<unsigned long long>(shape.cols), tensor.rank,
          static_cast<unsigned long long>(tensor.shape[0]));
    check(tensor.dtype == KV_F32 || tensor.dtype == KV_F16 || tensor.dtype == KV_BF16,
          "tensor %u (%s, layer %d): expected F32, F16 or BF16, found dtype %d", index, spec->name, tensor.layer,
          tensor.dtype);
  } else {
    check(tensor.rank == 2 && tensor.shape[0] == shape.rows && tensor.shape[1] == shape.cols,
          "tensor %u (%s, layer %d): expected shape (%llu, %llu), found rank %u with (%llu, %llu)", index, spec->name,
          tensor.layer, static_cast<unsigned long long>(shape.rows), static_cast<unsigned long long>(shape.cols),
          tensor.rank, static_cast<unsigned long long>(tensor.shape[0]),
          static_cast<unsigned long long>(tensor.shape[1]));
  }
  std::uint64_t bytes = 0;
  check(weight_matrix_bytes(tensor.dtype, shape.rows, shape.cols, &bytes),
        "tensor %u (%s, layer %d): rows of %llu values cannot be stored as dtype %d", index, spec->name, tensor.layer,
        static_cast<unsigned long long>(shape.cols), tensor.dtype);
  check(bytes == tensor.bytes, "tensor %u (%s, layer %d): its shape and dtype need %llu bytes, found %llu", index,
        spec->name, tensor.layer, static_cast<unsigned long long>(bytes),
        static_cast<unsigned long long>(tensor.bytes));
}

void check_tensors(const kv_model& model) {
  int n_roles = 0;
  const RoleSpec* roles = all_roles(&n_roles);
  std::vector<bool> present((std::size_t{model.n_layers} + 1) * static_cast<std::size_t>(n_roles), false);
  for (std::uint32_t index = 0; index < model.n_tensors; ++index) {
    const kv_tensor& tensor = model.tensors[index];
    check_tensor(model, tensor, index);
    const RoleSpec* spec = role_spec(tensor.role);
    const std::size_t at = tensor_index(*spec, tensor, n_roles);
    check(!present[at], "tensor %u: a second %s for layer %d", index, spec->name, tensor.layer);
    present[at] = true;
  }
  for (std::int64_t layer = -1; layer < static_cast<std::int64_t>(model.n_layers); ++layer) {
    for (int role = 0; role < n_roles; ++role) {
      if (!roles[role].required || roles[role].of_layer != (layer >= 0)) continue;
      check(present[static_cast<std::size_t>(layer + 1) * static_cast<std::size_t>(n_roles) +
                    static_cast<std::size_t>(role)],
            "tensors: the %s of layer %lld is missing", roles[role].name, static_cast<long long>(layer));
    }
  }
}

}  // namespace

void check_model(const kv_model* pointer) {
  check_struct(pointer, "kv_model");
  const kv_model& model = *pointer;
  check_extent("n_layers", model.n_layers, 1, kMaxLayers);
  check_extent("hidden", model.hidden, 1, kMaxExtent);
  check_extent("vocab", model.vocab, 1, kMaxExtent);
  check_extent("context_length", model.context_length, 1, kMaxContext);
  check_extent("n_groups", model.n_groups, 1, KV_MAX_GROUPS);
  check_extent("n_ropes", model.n_ropes, 0, kMaxRopes);
  check_extent("n_tensors", model.n_tensors, 1, kMaxTensors);
  check_extent("n_files", model.n_files, 1, kMaxFiles);
  check(std::isfinite(model.norm_epsilon) && model.norm_epsilon >= 0, "norm_epsilon: expected a finite value >= 0");
  check(std::isfinite(model.embedding_scale), "embedding_scale: expected a finite value");
  check(std::isfinite(model.logit_scale), "logit_scale: expected a finite value");
  check(std::isfinite(model.final_logit_softcap) && model.final_logit_softcap >= 0,
        "final_logit_softcap: expected a finite value >= 0");
  check(model.layers != nullptr && model.tensors != nullptr && model.files != nullptr,
        "kv_model: layers, tensors and files must not be NULL");
  check(model.n_ropes == 0 || model.ropes != nullptr, "kv_model: expected %u ropes, found NULL", model.n_ropes);
  for (std::uint32_t i = 0; i < model.n_files; ++i) {
    check(model.files[i] != nullptr && model.files[i][0] != '\0', "file %u: expected a path, found none", i);
  }
  for (std::uint32_t i = 0; i < model.n_ropes; ++i) check_rope(model.ropes[i], i);
  bool group_used[KV_MAX_GROUPS] = {};
  for (std::uint32_t i = 0; i < model.n_layers; ++i) {
    check_layer(model, model.layers[i], i);
    group_used[model.layers[i].group] = true;
  }
  for (std::uint32_t i = 0; i < model.n_groups; ++i) check(group_used[i], "group %u: expected a layer, found none", i);
  check_tensors(model);
}

namespace {

void check_kv_dtype(const kv_model& model, std::int32_t number, bool holds_quantized_kv) {
  check(number == KV_F32 || number == KV_F16 || number == KV_BF16 || number == KV_Q8 || number == KV_Q4,
        "kv_dtype: expected F32, F16, BF16, Q8 or Q4, found %d", number);
  const auto dtype = static_cast<kv_dtype>(number);
  if (!is_quantized_kv(dtype)) return;
  const char* name = dtype == KV_Q8 ? "Q8" : "Q4";
  if (!holds_quantized_kv) {
    fail(KV_UNSUPPORTED, "kv_dtype: this backend holds KV as F32, F16 or BF16, found %s; choose one of these", name);
  }
  for (std::uint32_t i = 0; i < model.n_layers; ++i) {
    const std::uint32_t head_dim = model.layers[i].head_dim;
    if (kv_dtype_takes(dtype, head_dim)) continue;
    fail(KV_UNSUPPORTED,
         "kv_dtype: %s needs heads of a multiple of %u values, or below %u of a multiple of %u; layer %u has %u; choose "
         "F16 or BF16",
         name, kKvGroupValues, kKvGroupValues, kKvGroupMultiple, i, head_dim);
  }
}

}  // namespace

void check_options(const kv_model& model, const kv_runner_options* pointer, bool holds_quantized_kv) {
  check_struct(pointer, "kv_runner_options");
  const kv_runner_options& options = *pointer;
  if (options.block_tokens != kBlockTokens) {
    fail(KV_UNSUPPORTED, "block_tokens: expected %d, found %u", kBlockTokens, options.block_tokens);
  }
  for (std::uint32_t i = 0; i < model.n_groups; ++i) {
    // Slots (block * Bk + offset) are int32 at the waist.
    check(options.n_blocks[i] >= 1 && options.n_blocks[i] <= static_cast<std::uint32_t>(INT32_MAX) / kBlockTokens,
          "n_blocks[%u]: expected 1 to %d, found %u", i, INT32_MAX / kBlockTokens, options.n_blocks[i]);
  }
  check_kv_dtype(model, options.kv_dtype, holds_quantized_kv);
  check(options.activation_mode >= KV_ACTIVATIONS_QUANTIZED && options.activation_mode <= KV_ACTIVATIONS_FAST,
        "activation_mode: expected 0 to 2, found %d", options.activation_mode);
  check_extent("max_batch_tokens", options.max_batch_tokens, 1, INT32_MAX);
  check_extent("max_batch_sequences", options.max_batch_sequences, 1, INT32_MAX);
  check(options.max_batch_sequences <= options.max_batch_tokens,
        "max_batch_sequences: expected at most max_batch_tokens (%u), found %u", options.max_batch_tokens,
        options.max_batch_sequences);
  check_extent("max_blocks_per_sequence", options.max_blocks_per_sequence, 1, INT32_MAX / kBlockTokens);
  check_extent("n_sampler_slots", options.n_sampler_slots, 0, 1u << 20);
  check_extent("n_threads", options.n_threads, 0, kMaxThreads);
  check(options.instruction_path == nullptr || std::strlen(options.instruction_path) < 32,
        "instruction_path: expected a name of kv_backend_info.instruction_paths");
}

}  // namespace kv
