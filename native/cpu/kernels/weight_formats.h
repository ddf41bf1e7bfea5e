// How each block format looks to the integer products: unsigned codes, a zero point, scales and minima per group.
//
// A span is what one step of a row loop reads: two blocks of 32 values, or one K block of 256. A pair is 64 columns, two
// groups of 32. A format F gives
//   F::kPairs                pairs per span (1 or 4)
//   F::kKind                 plain: x = s*(u - z); minimum: x = s*u + m; halves: as plain with a scale per 16 columns
//   F::kZero                 z, the zero point of the codes it delivers
//   F::codes<p>(at, second)                 the 64 codes of pair p of the span that begins at `at`; second = 0 where the
//                                           span's second block is missing: its 32 codes are then arbitrary
//   F::kWords, F::word_offset(i, second)    the words of a span that hold its scales, as bytes from its start
//   F::scales(words, s, m)                  from those words of 16 rows in lanes, s and m of the span's groups (halves:
//                                           of its 16-column half groups) in ascending order
//   F::kNibbles                             the codes of a block of 32 are 16 bytes of nibbles, and then
//   F::kHighBits                            whether words 2 and 3 of a span are its blocks' fifth bits, as in BlockQ5_0
//   F::from_nibble(x)                       the code of a nibble (before the fifth bit)
//   F::dot                   the product of its codes with signed activations
#pragma once

#include <cstddef>

#include "common/formats/blocks.h"
#include "cpu/kernels/kernels.h"
#include "cpu/simd/u8x64.h"

namespace kv::cpu::KV_PATH {

enum class ScaleKind { plain, minimum, halves };

// Sixteen rows of one weight, in lanes.
struct SixteenRows {
  const std::uint8_t* base;  // lane 0
  std::int64_t stride;       // bytes from lane to lane; 0 where the weight has fewer than 16 rows
  int first_lane;            // lanes before it hold rows that were not asked for
  int count;                 // rows asked for

  const std::uint8_t* row(int lane) const { return base + lane * stride; }
};

// Rows first .. of [first, end), at most 16. The last rows of a weight come with the rows before them in the leading
// lanes, so that reads stay inside the tensor; a weight of fewer than 16 rows is taken row by row, in all lanes.
static inline SixteenRows sixteen_rows(const WeightMatrix& weight, std::int64_t stride, std::int64_t first,
                                       std::int64_t end) {
  const std::uint8_t* data = reinterpret_cast<const std::uint8_t*>(weight.data);
  if (weight.rows < 16) return {data + first * stride, 0, 0, 1};
  const std::int64_t begin = first + 16 <= weight.rows ? first : weight.rows - 16;
  const int count = static_cast<int>(end - first < 16 ? end - first : 16);
  return {data + begin * stride, stride, static_cast<int>(first - begin), count};
}

// y[i] = lane first_lane + i, + bias[i] where given, for the rows asked for.
static inline void store_rows(const SixteenRows& rows, f32x16 sum, const float* bias, float* y) {
  if (rows.first_lane != 0) {
    float lanes[32];
    store(lanes, sum);
    sum = load_first(lanes + rows.first_lane, rows.count);
  }
  if (bias != nullptr) sum = sum + load_first(bias, rows.count);
  store_first(y, sum, rows.count);
}

// Hides a value from the optimizer. Sixteen row addresses are few sums of a pointer and a stride, but a compiler that sees
// them all at once keeps sixteen registers' worth of them alive.
template <typename Value>
static inline Value hidden(Value value) {
  __asm__("" : "+r"(value));
  return value;
}

// Where 16 rows stand.
struct RowCursor {
  const std::uint8_t* row0;
  std::int64_t stride;

  explicit RowCursor(const SixteenRows& rows) : row0(rows.base), stride(rows.stride) {}
  void advance(std::int64_t bytes) { row0 += bytes; }

  // Calls f(row, address) for rows 0-15 in order.
  template <typename Function>
  void each_row(Function f) const {
    const std::int64_t s = stride, s3 = 3 * s;
    const std::uint8_t* p = row0;
    four_rows<0>(p, s, s3, f);
    p = hidden(p + 4 * s);
    four_rows<4>(p, s, s3, f);
    p = hidden(p + 4 * s);
    four_rows<8>(p, s, s3, f);
    p = hidden(p + 4 * s);
    four_rows<12>(p, s, s3, f);
  }

