// f32x16: 16 float lanes, the unit every kernel is written in. One file per instruction path gives it the same bits:
//   scalar  float[16]       avx2  two ymm (AVX2, FMA, F16C)       avx512  one zmm       neon  four q
// A kernel source is compiled once per path (KV_PATH) and everything here lives in that path's namespace, so that no
// inline function compiled with one path's flags can be linked into another.
//
// Semantics shared by all paths:
//   fma(a, b, c)   a*b + c, rounded once              max(a, b)   a > b ? a : b, so b where either is NaN
//   min(a, b)      a < b ? a : b                      sqrt, /     IEEE
//   round_even     nearest, ties to even              to_i32      rounds like round_even; unspecified where it does not fit
//   load_first     n leading lanes (0..16), the others 0; reads nothing past them
//   sum_tree       lanes l and l+8, then l+4, l+2, l+1: the fixed order of every horizontal sum
//   max_lanes      the same tree with max              store_sums4 to[i] = sum_tree(a[i]) for four vectors
//   load_f16/bf16  exact; store_f16/bf16 round half to even, NaN stays NaN (quiet), overflow goes to infinity
//   store_i8       the low byte of each lane           load_i8, load_u8   16 bytes, widened with their sign or zeros
//   sum_lanes      of i32x16, wrapping
//   lt(a, b)       mask of a < b                      select(m, a, b)   a where set, else b
// Pointers may be unaligned. Nothing of the standard library is used here: its inline functions would be compiled with
// this path's flags and could be the copy that the linker keeps for everybody.
#pragma once

#include "cpu/simd/partial_copy.h"

#if defined(KV_PATH_AVX512)
#include "cpu/simd/f32x16_avx512.h"
#elif defined(KV_PATH_AVX2)
#include "cpu/simd/f32x16_avx2.h"
#elif defined(KV_PATH_NEON) || defined(KV_PATH_NEON_DOTPROD)
#include "cpu/simd/f32x16_neon.h"
#elif defined(KV_PATH_SCALAR)
#include "cpu/simd/f32x16_scalar.h"
#else
#error "f32x16.h is included by sources compiled once per instruction path (KV_PATH)"
#endif
