#include "cuda/runtime/library_products.h"

#include <algorithm>

namespace kv::cuda {

namespace {

bool library_takes(const DeviceMatrix& w) { return w.dtype != KV_F32 && w.cols % 8 == 0; }

template <typename Visit>
void for_each_linear(const DeviceModel& model, Visit&& visit) {
  for (const DeviceLayer& layer : model.layers()) {
    for (const DeviceLinear* linear : {&layer.q, &layer.k, &layer.v, &layer.attention_output, &layer.gate, &layer.up,
                                       &layer.down}) {
      visit(linear->weight);
    }
  }
}

std::uint64_t widest(const DeviceModel& model) {
  std::uint64_t most = 8;
  for_each_linear(model, [&](const DeviceMatrix& w) { most = std::max(most, static_cast<std::uint64_t>(w.cols)); });
  return most;
}

std::uint64_t largest(const DeviceModel& model) {
  std::uint64_t most = 8;
  for_each_linear(model, [&](const DeviceMatrix& w) {
    if (library_takes(w)) most = std::max(most, static_cast<std::uint64_t>(w.rows) * static_cast<std::uint64_t>(w.cols));
  });
  return most;
}

}  // namespace

LibraryProducts::LibraryProducts(DeviceLedger& ledger, const DeviceModel& model, std::uint32_t max_tokens)
    : library_(ledger),
      operands_(ledger, ledger.workspace_bytes, max_tokens * widest(model), "16-bit activations"),
      weights_(ledger, ledger.workspace_bytes, largest(model), "16-bit weights") {}

void LibraryProducts::gated_linear(const LinearArgs& args, const float* up, std::int32_t activation_kind,
                                   cudaStream_t stream) const {
  int held = -1;  // what operands_ holds: 0 f16, 1 bf16
  bool combined = up == nullptr;
  for (int i = 0; i < args.n_parts; ++i) {
    const LinearPart& part = args.parts[i];
    const DeviceMatrix& w = part.weight;
    if (!library_takes(w)) {
      float* x = const_cast<float*>(args.x);  // the gates are the activation's to overwrite
      if (!combined) {
        activation({x, up, x, {}, w.cols, args.tokens, activation_kind, 0}, stream);
      }
      combined = true;
      kv::cuda::linear({{part, {}, {}}, 1, {}, args.x, args.ldx, args.tokens}, stream);
      continue;
    }
    const bool is_bf16 = w.dtype == KV_BF16;
    if (held != static_cast<int>(is_bf16)) {
      half_values({args.x, combined ? nullptr : up, operands_.data(), std::int64_t{args.tokens} * w.cols, activation_kind,
                   is_bf16}, stream);
      held = static_cast<int>(is_bf16);
    }
    half_weights(w, weights_.data(), stream);
    library_.multiply({weights_.data(), operands_.data(), part.y, part.ldy, w.rows, w.cols, args.tokens, part.add != 0,
                       is_bf16}, stream);
    if (part.bias != nullptr) join_bias(part.y, part.ldy, part.bias, w.rows, args.tokens, stream);
  }
}

}  // namespace kv::cuda