 private:
  template <int first, typename Function>
  static void four_rows(const std::uint8_t* p, std::int64_t s, std::int64_t s3, Function f) {
    f(first, p);
    f(first + 1, p + s);
    f(first + 2, p + 2 * s);
    f(first + 3, p + s3);
  }
};

// Fetches weights ahead of their use, a step's share at a time; `level` 3 brings them into the first-level cache, 2 into
// the second.
template <int level>
struct Prefetch {
  const std::uint8_t* next;
  const std::uint8_t* end;

  void advance(std::int64_t bytes) {
    const std::uint8_t* stop = next + bytes < end ? next + bytes : end;
    for (; next < stop; next += 64) __builtin_prefetch(next, 0, level);
  }
};

// The scale words of one span for 16 rows; what Format::scales takes.
template <typename Format>
static inline void gather_scale_words(const RowCursor& at, int second, i32x16* words) {
  for (int i = 0; i < Format::kWords; ++i) {
    words[i] = gather_words(at.row0 + Format::word_offset(i, second), at.stride);
  }
}

static inline u8x64 low_bits(u8x64 x, int bits) { return x & splat_u8((1 << bits) - 1); }

// ------------------------------------------------------------------------------------------------ blocks of 32 values

// Base of the formats whose block is one group and begins with an f16 scale d.
template <typename Block>
struct GroupFormat {
  static constexpr int kPairs = 1;
  static constexpr std::int64_t kSpanBytes = 2 * sizeof(Block);
  static constexpr ScaleKind kKind = ScaleKind::plain;
  static constexpr bool kNibbles = true, kHighBits = false, kSignedCodes = false;

  static const Block* blocks(const std::uint8_t* at) { return reinterpret_cast<const Block*>(at); }
  static constexpr int kWords = 2;  // of each block its first word

