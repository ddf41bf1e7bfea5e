#include "cpu/runtime/forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "common/dtype.h"

namespace kv::cpu {

namespace {

// Most tokens a thread takes at a time in the small phases.
constexpr std::int64_t kMaxTokenTile = 8;
// Up to this many tokens the small phases run on one thread inside the barrier: splitting them would cost a barrier of
// its own, which is dearer than the work.
constexpr std::int64_t kSerialTokens = 2;
// Items a linear is cut into per thread, and the bounds of an item's rows: enough to even out a thread that was
// interrupted, long enough for the hardware prefetcher.
constexpr std::int64_t kLinearItemsPerThread = 12;
constexpr std::int64_t kMaxLinearRows = 256;

std::int64_t round_up(std::int64_t value, std::int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

Forward::Forward(const Model& model, KvPool& pool, const KernelTable& kernels, ThreadTeam& team, Workspace& workspace,
                 const BatchLimits& limits, kv_activation_mode mode)
    : model_(model),
      pool_(pool),
      kernels_(kernels),
      team_(team),
      space_(workspace),
      mode_(mode),
      planner_(static_cast<std::uint32_t>(team.size()), workspace.attention_capacity) {
  const auto add_plan = [&](std::vector<AttentionPlan>& plans, const kv_layer& shape) {
    const AttentionGeometry geometry{shape.n_heads, shape.n_kv_heads, shape.head_dim, shape.window_tokens};
    for (const AttentionPlan& plan : plans) {
      if (plan.geometry == geometry) return;
    }
    plans.push_back({geometry, {}, {}, nullptr, 0});
    planner_.reserve(plans.back(), limits.max_tokens, limits.max_sequences);
  };
  for (std::size_t i = 0; i + 1 < model.layers().size(); ++i) add_plan(plans_, model.layers()[i].shape);
  add_plan(last_plans_, model.layers().back().shape);
}

void Forward::run(const StagedBatch& batch, std::uint32_t n_wanted, LogitsSink& sink) {
  batch_ = &batch;
  tokens_ = batch.n_tokens;
  wanted_ = n_wanted;
  for (std::uint64_t i = 0; i < space_.tickets.size(); ++i) new (&space_.tickets[i]) std::atomic<std::int64_t>(0);
  for (AttentionPlan& plan : plans_) {
    planner_.build(plan, {batch.n_tokens, batch.n_sequences, batch.positions.data(), batch.cu_seqlens.data()});
  }
  if (n_wanted != 0) {
    planner_.build(last_plans_[0],
                   {n_wanted, batch.n_sequences, space_.wanted_positions.data(), space_.wanted_begin.data()});
  }
  team_.run([&](int thread) { run_member({thread, 0}, sink); });
}

void Forward::run_member(Member member, LogitsSink& sink) {
  embed(member);
  const std::size_t n_layers = model_.layers().size();
  for (std::size_t index = 0; index < n_layers; ++index) {
    const bool last = index + 1 == n_layers;
    attention(member, index, last);
    // Nobody reads the last layer's output of a step that only fills the KV pool.
    if (last && wanted_ == 0) return;
    feed_forward(member, model_.layers()[index]);
  }
  logits(member, sink);
}

// ---------------------------------------------------------------------------------------------------- work sharing

template <typename Work>
void Forward::each_item(Member& member, std::int64_t count, Work&& work) {
  std::atomic<std::int64_t>& ticket = space_.tickets[static_cast<std::uint64_t>(member.phase++)];
  for (std::int64_t item = ticket.fetch_add(1, std::memory_order_relaxed); item < count;
       item = ticket.fetch_add(1, std::memory_order_relaxed)) {
    work(item);
  }
}

// Everything before is done when `work` starts, and all of `work` is done when this returns.
template <typename Work>
void Forward::each_token(Member& member, std::int64_t tokens, Work&& work) {
  if (tokens <= kSerialTokens) {
    ++member.phase;
    team_.sync([&] { work(std::int64_t{0}, tokens); });
    return;
  }
  const std::int64_t tile = std::clamp<std::int64_t>(tokens / (2 * team_.size()), 1, kMaxTokenTile);
  team_.sync();
  each_item(member, (tokens + tile - 1) / tile, [&](std::int64_t item) {
    work(item * tile, std::min(tokens, (item + 1) * tile));
  });
  team_.sync();
}

std::int64_t Forward::rows_per_item(std::int64_t rows) const {
  const std::int64_t even = rows / (team_.size() * kLinearItemsPerThread);
  return std::clamp(round_up(even, kLinearRowGranularity), kLinearRowGranularity, kMaxLinearRows);
}

std::byte* Forward::linear_scratch(const Member& member) const {
  return space_.thread_linear.data() + static_cast<std::uint64_t>(member.thread) * space_.thread_linear_bytes;
}

// Several linears of the same input as one list of items. after(i, begin, end) follows rows begin..end of linear i on
// the same thread.
template <typename After>
void Forward::linears(Member& member, const LinearArgs* linears, int count, After&& after) {
  std::int64_t total_rows = 0;
  for (int i = 0; i < count; ++i) total_rows += linears[i].weight.rows;
  const std::int64_t step = rows_per_item(total_rows);
  std::int64_t n_items = 0;
  for (int i = 0; i < count; ++i) n_items += (linears[i].weight.rows + step - 1) / step;
  each_item(member, n_items, [&](std::int64_t item) {
    int i = 0;
    while (item >= (linears[i].weight.rows + step - 1) / step) {
      item -= (linears[i].weight.rows + step - 1) / step;
      ++i;
    }
    const std::int64_t begin = item * step;
    const std::int64_t end = std::min(linears[i].weight.rows, begin + step);
    kernels_.linear(linears[i], begin, end, linear_scratch(member));
    after(i, begin, end);
  });
}

bool Forward::wants_quantized(const WeightMatrix& weight) const {
  return mode_ == KV_ACTIVATIONS_QUANTIZED && uses_quantized_activations(weight.dtype);
}

LinearArgs Forward::linear_args(const Linear& linear, const float* x, const std::byte* quantized, float* y) const {
  return {linear.weight, x, linear.weight.cols, wants_quantized(linear.weight) ? quantized : nullptr, tokens_,
          linear.bias,   y, linear.weight.rows};
}

// ------------------------------------------------------------------------------------------------------- the phases

void Forward::embed(Member& member) {
  const WeightMatrix& embedding = model_.embedding();
  std::uint64_t row_bytes = 0;
  weight_row_bytes(embedding.dtype, static_cast<std::uint64_t>(embedding.cols), &row_bytes);
  each_token(member, tokens_, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const auto token = static_cast<std::uint64_t>(t);
      float* x = space_.x.data() + token * model_.hidden();
      kernels_.dequantize_row(embedding.dtype, embedding.data + static_cast<std::uint64_t>(space_.token_ids[token]) * row_bytes, embedding.cols, x);
      if (model_.embedding_scale() != 1.0f) {
        for (std::uint32_t i = 0; i < model_.hidden(); ++i) x[i] *= model_.embedding_scale();
      }
      for (std::size_t r = 0; r < model_.ropes().size(); ++r) {
        const Rope& rope = model_.ropes()[r];
        const std::uint64_t half = rope.rotary_dim / 2;
        for (std::uint64_t i = 0; i < half; ++i) {
          const double angle = static_cast<double>(batch_->positions[token]) * rope.inverse_frequencies[i];
          space_.cosines[r][token * half + i] = static_cast<float>(std::cos(angle) * rope.attention_factor);
          space_.sines[r][token * half + i] = static_cast<float>(std::sin(angle) * rope.attention_factor);
        }
      }
    }
  });
}

void Forward::normalize(const float* weight, const float* x, float* out, std::byte* quantized, bool quantize,
                        std::int64_t tokens, std::int64_t begin, std::int64_t end) {
  const std::int64_t hidden = model_.hidden();
  for (std::int64_t t = begin; t < end; ++t) {
    kernels_.rms_norm({x + t * hidden, weight, out + t * hidden, hidden, model_.norm_epsilon()});
  }
  if (quantize) kernels_.quantize_activations({out, hidden, tokens, hidden, quantized}, begin, end);
}

// x += y, with the norm some families put on a layer's output. Without one the linears add to x themselves.
void Forward::join_residual(const float* post_norm, std::int64_t begin, std::int64_t end) {
  const std::int64_t hidden = model_.hidden();
  for (std::int64_t t = begin; t < end; ++t) {
    float* y = space_.y.data() + t * hidden;
    kernels_.rms_norm({y, post_norm, y, hidden, model_.norm_epsilon()});
    kernels_.add_to(space_.x.data() + t * hidden, y, hidden);
  }
}

void Forward::attention(Member& member, std::size_t index, bool last) {
  const Layer& layer = model_.layers()[index];
  const bool quantize = wants_quantized(layer.q.weight) || wants_quantized(layer.k.weight) ||
                        wants_quantized(layer.v.weight);
  const float* previous_post_norm = index == 0 ? nullptr : model_.layers()[index - 1].ffn_post_norm;
  each_token(member, tokens_, [&](std::int64_t begin, std::int64_t end) {
    if (previous_post_norm != nullptr) join_residual(previous_post_norm, begin, end);
    normalize(layer.attention_norm, space_.x.data(), space_.normed.data(), space_.quantized.data(), quantize, tokens_,
              begin, end);
  });

  const bool gathers = last && wanted_ < tokens_;
  if (gathers && wanted_ != 0) {
    each_token(member, wanted_, [&](std::int64_t begin, std::int64_t end) {
      const std::uint64_t hidden = model_.hidden();
      for (std::int64_t i = begin; i < end; ++i) {
        const auto row = static_cast<std::uint64_t>(i);
        std::memcpy(space_.gathered.data() + row * hidden,
                    space_.normed.data() + static_cast<std::uint64_t>(space_.wanted_tokens[row]) * hidden,
                    hidden * sizeof(float));
      }
      if (wants_quantized(layer.q.weight)) {
        kernels_.quantize_activations({space_.gathered.data(), model_.hidden(), wanted_, model_.hidden(),
                                       space_.quantized_gathered.data()}, begin, end);
      }
    });
  }
  LinearArgs products[3] = {
      linear_args(layer.k, space_.normed.data(), space_.quantized.data(), space_.k.data()),
      linear_args(layer.v, space_.normed.data(), space_.quantized.data(), space_.v.data()),
      linear_args(layer.q, space_.normed.data(), space_.quantized.data(), space_.q.data()),
  };
  if (gathers) {
    products[2] = linear_args(layer.q, space_.gathered.data(), space_.quantized_gathered.data(), space_.q.data());
    products[2].tokens = wanted_;
  }
  linears(member, products, gathers && wanted_ == 0 ? 2 : 3, [](int, std::int64_t, std::int64_t) {});
  each_token(member, tokens_, [&](std::int64_t begin, std::int64_t end) {
    position_and_store(layer, static_cast<std::uint32_t>(index), gathers, begin, end);
  });
  if (last && wanted_ == 0) return;
  if (gathers) {
    // From here on the step has only the wanted rows. One thread moves them: they are few.
    team_.sync([&] { gather_wanted(); });
  }

  const kv_layer& shape = layer.shape;
  AttentionPlan& plan = plan_for(layer, last);
  const AttentionLayer inputs{static_cast<std::uint32_t>(index),
                              shape.softmax_scale,
                              shape.logit_softcap,
                              layer.sinks,
                              space_.q.data(),
                              space_.attended.data(),
                              batch_->block_tables[shape.group].data(),
                              batch_->block_table_width[shape.group]};
  float* scratch =
      space_.thread_attention.data() + static_cast<std::uint64_t>(member.thread) * space_.thread_attention_floats;
  each_item(member, static_cast<std::int64_t>(plan.items.size()), [&](std::int64_t item) {
    run_attention_item(kernels_, pool_, plan, plan.items[static_cast<std::size_t>(item)], inputs,
                       space_.attention_states.data(), scratch);
  });

  const std::int64_t width = layer.attention_output.weight.cols;
  each_token(member, tokens_, [&](std::int64_t begin, std::int64_t end) {
    if (wants_quantized(layer.attention_output.weight)) {
      kernels_.quantize_activations({space_.attended.data(), width, tokens_, width, space_.quantized.data()}, begin,
                                    end);
    }
  });
  const std::int64_t hidden = model_.hidden();
  const LinearArgs output =
      linear_args(layer.attention_output, space_.attended.data(), space_.quantized.data(), space_.y.data());
  linears(member, &output, 1, [&](int, std::int64_t begin, std::int64_t end) {
    if (layer.attention_post_norm != nullptr) return;
    for (std::int64_t t = 0; t < tokens_; ++t) {
      kernels_.add_to(space_.x.data() + t * hidden + begin, space_.y.data() + t * hidden + begin, end - begin);
    }
  });
}

// Head norms and position of q and k, the pool's own rotation, and K and V into the pool, for tokens begin <= t < end.
void Forward::position_and_store(const Layer& layer, std::uint32_t index, bool gathers, std::int64_t begin,
                                 std::int64_t end) {
  const kv_layer& shape = layer.shape;
  const std::int64_t head_dim = shape.head_dim;
  const KvRotation rotation = pool_.rotation(index);
  const auto rotate_heads = [&](float* heads, std::uint32_t n_heads, float factor) {
    if (rotation.block == 0) return;
    kernels_.rotate(heads, n_heads * head_dim, static_cast<std::int32_t>(rotation.block), factor);
  };
  const auto position_heads = [&](float* heads, std::uint32_t n_heads, const float* norm, std::uint64_t token) {
    for (std::uint32_t head = 0; head < n_heads; ++head) {
      float* at = heads + head * head_dim;
      if (norm != nullptr) kernels_.rms_norm({at, norm, at, head_dim, model_.norm_epsilon()});
      if (shape.rope < 0) continue;
      const auto r = static_cast<std::size_t>(shape.rope);
      const Rope& rope = model_.ropes()[r];
      const std::uint64_t half = rope.rotary_dim / 2;
      kernels_.rope({at, space_.cosines[r].data() + token * half, space_.sines[r].data() + token * half,
                     static_cast<std::int32_t>(rope.rotary_dim), rope.style});
    }
  };
  const std::uint64_t q_width = std::uint64_t{shape.n_heads} * shape.head_dim;
  const std::uint64_t kv_width = std::uint64_t{shape.n_kv_heads} * shape.head_dim;
  const auto prepare_query = [&](std::uint64_t row, std::uint64_t token) {
    float* heads = space_.q.data() + row * q_width;
    position_heads(heads, shape.n_heads, layer.q_norm, token);
    rotate_heads(heads, shape.n_heads, rotation.query_factor);
  };
  for (std::int64_t t = begin; t < end; ++t) {
    const auto token = static_cast<std::uint64_t>(t);
    float* keys = space_.k.data() + token * kv_width;
    position_heads(keys, shape.n_kv_heads, layer.k_norm, token);
    rotate_heads(keys, shape.n_kv_heads, rotation.key_factor);
    if (!gathers) prepare_query(token, token);
  }
  if (gathers) {
    // q has one row per wanted token: those whose token lies in this range are done here.
    const std::int32_t* tokens = space_.wanted_tokens.data();
    const std::int32_t* stop = tokens + wanted_;
    for (const std::int32_t* at = std::lower_bound(tokens, stop, begin); at < stop && *at < end; ++at) {
      prepare_query(static_cast<std::uint64_t>(at - tokens), static_cast<std::uint64_t>(*at));
    }
  }
  kernels_.kv_write({space_.k.data(), space_.v.data(), batch_->slot_mapping[shape.group].data(),
                     pool_.keys(index, 0, 0), static_cast<std::int64_t>(pool_.block_bytes(index)),
                     static_cast<std::int64_t>(pool_.head_bytes(index)),
                     static_cast<std::int32_t>(shape.n_kv_heads), static_cast<std::int32_t>(head_dim), kBlockTokens,
                     pool_.dtype()}, begin, end);
}

void Forward::gather_wanted() {
  const std::uint64_t hidden = model_.hidden();
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(wanted_); ++i) {
    const auto token = static_cast<std::uint64_t>(space_.wanted_tokens[i]);
    if (token != i) {
      std::memcpy(space_.x.data() + i * hidden, space_.x.data() + token * hidden, hidden * sizeof(float));
    }
  }
  tokens_ = wanted_;
}

