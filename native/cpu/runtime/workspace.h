// Workspace: every buffer a step needs, allocated once for the declared limits.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "cpu/runtime/attention_plan.h"
#include "host/batch.h"
#include "host/memory.h"
#include "cpu/runtime/model.h"

namespace kv::cpu {

struct Workspace {
  Workspace(MemoryLedger& ledger, const Model& model, const BatchLimits& limits, std::uint32_t n_threads);

  // Activations, float32. Widths are the largest over the layers.
  Buffer<float> x;          // (T, hidden) residual stream
  Buffer<float> normed;     // (T, hidden)
  Buffer<float> gathered;   // (T, hidden) normed rows of the tokens whose logits are wanted
  Buffer<float> q;          // (T, Hq*D)
  Buffer<float> k;          // (T, Hkv*D)
  Buffer<float> v;          // (T, Hkv*D)
  Buffer<float> attended;   // (T, Hq*D)
  Buffer<float> gate;       // (T, ffn), the activation's output too
  Buffer<float> up;         // (T, ffn)
  Buffer<float> y;          // (T, hidden) output of a linear before it joins the residual stream
  Buffer<std::byte> quantized;           // 8-bit form of whichever of them feeds the next linear
  Buffer<std::byte> quantized_gathered;  // of `gathered`
  std::vector<Buffer<float>> cosines;    // per rope (T, rotary_dim/2)
  std::vector<Buffer<float>> sines;

  // Attention.
  Buffer<float> attention_states;   // shared by the pieces of split items
  std::uint64_t attention_capacity; // in states
  std::uint64_t thread_attention_floats;
  Buffer<float> thread_attention;   // (threads, thread_attention_floats)

  // Per thread.
  std::uint64_t thread_linear_bytes;
  Buffer<std::byte> thread_linear;  // (threads, thread_linear_bytes)

  // Rows of a step.
  Buffer<std::int32_t> token_ids;        // (T) with sampled inputs filled in
  Buffer<std::int32_t> wanted_tokens;    // (T) ascending: tokens whose logits somebody asked for
  Buffer<std::int32_t> wanted_positions; // (T)
  Buffer<std::int32_t> wanted_begin;     // (S+1) prefix sums per sequence
  std::uint32_t logits_rows;             // rows of `logits`
  Buffer<float> logits;                  // (logits_rows, V)

  // One counter per phase of a step: threads draw their next item from it.
  Buffer<std::atomic<std::int64_t>> tickets;
};

}  // namespace kv::cpu