  static std::int64_t word_offset(int i, int second) { return i * second * static_cast<std::int64_t>(sizeof(Block)); }
  static void scales(const i32x16* words, f32x16* s, f32x16*) {
    for (int g = 0; g < 2; ++g) s[g] = f16_lanes(words[g]);
  }
  static u8x64 from_nibble(u8x64 x) { return x; }
  static i32x16 dot(i32x16 acc, u8x64 w, u8x64 a) { return kv::cpu::KV_PATH::dot(acc, w, a); }
};

// d and the minimum m are neighbouring f16 fields.
template <typename Block>
struct GroupFormatWithMinimum : GroupFormat<Block> {
  static constexpr ScaleKind kKind = ScaleKind::minimum;
  static constexpr int kZero = 0;
  static void scales(const i32x16* words, f32x16* s, f32x16* m) {
    for (int g = 0; g < 2; ++g) {
      s[g] = f16_lanes(words[g]);
      m[g] = f16_lanes(shift_right<16>(words[g]));
    }
  }
};

struct FormatQ8_0 : GroupFormat<BlockQ8_0> {
  static constexpr bool kNibbles = false, kSignedCodes = kQ8Zero == 0;
  static constexpr int kZero = kQ8Zero;
  template <int pair>
  static u8x64 codes(const std::uint8_t* at, int second) {
    const BlockQ8_0* b = blocks(at);
    return q8_codes(load32x2(b[0].q, b[second].q));
  }
  static i32x16 dot(i32x16 acc, u8x64 w, u8x64 a) { return dot_q8(acc, w, a); }
};

struct FormatQ4_0 : GroupFormat<BlockQ4_0> {
  static constexpr int kZero = 8;
  template <int pair>
  static u8x64 codes(const std::uint8_t* at, int second) {
    const BlockQ4_0* b = blocks(at);
    return nibbles16x2(b[0].q, b[second].q);
  }
};

struct FormatQ4_1 : GroupFormatWithMinimum<BlockQ4_1> {
  template <int pair>
  static u8x64 codes(const std::uint8_t* at, int second) {
    const BlockQ4_1* b = blocks(at);
    return nibbles16x2(b[0].q, b[second].q);
  }
};

// Adds the fifth bits to the words of a span.
template <typename Block, typename Base>
struct WithFifthBits : Base {
  static constexpr bool kHighBits = true;
  static constexpr int kWords = 4;
  static std::int64_t word_offset(int i, int second) {
    return Base::word_offset(i % 2, second) + (i < 2 ? 0 : static_cast<std::int64_t>(offsetof(Block, h)));
  }
};

// Low nibbles of two blocks with their fifth bits.
template <typename Block>
static inline u8x64 five_bit_codes(const Block& a, const Block& b) {
  std::uint32_t bits[2];
  copy_bytes(&bits[0], a.h, 4);
  copy_bytes(&bits[1], b.h, 4);
  return nibbles16x2(a.q, b.q) | bytes_of_bits(bits[0] | (static_cast<std::uint64_t>(bits[1]) << 32), 16);
}

struct FormatQ5_0 : WithFifthBits<BlockQ5_0, GroupFormat<BlockQ5_0>> {
  static constexpr int kZero = 16;
  template <int pair>
  static u8x64 codes(const std::uint8_t* at, int second) {
    const BlockQ5_0* b = blocks(at);
    return five_bit_codes(b[0], b[second]);
  }
};

struct FormatQ5_1 : WithFifthBits<BlockQ5_1, GroupFormatWithMinimum<BlockQ5_1>> {
  template <int pair>
  static u8x64 codes(const std::uint8_t* at, int second) {
    const BlockQ5_1* b = blocks(at);
    return five_bit_codes(b[0], b[second]);
  }
};

struct FormatMxfp4 : GroupFormat<BlockMxfp4> {
  static constexpr int kZero = 12;  // the values run from -12 to 12
  template <int pair>
  static u8x64 codes(const std::uint8_t* at, int second) {
    const BlockMxfp4* b = blocks(at);
    return from_nibble(nibbles16x2(b[0].q, b[second].q));
  }
  static u8x64 from_nibble(u8x64 x) {
    static constexpr std::int8_t shifted[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
    return lookup(shifted, x);
  }
  static void scales(const i32x16* words, f32x16* s, f32x16*) {
    for (int g = 0; g < 2; ++g) {
      const i32x16 e = words[g] & splat_i32(255);
      // 2^(e - 128): a normal float from e = 2 on, below it the subnormals 2^-128 and 2^-127.
      const f32x16 normal = bits_to_f32(shift_left<23>(e - splat_i32(1)));
      const f32x16 subnormal = bits_to_f32((e + splat_i32(1)) * splat_i32(0x00200000));
      s[g] = select(lt(to_f32(e), splat(2.0f)), subnormal, normal);
    }
  }
};

// ----------------------------------------------------------------------------------------------- blocks of 256 values

// Scales and minima of a Q4_K or Q5_K block for 16 rows; the packing is described at BlockQ4_K.
template <typename Block>
struct KFormatWithMinimum {
  static constexpr int kPairs = 4;
  static constexpr std::int64_t kSpanBytes = sizeof(Block);
  static constexpr bool kNibbles = false, kSignedCodes = false;
  static constexpr ScaleKind kKind = ScaleKind::minimum;
  static constexpr int kZero = 0;

  static const Block& block(const std::uint8_t* at) { return *reinterpret_cast<const Block*>(at); }
  static constexpr int kWords = 4;

  static std::int64_t word_offset(int i, int) { return 4 * i; }
  static void scales(const i32x16* words, f32x16* s, f32x16* m) {
    const f32x16 d = f16_lanes(words[0]), minus_dmin = zero() - f16_lanes(shift_right<16>(words[0]));
    scale_of<0>(words, d, minus_dmin, s, m);
    scale_of<1>(words, d, minus_dmin, s, m);
    scale_of<2>(words, d, minus_dmin, s, m);
    scale_of<3>(words, d, minus_dmin, s, m);
  }
  static i32x16 dot(i32x16 acc, u8x64 w, u8x64 a) { return kv::cpu::KV_PATH::dot(acc, w, a); }

