#include "cpu/runtime/workspace.h"

#include <algorithm>

#include "common/checks.h"
#include "cpu/runtime/attention_run.h"

namespace kv::cpu {

namespace {

// Memory limits of the two buffers whose natural size is a product of limits; beyond them work is done in more passes
// (logits) or in longer items (attention).
constexpr std::uint64_t kMaxLogitsBytes = std::uint64_t{64} << 20;
constexpr std::uint64_t kMaxStateBytes = std::uint64_t{32} << 20;

constexpr std::uint64_t kPhasesPerLayer = 12;
constexpr std::uint64_t kPhasesPerStep = 16;

std::uint64_t round_up(std::uint64_t value, std::uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

struct Widths {
  std::uint64_t q = 0, kv = 0, ffn = 0, head_dim = 0, group_size = 0;
  std::uint64_t quantized = 0;  // widest input of a linear that takes 8-bit activations
  std::uint64_t scratch = 0;

  void see(const Linear& linear) { see(linear.weight); }
  void see(const WeightMatrix& weight) {
    scratch = std::max(scratch, static_cast<std::uint64_t>(linear_scratch_bytes(weight)));
    if (uses_quantized_activations(weight.dtype)) {
      quantized = std::max(quantized, static_cast<std::uint64_t>(weight.cols));
    }
  }
};

Widths widths_of(const Model& model) {
  Widths widths;
  for (const Layer& layer : model.layers()) {
    const kv_layer& shape = layer.shape;
    widths.q = std::max(widths.q, std::uint64_t{shape.n_heads} * shape.head_dim);
    widths.kv = std::max(widths.kv, std::uint64_t{shape.n_kv_heads} * shape.head_dim);
    widths.ffn = std::max(widths.ffn, std::uint64_t{shape.ffn_dim});
    widths.head_dim = std::max(widths.head_dim, std::uint64_t{shape.head_dim});
    widths.group_size = std::max(widths.group_size, std::uint64_t{shape.n_heads / shape.n_kv_heads});
    for (const Linear* linear : {&layer.q, &layer.k, &layer.v, &layer.attention_output, &layer.gate, &layer.up,
                                 &layer.down}) {
      widths.see(*linear);
    }
  }
  widths.see(model.output());
  return widths;
}

}  // namespace

Workspace::Workspace(MemoryLedger& ledger, const Model& model, const BatchLimits& limits,
                     std::uint32_t n_threads) {
  const Widths widths = widths_of(model);
  const std::uint64_t T = limits.max_tokens;
  const auto floats = [&](const char* what, std::uint64_t rows, std::uint64_t cols) {
    return Buffer<float>(ledger, ledger.workspace_bytes, buffer_product(what, rows, cols), what);
  };
  const auto ints = [&](const char* what, std::uint64_t count) {
    return Buffer<std::int32_t>(ledger, ledger.workspace_bytes, count, what);
  };
  const auto bytes = [&](const char* what, std::uint64_t count) {
    return Buffer<std::byte>(ledger, ledger.workspace_bytes, count, what);
  };
  x = floats("residual stream", T, model.hidden());
  normed = floats("normed activations", T, model.hidden());
  gathered = floats("gathered activations", T, model.hidden());
  y = floats("layer outputs", T, model.hidden());
  q = floats("queries", T, widths.q);
  k = floats("keys", T, widths.kv);
  v = floats("values", T, widths.kv);
  attended = floats("attention outputs", T, widths.q);
  gate = floats("gates", T, widths.ffn);
  up = floats("ups", T, widths.ffn);
  if (widths.quantized != 0) {
    buffer_product("quantized activations", T, widths.quantized, 8);
    const auto size = static_cast<std::uint64_t>(
        quantized_activations_bytes(static_cast<std::int64_t>(T), static_cast<std::int64_t>(widths.quantized)));
    quantized = bytes("quantized activations", size);
    quantized_gathered = bytes("quantized activations", size);
  }
  for (const Rope& rope : model.ropes()) {
    cosines.push_back(floats("rope cosines", T, rope.rotary_dim / 2));
    sines.push_back(floats("rope sines", T, rope.rotary_dim / 2));
  }

  const std::uint64_t state_floats = attention_state_floats(static_cast<std::uint32_t>(widths.head_dim));
  const std::uint64_t useful =
      buffer_product("attention states", std::uint64_t{n_threads} * kItemsPerThread * kItemRows,
                     limits.max_blocks_per_sequence);
  attention_capacity = n_threads == 1 ? 0 : std::min(useful, kMaxStateBytes / (state_floats * sizeof(float)));
  attention_states = floats("attention states", attention_capacity, state_floats);
  thread_attention_floats = round_up(attention_scratch_floats(static_cast<std::uint32_t>(widths.head_dim),
                                                              static_cast<std::uint32_t>(widths.group_size)), 16);
  thread_attention = floats("attention scratch", n_threads, thread_attention_floats);
  thread_linear_bytes = round_up(widths.scratch, 64);
  thread_linear = bytes("linear scratch", buffer_product("linear scratch", n_threads, thread_linear_bytes));

  token_ids = ints("token ids", T);
  wanted_tokens = ints("wanted tokens", T);
  wanted_positions = ints("wanted tokens", T);
  wanted_begin = ints("wanted tokens", std::uint64_t{limits.max_sequences} + 1);
  const std::uint64_t row_bytes = std::uint64_t{model.vocabulary()} * sizeof(float);
  logits_rows = static_cast<std::uint32_t>(
      std::clamp<std::uint64_t>(kMaxLogitsBytes / row_bytes, 1, std::max<std::uint64_t>(limits.max_sequences, 16)));
  logits = floats("logits", logits_rows, model.vocabulary());
  const std::uint64_t n_logits_phases = 4 * (T / logits_rows + 1);
  tickets = Buffer<std::atomic<std::int64_t>>(
      ledger, ledger.workspace_bytes, model.layers().size() * kPhasesPerLayer + kPhasesPerStep + n_logits_phases,
      "phase counters");
}

}  // namespace kv::cpu
