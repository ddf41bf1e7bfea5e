// The CUDA backend's table of contents: every kernel's launcher and its arguments. Launchers check nothing but the launch:
// whoever fills the arguments has validated shapes, dtypes and bounds. Pointers are device pointers unless said otherwise.
// T tokens of a step; every output has one definition whatever T is, whatever else is in the step.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "abi/kvasir_abi.h"
#include "cuda/kernels/device_matrix.h"

namespace kv::cuda {

// ------------------------------------------------------------------------------------------------ weights, repack.cu

// Bytes of each plane of a matrix, whole lines of 256; 0 where the format has none.
struct PlaneBytes {
  std::int64_t codes, high, scales, extra, factors;
  std::int64_t total() const { return codes + high + scales + extra + factors; }
};
// Fills strides and pairs of `matrix` from dtype, rows and cols.
PlaneBytes plan_planes(DeviceMatrix& matrix);
// The planes one after another from `base`, which is aligned to 256 bytes.
void place_planes(DeviceMatrix& matrix, const PlaneBytes& sizes, std::uint8_t* base);

// Sorts `rows` stored rows at `raw` (any alignment) into the planes, beginning at row `first`, a multiple of kStripRows; only
// the matrix's last rows may be fewer than whole strips.
void repack(const DeviceMatrix& matrix, const std::uint8_t* raw, std::int64_t first, std::int64_t rows,
            cudaStream_t stream);

// ------------------------------------------------------------------------------------------------ embedding.cu

struct EmbedArgs {
  DeviceMatrix embedding;
  const std::int32_t* token_ids;   // (T)
  const std::int32_t* input_rows;  // (T) row whose last sample is the token's id, -1: as given
  const std::int32_t* sampled;     // (S) of the previous step
  float* x;                        // (T, hidden)
  float scale;
  std::int32_t tokens;
};
void embed(const EmbedArgs& args, cudaStream_t stream);

// ------------------------------------------------------------------------------------------------ norm.cu, activation.cu

// y = rms_norm(x) * weight; before that x += residual_norm(joined) where joined is given. halves: the f16 form of y, codes
// NULL: not wanted. rows selects input rows (x row of output row i), NULL: i.
struct NormArgs {
  float* x;               // (T, hidden)
  const float* joined;    // (T, hidden) or NULL
  const float* join_norm; // (hidden)
  const float* weight;    // (hidden)
  float* y;               // (T, hidden) or NULL
  HalfInput halves;
  const std::int32_t* rows;
  std::int32_t hidden, tokens;
  float epsilon;
};
void rms_norm(const NormArgs& args, cudaStream_t stream);

// out = act(gate) combined with up, or where halves.codes is given its f16 form. out may be gate.
struct ActivationArgs {
  const float* gate;  // (T, n)
  const float* up;    // (T, n)
  float* out;
  HalfInput halves;
  std::int32_t n, tokens;
  std::int32_t kind;  // kv_activation; -1: copy of gate
  std::int32_t unscaled;  // 1: halves as they are, scale 1: what f16 is known to hold
};
void activation(const ActivationArgs& args, cudaStream_t stream);

// ------------------------------------------------------------------------------------------------ linear*.cu

// One product of a launch: y[t, r] = w[r] . x[t] (+ bias[r]), or += where `add`.
struct LinearPart {
  DeviceMatrix weight;
  const float* bias;
  float* y;
  std::int64_t ldy;
  std::int32_t add;
};
inline constexpr int kMaxLinearParts = 3;
// Parts of one input. Parts of the same dtype and width share a launch.
struct LinearArgs {
  LinearPart parts[kMaxLinearParts];
  std::int32_t n_parts;
  HalfInput halves;  // read where codes is not NULL and takes_halves(part.weight)
  const float* x;    // (T, ldx)
  std::int64_t ldx;
  std::int32_t tokens;
};
void linear(const LinearArgs& args, cudaStream_t stream);
// Whether products of f16 operands take the weight: all but F32.
bool takes_halves(const DeviceMatrix& weight);

// ------------------------------------------------------------------------------------------------ half.cu

// Operands of the fast mode's library products. A weight in f16, (rows, cols); 16-bit floats as they are.
void half_weights(const DeviceMatrix& w, std::uint16_t* out, cudaStream_t stream);
// x, or act(x) combined with up, in 16 bits; count is a multiple of 8. Past f16's range: its ends.
struct HalfArgs {
  const float* x;
  const float* up;  // or NULL
  std::uint16_t* out;
  std::int64_t count;
  std::int32_t kind;  // kv_activation
  bool is_bf16;
};
void half_values(const HalfArgs& args, cudaStream_t stream);
// y[t, r] += bias[r].
void join_bias(float* y, std::int64_t ldy, const float* bias, std::int32_t rows, std::int32_t tokens,
               cudaStream_t stream);

// ------------------------------------------------------------------------------------------------ heads.cu

struct RopeTableArgs {
  const double* inverse_frequencies;  // (half)
  const std::int32_t* positions;      // (T)
  float* cosines;                     // (T, half)
  float* sines;
  double attention_factor;
  std::int32_t half, tokens;
};
void rope_tables(const RopeTableArgs& args, cudaStream_t stream);

// Biases, head norms and rotation of q and k; k and v into the pool.
struct HeadsArgs {
  float* q;             // (T, Hq*D) in place
  const float* k;       // (T, Hkv*D)
  const float* v;       // (T, Hkv*D)
  const float* q_norm;  // (D) or NULL
  const float* k_norm;
  const float* cosines; // (T, rotary/2) or NULL: no rotation
  const float* sines;
  const std::int32_t* slots;  // (T) -1: do not write
  std::uint8_t* pool;         // this layer's K of block 0
  std::int64_t block_bytes;   // from block to block of the pool
  std::int64_t value_offset;  // from a block's K to its V
  std::int32_t n_heads, n_kv_heads, head_dim, rotary_dim, rope_style, dtype, tokens;
  float epsilon;
  const float* q_bias;  // (Hq*D), (Hkv*D), (Hkv*D) not yet added, or NULL
  const float* k_bias;
  const float* v_bias;
};
void position_heads(const HeadsArgs& args, cudaStream_t stream);

// ------------------------------------------------------------------------------------------------ attention_*.cu

// Rows of one KV head: row r is query token first_token + (first_row + r) / group, head kv_head * group + (..) % group.
struct AttentionItem {
  std::int32_t sequence;
  std::int32_t kv_head;
  std::int32_t first_row;
  std::int32_t n_rows;
  std::int32_t first_token;     // of the sequence in the step
  std::int32_t first_position;  // of that token: what lies before it in the pool is from earlier steps
  std::int32_t low_position, high_position;  // of the tokens of the item's first and last row
  std::int32_t state_rows;  // split: rows of the items before it, whose states lie before its own
};

// How attention is cut: the context at multiples of span_tokens; a sequence's rows of one KV head into items, of split_rows
// where an item's spans are shared out over the device, of walk_rows where an item walks its spans itself.
struct AttentionTiles {
  std::int32_t span_tokens, split_rows, walk_rows;
};
AttentionTiles attention_tiles(std::int32_t head_dim, std::int32_t dtype);
inline constexpr std::int32_t kMatrixSpan = 128, kSplitRows = 64, kWalkRows = 32;  // on matrix units
inline constexpr std::int32_t kRowSpan = 64, kRowItemRows = 8;                     // in float32
bool attention_on_matrix_units(std::int32_t head_dim, std::int32_t dtype);
// Of one row over one span: whole pieces of 16 bytes.
__host__ __device__ constexpr std::int32_t state_floats(std::int32_t head_dim) { return (head_dim + 3) / 4 * 4 + 4; }

struct AttentionArgs {
  const float* q;       // (T, Hq*D)
  float* out;           // (T, Hq*D) or NULL
  HalfInput halves;     // f16 form of the output, or NULL codes; only for an f16 pool, where all items are
                        // split, Hq*D is whole blocks and D is even
  const float* sinks;
  const std::uint8_t* pool;
  std::int64_t block_bytes, value_offset;
  const AttentionItem* items;
  const std::int32_t* positions;     // (T)
  const std::int32_t* block_tables;  // (S, table_width)
  float* states;                     // split: of each item in turn (n_splits, n_rows, state_floats(D))
  std::int32_t table_width, n_items, n_splits;  // n_splits: spans of the widest context; 0: an item walks its spans
  std::int32_t rows_per_item;  // at most
  std::int32_t n_heads, n_kv_heads, head_dim, window, dtype;
  float scale, softcap;
};
void attention(const AttentionArgs& args, cudaStream_t stream);

// attention_tensor.cu, the fast mode's: items of kTensorRows rows on matrix units, Q and the weights in the pool's 16 bits,
// sums in float32; writes `out` only. Where it applies:
inline constexpr int kTensorRows = 128;
bool tensor_attention_applies(std::int32_t head_dim, std::int32_t dtype);
void tensor_attention(const AttentionArgs& args, cudaStream_t stream);

// ------------------------------------------------------------------------------------------------ logits.cu, sampling.cu

inline constexpr int kLogitChunk = 128;

// The first one_bytes of a step's output all bits set (ids -1, numbers NaN: what nobody asked for), the rest 0.
void clear_output(std::uint8_t* output, std::int64_t one_bytes, std::int64_t bytes, cudaStream_t stream);

// In place: x * scale, then cap * tanh(x / cap) where softcap > 0.
void scale_logits(float* logits, std::int64_t n, float scale, float softcap, cudaStream_t stream);

// Sampling parameters of a slot, as admitted.
struct SlotParams {
  std::uint64_t seed;
  float temperature, top_p, min_p, repetition, frequency, presence;
  std::uint32_t top_k;
  std::uint32_t n_logprobs, report_logprob;
  std::uint32_t has_bias, has_penalty;
};

// One wanted row of logits.
struct WantedRow {
  std::int32_t token;         // of the step
  std::int32_t sequence;
  std::int32_t slot;          // -1: do not sample
  std::int32_t output_index;
  std::int32_t target;        // -1: none
  std::int32_t mask;          // row of `masks`, -1: none
  std::int32_t hash;          // 1: wanted
  std::int32_t padding;
};

struct SampleArgs {
  const float* logits;       // (n_rows, V) raw
  const WantedRow* rows;     // (n_rows)
  const SlotParams* slots;
  std::uint32_t* counts;     // (slots, V): bit 31 in the prompt, below: occurrences among the outputs
  const float* biases;       // (slots, V)
  const std::uint32_t* masks;// (n, ceil(V/32))
  float* modified;           // (n_rows, V) scratch
  float* maxima;             // (n_rows, chunks) scratch
  float* sums;               // (n_rows, chunks) scratch
  std::int32_t vocabulary, n_rows, max_logprobs;
  std::int32_t* sampled;     // (S)
  float* logprobs;           // (S)
  std::int32_t* top_ids;     // (S, max_logprobs)
  float* top_logprobs;
  std::uint64_t* hashes;     // (S)
  float* targets;            // (T)
};
void sample(const SampleArgs& args, cudaStream_t stream);
void hash_rows(const SampleArgs& args, cudaStream_t stream);

// Admission: clears a slot's row and scatters what it holds.
void clear_slot(std::uint32_t* counts, float* biases, std::int32_t vocabulary, cudaStream_t stream);
// entries: (token, packed count) and (token, bits of a float32 added to its bias), in order.
void set_counts(std::uint32_t* counts, const std::int32_t* entries, std::int32_t n, cudaStream_t stream);
void add_biases(float* biases, const std::int32_t* entries, std::int32_t n, cudaStream_t stream);

// ------------------------------------------------------------------------------------------------ blocks.cu

// Copies the first n_tokens[i] slots of sources[i] to destinations[i] in one component: a record of each head a token.
struct CopyBlocksArgs {
  std::uint8_t* component;  // of block 0
  std::int64_t block_bytes; // of the pool
  const std::int32_t* sources;
  const std::int32_t* destinations;
  const std::int32_t* n_tokens;
  std::int32_t count, n_heads, record_bytes;
};
void copy_blocks(const CopyBlocksArgs& args, cudaStream_t stream);

}  // namespace kv::cuda
