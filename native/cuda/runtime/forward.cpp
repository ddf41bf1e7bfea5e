#include "cuda/runtime/forward.h"

#include <algorithm>

#include "cuda/runtime/device.h"

namespace kv::cuda {

Forward::Forward(const DeviceModel& model, const KvPool& pool, const Workspace& space, const PlanLimits& limits,
                 kv_activation_mode mode, const LibraryProducts* library)
    : model_(model), pool_(pool), space_(space), limits_(limits), mode_(mode), library_(library) {
  std::uint32_t offset = 0;
  for (const DeviceRope& rope : model.ropes()) {
    rope_offsets_.push_back(offset);
    offset += static_cast<std::uint32_t>(rope.rotary_dim / 2);
  }
}

bool Forward::wants_halves(const DeviceMatrix& weight) const {
  return mode_ != KV_ACTIVATIONS_FLOAT && takes_halves(weight);
}

bool Forward::uses_library(const StepPlan& plan) const {
  return library_ != nullptr && plan.n_tokens > LibraryProducts::kFewTokens;
}

void Forward::product(const StepPlan& plan, const LinearArgs& args, cudaStream_t stream) const {
  if (uses_library(plan)) return library_->linear(args, stream);
  linear(args, stream);
}

HalfInput Forward::halves(bool wanted) const {
  return wanted ? HalfInput{space_.codes.data(), space_.scales.data()} : HalfInput{nullptr, nullptr};
}

void Forward::launch(const StepPlan& plan, const std::vector<Wanted>& wanted, float* returned_logits,
                     cudaStream_t stream) const {
  const auto T = static_cast<std::int32_t>(plan.n_tokens);
  const std::int32_t* sampled = reinterpret_cast<const std::int32_t*>(space_.output.data());
  embed({model_.embedding(), input<std::int32_t>(plan.token_ids), input<std::int32_t>(plan.input_rows), sampled,
         space_.x.data(), model_.scalars().embedding_scale, T}, stream);
  clear_output(space_.output.data(), plan.hashes, plan.output_bytes, stream);
  for (std::size_t r = 0; r < model_.ropes().size(); ++r) {
    const DeviceRope& rope = model_.ropes()[r];
    const std::uint64_t at = std::uint64_t{rope_offsets_[r]} * limits_.batch.max_tokens;
    rope_tables({rope.inverse_frequencies, input<std::int32_t>(plan.positions), space_.cosines.data() + at,
                 space_.sines.data() + at, rope.attention_factor, rope.rotary_dim / 2, T}, stream);
  }
  const std::size_t n_layers = model_.layers().size();
  for (std::size_t index = 0; index < n_layers; ++index) {
    const DeviceLayer& layer = model_.layers()[index];
    launch_attention(plan, static_cast<std::uint32_t>(index), layer, stream);
    // Nobody reads the last layer's output of a step that only fills the KV pool.
    if (index + 1 == n_layers && plan.n_wanted == 0) return;
    launch_feed_forward(plan, layer, stream);
  }
  launch_logits(plan, wanted, returned_logits, stream);
}

void Forward::norm(float* joined, const float* join_norm, const float* weight, bool in_halves, bool keep,
                   std::uint32_t tokens, const std::int32_t* rows, cudaStream_t stream) const {
  const auto hidden = static_cast<std::int32_t>(model_.scalars().hidden);
  rms_norm({space_.x.data(), join_norm == nullptr ? nullptr : joined, join_norm, weight,
            keep ? space_.normed.data() : nullptr, halves(in_halves), rows, hidden, static_cast<std::int32_t>(tokens),
            model_.scalars().norm_epsilon}, stream);
}

void Forward::launch_attention(const StepPlan& plan, std::uint32_t index, const DeviceLayer& layer,
                               cudaStream_t stream) const {
  const kv_layer& shape = layer.shape;
  const auto T = static_cast<std::int32_t>(plan.n_tokens);
  const auto hidden = static_cast<std::int32_t>(model_.scalars().hidden);
  const std::int32_t q_width = static_cast<std::int32_t>(shape.n_heads * shape.head_dim);
  const std::int32_t kv_width = static_cast<std::int32_t>(shape.n_kv_heads * shape.head_dim);
  const bool small = !uses_library(plan);
  const bool all_halves =
      small && wants_halves(layer.q.weight) && wants_halves(layer.k.weight) && wants_halves(layer.v.weight);
  const bool any_halves = small && (wants_halves(layer.q.weight) || wants_halves(layer.k.weight) ||
                                       wants_halves(layer.v.weight));
  norm(space_.y.data(), index == 0 ? nullptr : model_.layers()[index - 1].ffn_post_norm, layer.attention_norm,
       any_halves, !all_halves, plan.n_tokens, nullptr, stream);
  // Strict products add their biases; after the library's, the heads do.
  const auto bias_of = [&](const DeviceLinear& linear, bool of_products) {
    return of_products == small ? linear.bias : nullptr;
  };
  const LinearArgs qkv{{{layer.q.weight, bias_of(layer.q, true), space_.q.data(), q_width, 0},
                        {layer.k.weight, bias_of(layer.k, true), space_.k.data(), kv_width, 0},
                        {layer.v.weight, bias_of(layer.v, true), space_.v.data(), kv_width, 0}},
                       3, halves(any_halves), space_.normed.data(), hidden, T};
  product(plan, qkv, stream);

  const bool rotates = shape.rope >= 0;
  const auto r = static_cast<std::size_t>(rotates ? shape.rope : 0);
  const std::uint64_t rope_at = rotates ? std::uint64_t{rope_offsets_[r]} * limits_.batch.max_tokens : 0;
  const auto block_bytes = static_cast<std::int64_t>(pool_.payload_bytes(shape.group));
  position_heads({space_.q.data(), space_.k.data(), space_.v.data(), layer.q_norm, layer.k_norm,
                  rotates ? space_.cosines.data() + rope_at : nullptr, rotates ? space_.sines.data() + rope_at : nullptr,
                  input<std::int32_t>(plan.slots[shape.group]), pool_.layer(index), block_bytes,
                  pool_.value_offset(index), static_cast<std::int32_t>(shape.n_heads),
                  static_cast<std::int32_t>(shape.n_kv_heads), static_cast<std::int32_t>(shape.head_dim),
                  rotates ? model_.ropes()[r].rotary_dim : 0, rotates ? model_.ropes()[r].style : 0, pool_.dtype(), T,
                  model_.scalars().norm_epsilon, bias_of(layer.q, false), bias_of(layer.k, false),
                  bias_of(layer.v, false)}, stream);

  const AttentionGeometry geometry{shape.n_heads, shape.n_kv_heads, shape.head_dim};
  const auto g = static_cast<std::size_t>(
      std::find(limits_.geometries.begin(), limits_.geometries.end(), geometry) - limits_.geometries.begin());
  // What an f16 pool holds, and so its means, f16 holds unscaled, whichever kernel writes it: attention itself where all items
  // are split, else one behind it.
  const bool unscaled = pool_.dtype() == KV_F16;
  const bool in_halves = small && wants_halves(layer.attention_output.weight);
  const bool on_tensors = plan.n_walk_items[g] != 0 && plan.walk_rows[g] == kTensorRows;
  const bool fused = in_halves && plan.n_walk_items[g] == 0 && unscaled && q_width % 256 == 0 && shape.head_dim % 2 == 0;
  AttentionArgs args{};
  args.q = space_.q.data();
  args.out = fused ? nullptr : space_.attended.data();
  args.halves = halves(fused);
  args.sinks = layer.sinks;
  args.pool = pool_.layer(index);
  args.block_bytes = block_bytes;
  args.value_offset = pool_.value_offset(index);
  args.positions = input<std::int32_t>(plan.positions);
  args.block_tables = input<std::int32_t>(plan.tables[shape.group]);
  args.states = space_.states.data();
  args.table_width = static_cast<std::int32_t>(plan.table_width[shape.group]);
  args.n_heads = static_cast<std::int32_t>(shape.n_heads);
  args.n_kv_heads = static_cast<std::int32_t>(shape.n_kv_heads);
  args.head_dim = static_cast<std::int32_t>(shape.head_dim);
  args.window = static_cast<std::int32_t>(shape.window_tokens);
  args.dtype = pool_.dtype();
  args.scale = shape.softmax_scale;
  args.softcap = shape.logit_softcap;
  if (plan.n_split_items[g] != 0) {
    args.items = input<AttentionItem>(plan.split_items[g]);
    args.n_items = static_cast<std::int32_t>(plan.n_split_items[g]);
    args.n_splits = static_cast<std::int32_t>(plan.n_splits[g]);
    args.rows_per_item = static_cast<std::int32_t>(plan.split_rows[g]);
    kv::cuda::attention(args, stream);
  }
  if (plan.n_walk_items[g] != 0) {
    args.items = input<AttentionItem>(plan.walk_items[g]);
    args.n_items = static_cast<std::int32_t>(plan.n_walk_items[g]);
    args.n_splits = 0;
    args.rows_per_item = static_cast<std::int32_t>(plan.walk_rows[g]);
    if (on_tensors) {
      tensor_attention(args, stream);
    } else {
      kv::cuda::attention(args, stream);
    }
  }

  if (in_halves && !fused) {
    activation({space_.attended.data(), nullptr, nullptr, halves(true), q_width, T, -1, unscaled ? 1 : 0}, stream);
  }
  const bool joins = layer.attention_post_norm == nullptr;
  product(plan, {{{layer.attention_output.weight, layer.attention_output.bias,
                   joins ? space_.x.data() : space_.y.data(), hidden, joins ? 1 : 0}, {}, {}}, 1, halves(in_halves),
                 space_.attended.data(), q_width, T}, stream);
}

void Forward::launch_feed_forward(const StepPlan& plan, const DeviceLayer& layer, cudaStream_t stream) const {
  const auto T = static_cast<std::int32_t>(plan.n_tokens);
  const auto hidden = static_cast<std::int32_t>(model_.scalars().hidden);
  const auto ffn = static_cast<std::int32_t>(layer.shape.ffn_dim);
  const bool small = !uses_library(plan);
  const bool all = small && wants_halves(layer.gate.weight) && wants_halves(layer.up.weight);
  const bool any = small && (wants_halves(layer.gate.weight) || wants_halves(layer.up.weight));
  norm(space_.y.data(), layer.attention_post_norm, layer.ffn_norm, any, !all, plan.n_tokens, nullptr, stream);
  product(plan, {{{layer.gate.weight, layer.gate.bias, space_.gate.data(), ffn, 0},
                  {layer.up.weight, layer.up.bias, space_.up.data(), ffn, 0}, {}}, 2, halves(any),
                 space_.normed.data(), hidden, T}, stream);
  const bool joins = layer.ffn_post_norm == nullptr;
  const LinearPart down{layer.down.weight, layer.down.bias, joins ? space_.x.data() : space_.y.data(), hidden,
                        joins ? 1 : 0};
  if (!small) {
    return library_->gated_linear({{down, {}, {}}, 1, {}, space_.gate.data(), ffn, T}, space_.up.data(),
                                  layer.shape.activation, stream);
  }
  const bool in_halves = wants_halves(layer.down.weight);
  activation({space_.gate.data(), space_.up.data(), in_halves ? nullptr : space_.gate.data(), halves(in_halves), ffn, T,
              layer.shape.activation, 0}, stream);
  linear({{down, {}, {}}, 1, halves(in_halves), space_.gate.data(), ffn, T}, stream);
}

void Forward::launch_logits(const StepPlan& plan, const std::vector<Wanted>& wanted, float* returned_logits,
                            cudaStream_t stream) const {
  const std::uint64_t V = limits_.batch.vocabulary;
  const DeviceLinear& output = model_.output();
  const bool in_halves = wants_halves(output.weight);
  std::uint8_t* out = space_.output.data();
  for (std::uint32_t done = 0; done < plan.n_wanted; done += space_.logits_rows) {
    const std::uint32_t rows = std::min(space_.logits_rows, plan.n_wanted - done);
    norm(space_.y.data(), model_.layers().back().ffn_post_norm, model_.output_norm(), in_halves, !in_halves, rows,
         input<std::int32_t>(plan.wanted_tokens) + done, stream);
    linear({{{output.weight, nullptr, space_.logits.data(), static_cast<std::int64_t>(V), 0}, {}, {}}, 1,
            halves(in_halves), space_.normed.data(), model_.scalars().hidden, static_cast<std::int32_t>(rows)}, stream);
    if (model_.scalars().logit_scale != 1.0f || model_.scalars().final_logit_softcap != 0.0f) {
      scale_logits(space_.logits.data(), static_cast<std::int64_t>(rows * V), model_.scalars().logit_scale,
                   model_.scalars().final_logit_softcap, stream);
    }
    const SampleArgs args{space_.logits.data(), input<WantedRow>(plan.wanted_rows) + done, space_.slots.data(),
                          space_.counts.data(), space_.biases.data(), space_.masks.data(), space_.modified.data(),
                          space_.maxima.data(), space_.sums.data(), static_cast<std::int32_t>(V),
                          static_cast<std::int32_t>(rows), static_cast<std::int32_t>(plan.max_logprobs),
                          reinterpret_cast<std::int32_t*>(out + plan.sampled),
                          reinterpret_cast<float*>(out + plan.logprobs),
                          reinterpret_cast<std::int32_t*>(out + plan.top_ids),
                          reinterpret_cast<float*>(out + plan.top_logprobs),
                          reinterpret_cast<std::uint64_t*>(out + plan.hashes),
                          reinterpret_cast<float*>(out + plan.targets)};
    if (plan.has_sampling != 0 || plan.has_targets != 0) sample(args, stream);
    if (plan.has_hash != 0) hash_rows(args, stream);
    if (returned_logits == nullptr) continue;
    for (std::uint32_t i = 0; i < rows; ++i) {
      if (!wanted[done + i].returned) continue;
      check_cuda(cudaMemcpyAsync(returned_logits, space_.logits.data() + i * V, V * sizeof(float),
                                 cudaMemcpyDeviceToHost, stream), "return logits");
      returned_logits += V;
    }
  }
}

}  // namespace kv::cuda
