// The CPU backend's table of contents: every kernel's arguments, and one table of function pointers per instruction path.
// Kernels check nothing: whoever fills the arguments has validated shapes, dtypes and bounds (the runtime does, when the
// runner is created and when a batch is submitted). All paths give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi/kvasir_abi.h"
#include "cpu/kernels/transformer_kernels.h"

namespace kv::cpu {

// A weight as it lies in its mapped file: (rows, cols), row-contiguous, any byte alignment for block formats and element
// alignment for floats. Kernels read no byte outside rows * weight_row_bytes(dtype, cols).
struct WeightMatrix {
  kv_dtype dtype;
  std::int64_t rows;
  std::int64_t cols;
  const std::byte* data;
};

// Bytes from one row to the next.
std::int64_t row_bytes(const WeightMatrix& weight);

// ---------------------------------------------------------------------------------------------- activations in 8 bits

// Bytes of the buffer that quantize_activations fills for up to `tokens` tokens: 64-byte aligned, opaque to the caller.
std::int64_t quantized_activations_bytes(std::int64_t tokens, std::int64_t cols);

// Rounds tokens token_begin <= t < token_end of x to 8 bits per block of 32 values: scale = max|x| / 127,
// code = round_half_even(x * (127 / max|x|)), plus sums of codes. Disjoint token ranges may be filled by different threads.
struct QuantizeActivationsArgs {
  const float* x;  // (tokens, ldx)
  std::int64_t ldx;
  std::int64_t tokens;  // of the whole buffer: fixes its layout
  std::int64_t cols;    // multiple of 32
  std::byte* quantized;
};

// ------------------------------------------------------------------------------------------------------------- linear

// y[t, r] = sum over c of w[r, c] * x[t, c], + bias[r] where given, for one range of rows.
struct LinearArgs {
  WeightMatrix weight;
  const float* x;              // (tokens, ldx); read by float weights and in float-activation mode
  std::int64_t ldx;
  const std::byte* quantized;  // what quantize_activations made of x for exactly `tokens` tokens; nullptr: float activations
  std::int64_t tokens;
  const float* bias;  // (rows) or nullptr
  float* y;           // (tokens, ldy)
  std::int64_t ldy;
};

// Row ranges that begin and end at multiples of this use whole tiles; any other range gives the same bits, slower.
inline constexpr std::int64_t kLinearRowGranularity = 16;

// Bytes of the 64-byte aligned scratch one thread gives to linear for this weight, any number of tokens and rows.
std::int64_t linear_scratch_bytes(const WeightMatrix& weight);

// Whether linear reads `quantized` for this dtype when the runner's activation mode is KV_ACTIVATIONS_QUANTIZED.
bool uses_quantized_activations(kv_dtype dtype);

// -------------------------------------------------------------------------------------------------------------- table

struct KernelTable {
  const char* name;  // instruction path

  void (*dequantize_row)(kv_dtype dtype, const std::byte* row, std::int64_t cols, float* out);
  void (*quantize_activations)(const QuantizeActivationsArgs& args, std::int64_t token_begin, std::int64_t token_end);
  void (*linear)(const LinearArgs& args, std::int64_t row_begin, std::int64_t row_end, std::byte* scratch);

  void (*rms_norm)(const RmsNormArgs& args);
  void (*rope)(const RopeArgs& args);
  // In place: the Walsh-Hadamard transform of each run of `block` values (a power of two that divides n), times factor.
  void (*rotate)(float* values, std::int64_t n, std::int32_t block, float factor);
  void (*kv_write)(const KvWriteArgs& args, std::int64_t token_begin, std::int64_t token_end);
  void (*attention_block)(const AttentionBlockArgs& args);
  void (*attention_merge)(const AttentionMergeArgs& args);
  // out = output / sum over head_dim values.
  void (*attention_finish)(const float* output, float sum, std::int32_t head_dim, float* out);
  void (*activation)(const ActivationArgs& args);
  // x += y over n values.
  void (*add_to)(float* x, const float* y, std::int64_t n);
  // In place: x * scale, then cap * tanh(x / cap) where softcap > 0.
  void (*scale_logits)(float* logits, std::int64_t n, float scale, float softcap);
  // One result per kLogitChunk values; NaN counts as -infinity in a maximum.
  void (*chunk_maxima)(const float* logits, std::int64_t n, float* maxima);
  void (*chunk_exp_sums)(const float* logits, std::int64_t n, float maximum, float scale, float* sums);
};

// The table of the named path, or of the best one for nullptr, "" and "auto". nullptr when the name is unknown or this
// machine cannot run it.
const KernelTable* select_kernels(const char* name);

// Comma-separated names of the paths this machine can run, best first. Never empty: "scalar" runs everywhere.
const char* available_instruction_paths();

}  // namespace kv::cpu