void Forward::feed_forward(Member& member, const Layer& layer) {
  const bool quantize = wants_quantized(layer.gate.weight) || wants_quantized(layer.up.weight);
  each_token(member, tokens_, [&](std::int64_t begin, std::int64_t end) {
    if (layer.attention_post_norm != nullptr) join_residual(layer.attention_post_norm, begin, end);
    normalize(layer.ffn_norm, space_.x.data(), space_.normed.data(), space_.quantized.data(), quantize, tokens_, begin,
              end);
  });
  const std::int64_t ffn = layer.shape.ffn_dim;
  const LinearArgs up = linear_args(layer.up, space_.normed.data(), space_.quantized.data(), space_.up.data());
  const LinearArgs gate = linear_args(layer.gate, space_.normed.data(), space_.quantized.data(), space_.gate.data());
  linears(member, &gate, 1, [&](int, std::int64_t begin, std::int64_t end) {
    kernels_.linear(up, begin, end, linear_scratch(member));
    for (std::int64_t t = 0; t < tokens_; ++t) {
      float* at = space_.gate.data() + t * ffn + begin;
      kernels_.activation({at, space_.up.data() + t * ffn + begin, at, end - begin,
                           static_cast<kv_activation>(layer.shape.activation)});
    }
  });
  each_token(member, tokens_, [&](std::int64_t begin, std::int64_t end) {
    if (wants_quantized(layer.down.weight)) {
      kernels_.quantize_activations({space_.gate.data(), ffn, tokens_, ffn, space_.quantized.data()}, begin, end);
    }
  });
  const std::int64_t hidden = model_.hidden();
  const LinearArgs down = linear_args(layer.down, space_.gate.data(), space_.quantized.data(), space_.y.data());
  linears(member, &down, 1, [&](int, std::int64_t begin, std::int64_t end) {
    if (layer.ffn_post_norm != nullptr) return;
    for (std::int64_t t = 0; t < tokens_; ++t) {
      kernels_.add_to(space_.x.data() + t * hidden + begin, space_.y.data() + t * hidden + begin, end - begin);
    }
  });
}

