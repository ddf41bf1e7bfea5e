// u8x64: 64 bytes of weight codes, and the exact integer products with 8-bit activations.
//
//   load64(p)              64 bytes                     load32x2(a, b)     32 bytes of a, then 32 of b
//   load32_twice(p)        32 bytes, then the same      nibbles16x2(a, b)  of 16 bytes each: a & 15, a >> 4, b & 15, b >> 4
//   load16x4(a, b, c, d)   16 bytes of each          load16_four_times(p)
//   shift_right_halves<l, h>(x)   bytes 0-31 by l, 32-63 by h; upper bits of a byte may receive its neighbour's: mask them
//   shift_left<n>(x)       for bytes whose upper n bits are clear
//   bytes_of_bits(m, v)    byte i is v where bit i of m is set, else 0
//   add_row_bits<j, u>(x, h, v)   byte b of quarter q plus v, a bit that x has clear, where bit b (u: b + 16) of word
//                          4q + j of h is set
//   lookup(table, x)       table[x] for codes 0-15, table of 16 bytes
//   quad(word)             four bytes repeated 16 times
//   dot(acc, w, a)         acc[l] += sum of w[4l+i] * a[4l+i], i < 4; w unsigned and at most 127, a signed, exact
//   q8_codes, dot_q8       Q8_0's signed codes as this path multiplies them: with kQ8Zero added where the instruction
//                          wants unsigned ones; a code of -128 is multiplied exactly too
//   gather_words(base, stride)   lane r: the word at base + r * stride; reads nothing else
//   f16_lanes(x)           the low half of each lane as f16
//   row_sums32(d, out)     d[r]: lanes 0-7 belong to one sum of row r, lanes 8-15 to another; out[i][r] = sum i of row r
//   row_sums16(d, out)     the same for four sums of four lanes
//   quarter_sums4(d)       lane 4q + j: the sum of the four lanes of quarter q of d[j], j < 4
//   transpose16(rows)      rows[r] as 16 words (u8x64 or i32x16) -> rows[c] holds word c of every row
// Bytes are read through pointers of any alignment.
#pragma once

#include "cpu/simd/f32x16.h"

#if defined(KV_PATH_AVX512)
#include "cpu/simd/u8x64_avx512.h"
#elif defined(KV_PATH_AVX2)
#include "cpu/simd/u8x64_avx2.h"
#elif defined(KV_PATH_NEON) || defined(KV_PATH_NEON_DOTPROD)
#include "cpu/simd/u8x64_neon.h"
#else
#include "cpu/simd/u8x64_scalar.h"
#endif
