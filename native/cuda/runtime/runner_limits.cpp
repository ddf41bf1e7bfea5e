#include "cuda/runtime/runner_limits.h"

#include <algorithm>
#include <string>

#include "common/checks.h"
#include "cuda/runtime/workspace.h"
#include "host/model_check.h"

namespace kv::cuda {

namespace {

constexpr std::uint32_t kMaxGridTokens = 65535;

}  // namespace

DeviceInfo checked_device(const kv_model* model, const kv_runner_options* options) {
  check_model(model);
  check_options(*model, options, true);
  if (options->max_batch_tokens > kMaxGridTokens) {
    fail(KV_OUT_OF_MEMORY, "max_batch_tokens: a step of more than %u tokens fits no device of this backend, found %u; "
         "lower it", kMaxGridTokens, options->max_batch_tokens);
  }
  DeviceInfo device = describe_device();
  const char* path = options->instruction_path;
  if (path != nullptr && *path != '\0' && std::string(path) != "auto" && path != device.instruction_path) {
    fail(KV_UNSUPPORTED, "instruction_path: expected auto or %s, found %s", device.instruction_path.c_str(), path);
  }
  return device;
}

PlanLimits limits_of(const kv_model& model, const DeviceModel& loaded, const kv_runner_options& options) {
  PlanLimits limits{};
  BatchLimits& batch = limits.batch;
  batch.max_tokens = options.max_batch_tokens;
  batch.max_sequences = options.max_batch_sequences;
  batch.max_blocks_per_sequence = options.max_blocks_per_sequence;
  batch.n_sampler_slots = options.n_sampler_slots;
  batch.vocabulary = model.vocab;
  batch.context_length = model.context_length;
  batch.n_groups = model.n_groups;
  bool full[KV_MAX_GROUPS] = {};
  for (const DeviceLayer& layer : loaded.layers()) {
    const kv_layer& shape = layer.shape;
    full[shape.group] = full[shape.group] || shape.window_tokens == 0;
    batch.window_tokens[shape.group] = std::max(batch.window_tokens[shape.group], shape.window_tokens);
    const AttentionGeometry geometry{shape.n_heads, shape.n_kv_heads, shape.head_dim};
    if (std::find(limits.geometries.begin(), limits.geometries.end(), geometry) == limits.geometries.end()) {
      limits.geometries.push_back(geometry);
    }
  }
  if (limits.geometries.size() > kMaxGeometries) {
    fail(KV_UNSUPPORTED, "layers: the CUDA backend takes at most %u shapes of attention, found %u", kMaxGeometries,
         static_cast<unsigned>(limits.geometries.size()));
  }
  for (std::uint32_t group = 0; group < batch.n_groups; ++group) {
    batch.n_blocks[group] = options.n_blocks[group];
    if (full[group]) batch.window_tokens[group] = 0;
  }
  limits.state_floats = split_state_floats(loaded, batch, options.kv_dtype);
  limits.on_tensors = options.activation_mode == KV_ACTIVATIONS_FAST;
  limits.kv_dtype = options.kv_dtype;
  return limits;
}

}  // namespace kv::cuda
