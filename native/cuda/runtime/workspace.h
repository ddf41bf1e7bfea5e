// Workspace: every device buffer a step needs, allocated once for the declared limits.
#pragma once

#include <cstdint>

#include "cuda/kernels/kernels.h"
#include "cuda/runtime/device_memory.h"
#include "cuda/runtime/device_model.h"
#include "cuda/runtime/step_plan.h"

namespace kv::cuda {

struct Workspace {
  Workspace(DeviceLedger& ledger, const DeviceModel& model, const PlanLimits& limits);

  // Activations, float32. Widths are the largest over the layers.
  DeviceBuffer<float> x;         // (T, hidden) residual stream
  DeviceBuffer<float> y;         // (T, hidden) output of a product before it joins the residual stream
  DeviceBuffer<float> normed;    // (T, hidden)
  DeviceBuffer<float> q;         // (T, Hq*D)
  DeviceBuffer<float> k, v;      // (T, Hkv*D)
  DeviceBuffer<float> attended;  // (T, Hq*D)
  DeviceBuffer<float> gate, up;  // (T, ffn)
  DeviceBuffer<std::uint16_t> codes;  // f16 form of whichever of them feeds the next product (HalfInput)
  DeviceBuffer<float> scales;
  DeviceBuffer<float> cosines, sines;  // all ropes one after another, (T, rotary_dim/2) each
  DeviceBuffer<float> states;          // of split attention

  // Rows of logits worked on at a time, and sampling over them.
  std::uint32_t logits_rows;
  DeviceBuffer<float> logits;    // (logits_rows, V)
  DeviceBuffer<float> modified;  // (logits_rows, V)
  DeviceBuffer<float> maxima, sums;  // (logits_rows, chunks)

  // Sampler slots.
  DeviceBuffer<SlotParams> slots;
  DeviceBuffer<std::uint32_t> counts;  // (slots, V)
  DeviceBuffer<float> biases;          // (slots, V)
  DeviceBuffer<std::int32_t> entries;  // (V, 2) of the admission on its way
  DeviceBuffer<std::uint32_t> masks;   // (S, ceil(V/32))

  // A step's packed input and output.
  DeviceBuffer<std::uint8_t> input;
  DeviceBuffer<std::uint8_t> output;
};

// Floats of the split attention's states for these limits.
std::uint64_t split_state_floats(const DeviceModel& model, const BatchLimits& limits, std::int32_t kv_dtype);

}  // namespace kv::cuda
