// kv_write: stores K and V of a batch's tokens in the paged pool, rounded half to even to the pool's dtype.
//
// K goes to (D, Bk), one value per row of tokens; V to (Bk, D), one contiguous row. Quantized pools: kv_write_quantized.
#include "cpu/kernels/transformer_path_kernels.h"
#include "cpu/simd/f32x16.h"
#include "cpu/simd/partial_copy.h"

namespace kv::cpu::KV_PATH {

namespace {

struct PoolF32 {
  using Value = std::uint32_t;
  static void store_values(Value* to, f32x16 x, int n) { store_first(to, x, n); }
};
struct PoolF16 {
  using Value = std::uint16_t;
  static void store_values(Value* to, f32x16 x, int n) { n == 16 ? store_f16(to, x) : store_first_f16(to, x, n); }
};
struct PoolBf16 {
  using Value = std::uint16_t;
  static void store_values(Value* to, f32x16 x, int n) { n == 16 ? store_bf16(to, x) : store_first_bf16(to, x, n); }
};

template <typename Pool>
void write_row(const float* from, typename Pool::Value* to, std::int32_t n) {
  for (std::int32_t i = 0; i < n; i += 16) {
    const int count = n - i < 16 ? n - i : 16;
    Pool::store_values(to + i, load_first(from + i, count), count);
  }
}

template <typename Pool>
void write_tokens(const KvWriteArgs& args, std::int64_t token_begin, std::int64_t token_end) {
  using Value = typename Pool::Value;
  const std::int64_t row = std::int64_t{args.n_kv_heads} * args.head_dim;
  // Head by head, so that the rows of K that neighbouring tokens share stay in the first-level cache.
  for (std::int32_t head = 0; head < args.n_kv_heads; ++head) {
    for (std::int64_t token = token_begin; token < token_end; ++token) {
      const std::int32_t slot = args.slots[token];
      if (slot < 0) continue;
      std::byte* block = args.layer + (slot / args.block_tokens) * args.block_bytes;
      const std::int32_t offset = slot % args.block_tokens;
      Value* keys = reinterpret_cast<Value*>(block + head * args.head_bytes) + offset;
      Value* values = reinterpret_cast<Value*>(block + (args.n_kv_heads + head) * args.head_bytes) +
                      std::int64_t{offset} * args.head_dim;
      const float* source = args.keys + token * row + std::int64_t{head} * args.head_dim;
      Value rounded[16];
      for (std::int32_t d = 0; d < args.head_dim; d += 16) {
        const int count = args.head_dim - d < 16 ? args.head_dim - d : 16;
        write_row<Pool>(source + d, rounded, count);
        for (int i = 0; i < count; ++i) keys[std::int64_t{d + i} * args.block_tokens] = rounded[i];
      }
      write_row<Pool>(args.values + token * row + std::int64_t{head} * args.head_dim, values, args.head_dim);
    }
  }
}

}  // namespace

void kv_write(const KvWriteArgs& args, std::int64_t token_begin, std::int64_t token_end) {
  if (args.dtype == KV_Q8 || args.dtype == KV_Q4) return kv_write_quantized(args, token_begin, token_end);
  if (args.dtype == KV_F16) return write_tokens<PoolF16>(args, token_begin, token_end);
  if (args.dtype == KV_BF16) return write_tokens<PoolBf16>(args, token_begin, token_end);
  write_tokens<PoolF32>(args, token_begin, token_end);
}

}  // namespace kv::cpu::KV_PATH
