#include "cuda/runtime/workspace.h"

#include <algorithm>
#include <bit>

#include "common/checks.h"
#include "host/block_tokens.h"

namespace kv::cuda {

namespace {

constexpr std::uint64_t kMaxStateBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kMaxLogitsBytes = std::uint64_t{128} << 20;

struct Widths {
  std::uint64_t q = 0, kv = 0, ffn = 0, input = 0, rope = 0;
};

Widths widths_of(const DeviceModel& model) {
  Widths widths;
  for (const DeviceLayer& layer : model.layers()) {
    const kv_layer& shape = layer.shape;
    widths.q = std::max(widths.q, std::uint64_t{shape.n_heads} * shape.head_dim);
    widths.kv = std::max(widths.kv, std::uint64_t{shape.n_kv_heads} * shape.head_dim);
    widths.ffn = std::max(widths.ffn, std::uint64_t{shape.ffn_dim});
  }
  const std::uint64_t widest = std::max({widths.q, widths.ffn, std::uint64_t{model.scalars().hidden}});
  widths.input = static_cast<std::uint64_t>(pairs_of(static_cast<int>(widest))) * kPairColumns;
  for (const DeviceRope& rope : model.ropes()) widths.rope += static_cast<std::uint64_t>(rope.rotary_dim / 2);
  return widths;
}

}  // namespace

std::uint64_t split_state_floats(const DeviceModel& model, const BatchLimits& limits, std::int32_t kv_dtype) {
  std::uint64_t most = 0;
  for (const DeviceLayer& layer : model.layers()) {
    const kv_layer& shape = layer.shape;
    const AttentionTiles tiles = attention_tiles(static_cast<std::int32_t>(shape.head_dim), kv_dtype);
    // A token of every sequence, or what one that resumes with more of them may split.
    const std::uint64_t rows =
        std::min(std::uint64_t{limits.max_tokens} * shape.n_heads,
                 std::max(std::uint64_t{limits.max_sequences} * shape.n_heads,
                          std::uint64_t{kMostSplitRows} * shape.n_kv_heads));
    const std::uint64_t spans = std::bit_ceil(std::uint64_t{limits.max_blocks_per_sequence}) *
                                static_cast<std::uint64_t>(kBlockTokens / tiles.span_tokens);
    const auto floats = static_cast<std::uint64_t>(state_floats(static_cast<std::int32_t>(shape.head_dim)));
    most = std::max(most, buffer_product("attention states", rows, spans, floats));
  }
  return std::min(most, kMaxStateBytes / 4);
}

Workspace::Workspace(DeviceLedger& ledger, const DeviceModel& model, const PlanLimits& limits) {
  const Widths widths = widths_of(model);
  const std::uint64_t T = limits.batch.max_tokens, V = limits.batch.vocabulary, hidden = model.scalars().hidden;
  const auto floats = [&](const char* what, std::uint64_t rows, std::uint64_t cols) {
    return DeviceBuffer<float>(ledger, ledger.workspace_bytes, buffer_product(what, rows, cols, 4) / 4, what);
  };
  x = floats("residual stream", T, hidden);
  y = floats("layer outputs", T, hidden);
  normed = floats("normed activations", T, hidden);
  q = floats("queries", T, widths.q);
  k = floats("keys", T, widths.kv);
  v = floats("values", T, widths.kv);
  attended = floats("attention outputs", T, widths.q);
  gate = floats("gates", T, widths.ffn);
  up = floats("ups", T, widths.ffn);
  const std::uint64_t tiled = (T + kTileTokens - 1) / kTileTokens * kTileTokens;
  codes = DeviceBuffer<std::uint16_t>(ledger, ledger.workspace_bytes,
                                      buffer_product("16-bit activations", tiled, widths.input, 2) / 2, "16-bit activations");
  scales = floats("16-bit activations", tiled, kSegments);
  cosines = floats("rope cosines", T, widths.rope);
  sines = floats("rope sines", T, widths.rope);
  states = floats("attention states", 1, limits.state_floats);

  const std::uint64_t chunks = (V + kLogitChunk - 1) / kLogitChunk;
  logits_rows = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(
      kMaxLogitsBytes / (4 * V), 1, std::max<std::uint64_t>(limits.batch.max_sequences, 16)));
  logits = floats("logits", logits_rows, V);
  modified = floats("sampling scratch", logits_rows, V);
  maxima = floats("sampling scratch", logits_rows, chunks);
  sums = floats("sampling scratch", logits_rows, chunks);

  const std::uint64_t slots_count = limits.batch.n_sampler_slots;
  slots = DeviceBuffer<SlotParams>(ledger, ledger.workspace_bytes, slots_count, "sampler slots");
  counts = DeviceBuffer<std::uint32_t>(ledger, ledger.workspace_bytes,
                                       buffer_product("sampler slots", slots_count, V, 4) / 4, "sampler slots");
  biases = floats("sampler slots", slots_count, V);
  entries = DeviceBuffer<std::int32_t>(ledger, ledger.workspace_bytes, 2 * V, "sampler slots");
  masks = DeviceBuffer<std::uint32_t>(ledger, ledger.workspace_bytes, limits.batch.max_sequences * ((V + 31) / 32),
                                      "token masks");
  input = DeviceBuffer<std::uint8_t>(ledger, ledger.workspace_bytes, input_capacity(limits), "step input");
  output = DeviceBuffer<std::uint8_t>(ledger, ledger.workspace_bytes, output_capacity(limits), "step output");
}

}  // namespace kv::cuda
