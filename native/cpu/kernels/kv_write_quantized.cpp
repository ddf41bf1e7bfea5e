// kv_write_quantized: stores K and V of a batch's tokens in a Q8 or Q4 pool (kv_layout.h), each group of a head by itself.
//
//   Q8   scale = f16(max|x| / 127)                                  code = round_half_even(x / scale), within +-127
//   Q4   minimum = f16(min x), scale = f16((max x - minimum) / 15)  code = round_half_even((x - minimum) / scale), 0 to 15
// Codes are taken with the scale and minimum as stored; where that scale is 0 they are 0. A group that holds a NaN or an
// infinity, or whose scale or minimum f16 does not hold, gets codes 0 and scale and minimum NaN: every product with it is
// NaN instead of a plausible number.
#include "cpu/kernels/kv_layout.h"
#include "cpu/kernels/transformer_path_kernels.h"
#include "cpu/simd/f32x16.h"
#include "cpu/simd/partial_copy.h"

namespace kv::cpu::KV_PATH {

namespace {

constexpr std::int32_t kMaxGroup = 64;
constexpr std::uint16_t kNan = 0x7e00;

struct HalfFloat {
  std::uint16_t bits;
  float value;
};

HalfFloat round_to_f16(float x) {
  std::uint16_t bits[16];
  float values[16];
  store_f16(bits, splat(x));
  store(values, load_f16(bits));
  return {bits[0], values[0]};
}

bool is_finite(float x) { return __builtin_fabsf(x) < __builtin_inff(); }

struct Extremes {
  float least, most;
  float magnitude;  // largest |x|; not finite where any x is not
};

Extremes extremes_of(const float* x, std::int32_t n) {
  f32x16 most = splat(-__builtin_inff()), most_negated = most;
  i32x16 magnitude = splat_i32(0);
  for (std::int32_t i = 0; i < n; i += 16) {
    const int count = n - i < 16 ? n - i : 16;
    const mask16 used = first_lanes(count);
    const f32x16 v = load_first(x + i, count);
    most = select(used, max(v, most), most);
    most_negated = select(used, max(zero() - v, most_negated), most_negated);
    // Magnitudes compare as integers in the same order, with infinity and NaN above all numbers.
    magnitude = max(magnitude, bits_to_i32(abs(v)));
  }
  std::int32_t lanes[16];
  store_i32(lanes, magnitude);
  std::int32_t largest = 0;
  for (const std::int32_t lane : lanes) largest = lane > largest ? lane : largest;
  // A difference and not a sign: the least of zeros is +0.
  Extremes extremes{0.0f - max_lanes(most_negated), max_lanes(most), 0.0f};
  copy_bytes(&extremes.magnitude, &largest, 4);
  return extremes;
}

void round_codes(const float* x, std::int32_t n, float minimum, float scale, float lowest, float highest,
                 std::uint8_t* codes) {
  const f32x16 low = splat(lowest), high = splat(highest);
  for (std::int32_t i = 0; i < n; i += 16) {
    const f32x16 steps = (load_first(x + i, n - i < 16 ? n - i : 16) - splat(minimum)) / splat(scale);
    store_i8(codes + i, to_i32(min(max(steps, low), high)));
  }
}

// One group's stored scale and minimum (Q8: 0), and its codes, one a byte; codes has room for 16 more.
struct GroupHeader {
  std::uint16_t scale, minimum;
};

template <bool kFourBits>
GroupHeader quantize_group(const float* x, std::int32_t n, std::uint8_t* codes) {
  const Extremes extremes = extremes_of(x, n);
  const HalfFloat minimum = kFourBits ? round_to_f16(extremes.least) : HalfFloat{0, 0.0f};
  const HalfFloat scale = round_to_f16(kFourBits ? (extremes.most - minimum.value) / 15.0f : extremes.magnitude / 127.0f);
  const bool holds = is_finite(extremes.magnitude) && is_finite(minimum.value) && is_finite(scale.value);
  if (!holds || !(scale.value > 0.0f)) {
    for (std::int32_t i = 0; i < n; ++i) codes[i] = 0;
    return holds ? GroupHeader{0, minimum.bits} : GroupHeader{kNan, kFourBits ? kNan : std::uint16_t{0}};
  }
  round_codes(x, n, minimum.value, scale.value, kFourBits ? 0.0f : -127.0f, kFourBits ? 15.0f : 127.0f, codes);
  return {scale.bits, minimum.bits};
}

// One head of one token: code bytes, and header g of each group to (scales, minima) + g * Bk values.
template <bool kFourBits>
void quantize_head(const float* x, const KvHeadLayout& layout, std::int32_t block_tokens, std::uint8_t* code_bytes,
                   std::byte* scales, std::byte* minima) {
  std::uint8_t codes[kMaxGroup + 16];
  for (std::int32_t g = 0; g < layout.groups; ++g) {
    const GroupHeader header = quantize_group<kFourBits>(x + g * layout.group, layout.group, codes);
    copy_bytes(scales + std::int64_t{2} * g * block_tokens, &header.scale, 2);
    if constexpr (kFourBits) {
      copy_bytes(minima + std::int64_t{2} * g * block_tokens, &header.minimum, 2);
      const std::int32_t half = layout.group / 2;
      for (std::int32_t i = 0; i < half; ++i) {
        code_bytes[g * half + i] = static_cast<std::uint8_t>(codes[i] | codes[i + half] << 4);
      }
    } else {
      copy_bytes(code_bytes + g * layout.group, codes, layout.group);
    }
  }
}

template <bool kFourBits>
void write_tokens(const KvWriteArgs& args, std::int64_t token_begin, std::int64_t token_end) {
  const KvHeadLayout layout = kv_head_layout(args.dtype, args.head_dim, args.block_tokens);
  const std::int64_t row = std::int64_t{args.n_kv_heads} * args.head_dim;
  std::uint8_t code_bytes[kMaxHeadDim];
  for (std::int32_t head = 0; head < args.n_kv_heads; ++head) {
    for (std::int64_t token = token_begin; token < token_end; ++token) {
      const std::int32_t slot = args.slots[token];
      if (slot < 0) continue;
      std::byte* block = args.layer + (slot / args.block_tokens) * args.block_bytes;
      const std::int32_t offset = slot % args.block_tokens;
      const std::int64_t source = token * row + std::int64_t{head} * args.head_dim;

      std::byte* keys = block + head * args.head_bytes;
      quantize_head<kFourBits>(args.keys + source, layout, args.block_tokens, code_bytes,
                               keys + layout.scales + 2 * offset, keys + layout.minima + 2 * offset);
      for (std::int32_t quad = 0; quad < layout.code_bytes / 4; ++quad) {
        copy_bytes(keys + (std::int64_t{quad} * args.block_tokens + offset) * 4, code_bytes + 4 * quad, 4);
      }
      std::byte* values = block + (args.n_kv_heads + head) * args.head_bytes;
      quantize_head<kFourBits>(args.values + source, layout, args.block_tokens, code_bytes,
                               values + layout.scales + 2 * offset, values + layout.minima + 2 * offset);
      copy_bytes(values + std::int64_t{offset} * layout.code_bytes, code_bytes, layout.code_bytes);
    }
  }
}

}  // namespace

void kv_write_quantized(const KvWriteArgs& args, std::int64_t token_begin, std::int64_t token_end) {
  args.dtype == KV_Q4 ? write_tokens<true>(args, token_begin, token_end)
                      : write_tokens<false>(args, token_begin, token_end);
}

}  // namespace kv::cpu::KV_PATH