 private:
  // Groups j and j + 4 from byte j of the three words after d and dmin.
  template <int j>
  static void scale_of(const i32x16* words, f32x16 d, f32x16 minus_dmin, f32x16* s, f32x16* m) {
    const i32x16 w0 = words[1], w1 = words[2], w2 = words[3];
    const i32x16 six = splat_i32(63), four = splat_i32(15), two = splat_i32(0x30);
    s[j] = d * to_f32(shift_right<8 * j>(w0) & six);
    m[j] = minus_dmin * to_f32(shift_right<8 * j>(w1) & six);
    s[j + 4] = d * to_f32((shift_right<8 * j>(w2) & four) | (shift_right<8 * j + 2>(w0) & two));
    m[j + 4] = minus_dmin * to_f32((shift_right<8 * j + 4>(w2) & four) | (shift_right<8 * j + 2>(w1) & two));
  }
};

struct FormatQ4_K : KFormatWithMinimum<BlockQ4_K> {
  template <int pair>
  static u8x64 codes(const std::uint8_t* at, int) {
    return low_bits(shift_right_halves<0, 4>(load32_twice(block(at).q + 32 * pair)), 4);
  }
};

struct FormatQ5_K : KFormatWithMinimum<BlockQ5_K> {
  template <int pair>
  static u8x64 codes(const std::uint8_t* at, int) {
    const BlockQ5_K& b = block(at);
    const u8x64 low = low_bits(shift_right_halves<0, 4>(load32_twice(b.q + 32 * pair)), 4);
    const u8x64 high = low_bits(shift_right_halves<2 * pair, 2 * pair + 1>(load32_twice(b.h)), 1);
    return low | shift_left<4>(high);
  }
};

struct FormatQ6_K {
  static constexpr int kPairs = 4;
  static constexpr std::int64_t kSpanBytes = sizeof(BlockQ6_K);
  static constexpr bool kNibbles = false, kSignedCodes = false;
  static constexpr ScaleKind kKind = ScaleKind::halves;
  static constexpr int kZero = 32;

  template <int pair>
  static u8x64 codes(const std::uint8_t* at, int) {
    const BlockQ6_K& b = *reinterpret_cast<const BlockQ6_K*>(at);
    constexpr int half = pair / 2, upper = pair % 2;
    const u8x64 low = low_bits(shift_right_halves<4 * upper, 4 * upper>(load64(b.ql + 64 * half)), 4);
    const u8x64 high = low_bits(shift_right_halves<4 * upper, 4 * upper + 2>(load32_twice(b.h + 32 * half)), 2);
    return low | shift_left<4>(high);
  }
  static constexpr int kWords = 5;

  // The first word ends with d: d is the block's last field, and a word that
  // began there could pass the tensor's end.
  static std::int64_t word_offset(int i, int) { return i == 0 ? 206 : 188 + 4 * i; }
  static void scales(const i32x16* words, f32x16* s, f32x16*) {
    const f32x16 d = f16_lanes(shift_right<16>(words[0]));
    for (int i = 0; i < 4; ++i) {
      const i32x16 four = words[1 + i];
      s[4 * i] = d * to_f32(shift_right_arithmetic<24>(shift_left<24>(four)));
      s[4 * i + 1] = d * to_f32(shift_right_arithmetic<24>(shift_left<16>(four)));
      s[4 * i + 2] = d * to_f32(shift_right_arithmetic<24>(shift_left<8>(four)));
      s[4 * i + 3] = d * to_f32(shift_right_arithmetic<24>(four));
    }
  }
  static i32x16 dot(i32x16 acc, u8x64 w, u8x64 a) { return kv::cpu::KV_PATH::dot(acc, w, a); }
};

// Calls f.template operator()<Format>() for a block-quantized dtype.
template <typename Function>
static inline void with_format(kv_dtype dtype, Function f) {
  switch (dtype) {
    case KV_Q8_0:
      return f.template operator()<FormatQ8_0>();
    case KV_Q4_0:
      return f.template operator()<FormatQ4_0>();
    case KV_Q4_1:
      return f.template operator()<FormatQ4_1>();
    case KV_Q5_0:
      return f.template operator()<FormatQ5_0>();
    case KV_Q5_1:
      return f.template operator()<FormatQ5_1>();
    case KV_Q4_K:
      return f.template operator()<FormatQ4_K>();
    case KV_Q5_K:
      return f.template operator()<FormatQ5_K>();
    case KV_Q6_K:
      return f.template operator()<FormatQ6_K>();
    case KV_MXFP4:
      return f.template operator()<FormatMxfp4>();
    case KV_F32:
    case KV_F16:
    case KV_BF16:
    case KV_Q8:
    case KV_Q4:
      return;  // no block-quantized weight; the launcher sends floats elsewhere
  }
}

}  // namespace kv::cpu::KV_PATH
