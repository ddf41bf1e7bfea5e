// f32x16 on AVX-512 (F, BW, DQ, VL): one zmm.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace kv::cpu::KV_PATH {

struct f32x16 {
  __m512 v;
};
struct i32x16 {
  __m512i v;
};
struct mask16 {
  __mmask16 m;
};

static inline mask16 first_lanes(int n) { return {static_cast<__mmask16>((1u << n) - 1u)}; }

static inline f32x16 zero() { return {_mm512_setzero_ps()}; }
static inline f32x16 splat(float x) { return {_mm512_set1_ps(x)}; }
static inline f32x16 load(const void* p) { return {_mm512_loadu_ps(p)}; }
static inline f32x16 load_first(const void* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n).m, p)}; }
static inline void store(void* p, f32x16 a) { _mm512_storeu_ps(p, a.v); }
static inline void store_first(void* p, f32x16 a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n).m, a.v); }

static inline f32x16 operator+(f32x16 a, f32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
static inline f32x16 operator-(f32x16 a, f32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
static inline f32x16 operator*(f32x16 a, f32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
static inline f32x16 operator/(f32x16 a, f32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
static inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
static inline f32x16 max(f32x16 a, f32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
static inline f32x16 min(f32x16 a, f32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
static inline f32x16 sqrt(f32x16 a) { return {_mm512_sqrt_ps(a.v)}; }
static inline f32x16 abs(f32x16 a) { return {_mm512_abs_ps(a.v)}; }
static inline f32x16 round_even(f32x16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

static inline mask16 lt(f32x16 a, f32x16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
static inline f32x16 select(mask16 m, f32x16 a, f32x16 b) { return {_mm512_mask_blend_ps(m.m, b.v, a.v)}; }

static inline i32x16 splat_i32(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
static inline i32x16 load_i32(const void* p) { return {_mm512_loadu_si512(p)}; }
static inline i32x16 load_first_i32(const void* p, int n) {
  return {_mm512_maskz_loadu_epi32(first_lanes(n).m, p)};
}
static inline void store_i32(void* p, i32x16 a) { _mm512_storeu_si512(p, a.v); }
static inline i32x16 operator+(i32x16 a, i32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
static inline i32x16 operator-(i32x16 a, i32x16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
static inline i32x16 operator*(i32x16 a, i32x16 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
static inline i32x16 max(i32x16 a, i32x16 b) { return {_mm512_max_epi32(a.v, b.v)}; }
template <int n>
static inline i32x16 shift_left(i32x16 a) {
  return {_mm512_slli_epi32(a.v, n)};
}
static inline i32x16 operator&(i32x16 a, i32x16 b) {
  return {_mm512_and_si512(a.v, b.v)};
}
static inline i32x16 operator|(i32x16 a, i32x16 b) {
  return {_mm512_or_si512(a.v, b.v)};
}
template <int n>
static inline i32x16 shift_right(i32x16 a) {
  return {_mm512_srli_epi32(a.v, n)};
}
template <int n>
static inline i32x16 shift_right_arithmetic(i32x16 a) {
  return {_mm512_srai_epi32(a.v, n)};
}
static inline f32x16 to_f32(i32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
static inline i32x16 to_i32(f32x16 a) { return {_mm512_cvtps_epi32(a.v)}; }
static inline f32x16 bits_to_f32(i32x16 a) { return {_mm512_castsi512_ps(a.v)}; }
static inline i32x16 bits_to_i32(f32x16 a) { return {_mm512_castps_si512(a.v)}; }

static inline void store_i8(void* p, i32x16 a) {
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
static inline i32x16 load_i8(const void* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)))};
}
static inline i32x16 load_u8(const void* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)))};
}
static inline std::int32_t sum_lanes(i32x16 a) { return _mm512_reduce_add_epi32(a.v); }

static inline f32x16 load_f16(const void* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
static inline f32x16 load_first_f16(const void* p, int n) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n).m, p))};
}
static inline __m256i to_f16_bits(f32x16 a) {
  return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline void store_f16(void* p, f32x16 a) { _mm256_storeu_si256(static_cast<__m256i*>(p), to_f16_bits(a)); }
static inline void store_first_f16(void* p, f32x16 a, int n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n).m, to_f16_bits(a));
}

static inline f32x16 from_bf16_bits(__m256i h) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}
static inline f32x16 load_bf16(const void* p) {
  return from_bf16_bits(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
static inline f32x16 load_first_bf16(const void* p, int n) {
  return from_bf16_bits(_mm256_maskz_loadu_epi16(first_lanes(n).m, p));
}
static inline __m256i to_bf16_bits(f32x16 a) {
  const __m512i u = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i kept = _mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
}
static inline void store_bf16(void* p, f32x16 a) { _mm256_storeu_si256(static_cast<__m256i*>(p), to_bf16_bits(a)); }
static inline void store_first_bf16(void* p, f32x16 a, int n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n).m, to_bf16_bits(a));
}

static inline float sum_tree(f32x16 a) {
  const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
static inline float max_lanes(f32x16 a) {
  const __m256 s8 = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}

static inline void store_sums4(float* to, const f32x16* a) {
  // Sums of lanes l and l+8 of two vectors at once, then quarters, then inside each quarter: the order of sum_tree.
  const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a[0].v, a[1].v, 0x44), _mm512_shuffle_f32x4(a[0].v, a[1].v, 0xee));
  const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(a[2].v, a[3].v, 0x44), _mm512_shuffle_f32x4(a[2].v, a[3].v, 0xee));
  const __m512 s4 = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  const __m512 s2 = _mm512_add_ps(s4, _mm512_permute_ps(s4, 0x4e));
  const __m512 s1 = _mm512_add_ps(s2, _mm512_movehdup_ps(s2));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, s1)));
}

}  // namespace kv::cpu::KV_PATH
