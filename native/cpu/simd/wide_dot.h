// wide_dot: exact sums of products of 15-bit integers (a query's) with 8- or 4-bit codes, 16 rows side by side, four codes
// of each row at a time. How the integers are cut is the path's business; the sums are the same.
//
//   put(query, at, n)            keeps 16 integers of at most 16256 in magnitude; room up to the next multiple of 16
//   quad_at(query, d)            integers d .. d+3, for all rows
//   signed_codes(p)              64 bytes: four signed codes of each row; -128 is multiplied exactly too
//   nibble_codes(p, low, high)   64 bytes: the codes in the low and in the high four bits
//   add_signed, add_nibbles      sum + codes . quad, a row a lane; no more than 128 codes a row in all
//   total_signed(sum, sum_of_n)  sum_of_n: of all integers that were added; total_nibbles(sum)
#pragma once

#include "cpu/simd/u8x64.h"

namespace kv::cpu::KV_PATH {

#if defined(KV_PATH_AVX2)

// 16-bit multiplications of neighbours: no 8-bit pieces, whose signs this instruction set is slow with.
template <int kValues>
struct wide_query {
  std::int16_t n[kValues + 16];
};
struct wide_quad {
  __m256i v;  // four times the same four
};
struct wide_codes {
  __m256i q[4];  // rows 4i to 4i+3
};
struct wide_sum {
  __m256i q[4];  // two lanes a row
};

template <int kValues>
static inline void put(wide_query<kValues>& query, int at, i32x16 n) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(n.lo, n.hi), 0xd8);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(query.n + at), words);
}
template <int kValues>
static inline wide_quad quad_at(const wide_query<kValues>& query, int d) {
  long long four;
  copy_bytes(&four, query.n + d, 8);
  return {_mm256_set1_epi64x(four)};
}
static inline wide_codes signed_codes(const void* p) {
  const __m128i* q = static_cast<const __m128i*>(p);
  wide_codes codes;
  for (int i = 0; i < 4; ++i) codes.q[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128(q + i));
  return codes;
}
static inline void nibble_codes(const void* p, wide_codes& low, wide_codes& high) {
  const __m128i* q = static_cast<const __m128i*>(p);
  for (int i = 0; i < 4; ++i) {
    const __m256i words = _mm256_cvtepu8_epi16(_mm_loadu_si128(q + i));
    low.q[i] = _mm256_and_si256(words, _mm256_set1_epi16(15));
    high.q[i] = _mm256_srli_epi16(words, 4);
  }
}
static inline wide_sum no_sum() {
  const __m256i none = _mm256_setzero_si256();
  return {{none, none, none, none}};
}
static inline wide_sum add_signed(wide_sum sum, const wide_codes& codes, wide_quad n) {
  for (int i = 0; i < 4; ++i) sum.q[i] = _mm256_add_epi32(sum.q[i], _mm256_madd_epi16(codes.q[i], n.v));
  return sum;
}
static inline wide_sum add_nibbles(wide_sum sum, const wide_codes& codes, wide_quad n) {
  return add_signed(sum, codes, n);
}
static inline i32x16 total_nibbles(const wide_sum& sum) {
  return {_mm256_permute4x64_epi64(_mm256_hadd_epi32(sum.q[0], sum.q[1]), 0xd8),
          _mm256_permute4x64_epi64(_mm256_hadd_epi32(sum.q[2], sum.q[3]), 0xd8)};
}
static inline i32x16 total_signed(const wide_sum& sum, std::int32_t) { return total_nibbles(sum); }

#else

// n = 128 * high + low, both within 8 bits.
template <int kValues>
struct wide_query {
  std::int8_t high[kValues + 16];
  std::int8_t low[kValues + 16];
};
struct wide_quad {
  u8x64 high, low;
};
using wide_codes = u8x64;
struct wide_sum {
  i32x16 high, low;
};

template <int kValues>
static inline void put(wide_query<kValues>& query, int at, i32x16 n) {
  const i32x16 high = shift_right_arithmetic<7>(n + splat_i32(64));
  store_i8(query.high + at, high);
  store_i8(query.low + at, n - shift_left<7>(high));
}
static inline u8x64 quad_from(const std::int8_t* at) {
  std::int32_t word;
  copy_bytes(&word, at, 4);
  return quad(word);
}
template <int kValues>
static inline wide_quad quad_at(const wide_query<kValues>& query, int d) {
  return {quad_from(query.high + d), quad_from(query.low + d)};
}
static inline wide_codes signed_codes(const void* p) { return q8_codes(load64(p)); }
static inline void nibble_codes(const void* p, wide_codes& low, wide_codes& high) {
  const u8x64 both = load64(p);
  low = both & splat_u8(15);
  high = shift_right_halves<4, 4>(both) & splat_u8(15);
}
static inline wide_sum no_sum() { return {splat_i32(0), splat_i32(0)}; }
static inline wide_sum add_signed(wide_sum sum, const wide_codes& codes, const wide_quad& n) {
  return {dot_q8(sum.high, codes, n.high), dot_q8(sum.low, codes, n.low)};
}
static inline wide_sum add_nibbles(wide_sum sum, const wide_codes& codes, const wide_quad& n) {
  return {dot(sum.high, codes, n.high), dot(sum.low, codes, n.low)};
}
static inline i32x16 total_nibbles(const wide_sum& sum) { return shift_left<7>(sum.high) + sum.low; }
static inline i32x16 total_signed(const wide_sum& sum, std::int32_t sum_of_n) {
  return total_nibbles(sum) - splat_i32(kQ8Zero * sum_of_n);
}

#endif

}  // namespace kv::cpu::KV_PATH