void Forward::logits(Member& member, LogitsSink& sink) {
  const float* post_norm = model_.layers().back().ffn_post_norm;
  const std::int64_t hidden = model_.hidden();
  const std::int64_t vocabulary = model_.vocabulary();
  const std::int64_t pass = space_.logits_rows;
  for (std::int64_t done = 0; done < wanted_; done += pass) {
    const std::int64_t rows = std::min(pass, wanted_ - done);
    const float* x = space_.x.data() + done * hidden;
    each_token(member, rows, [&](std::int64_t begin, std::int64_t end) {
      if (post_norm != nullptr) join_residual(post_norm, done + begin, done + end);
      normalize(model_.output_norm(), x, space_.normed.data(), space_.quantized.data(),
                wants_quantized(model_.output()), rows, begin, end);
    });
    LinearArgs output =
        linear_args({model_.output(), nullptr}, space_.normed.data(), space_.quantized.data(), space_.logits.data());
    output.tokens = rows;
    linears(member, &output, 1, [&](int, std::int64_t begin, std::int64_t end) {
      if (model_.logit_scale() == 1.0f && model_.final_logit_softcap() == 0.0f) return;
      for (std::int64_t row = 0; row < rows; ++row) {
        kernels_.scale_logits(space_.logits.data() + row * vocabulary + begin, end - begin, model_.logit_scale(),
                              model_.final_logit_softcap());
      }
    });
    team_.sync();
    each_item(member, rows, [&](std::int64_t row) {
      sink.take(member.thread, static_cast<std::uint32_t>(done + row), space_.logits.data() + row * vocabulary);
    });
  }
}

AttentionPlan& Forward::plan_for(const Layer& layer, bool last) {
  if (last) return last_plans_[0];
  const kv_layer& shape = layer.shape;
  const AttentionGeometry geometry{shape.n_heads, shape.n_kv_heads, shape.head_dim, shape.window_tokens};
  for (AttentionPlan& plan : plans_) {
    if (plan.geometry == geometry) return plan;
  }
  return plans_[0];
}

}  // namespace kv::cpu
