// f32x16 in plain C++: the readable definition of the other paths, and the path of machines without SIMD we know.
#pragma once

#include <cstdint>

#include "cpu/simd/float_bits.h"
#include "cpu/simd/partial_copy.h"

namespace kv::cpu::KV_PATH {

struct f32x16 {
  float v[16];
};
struct i32x16 {
  std::int32_t v[16];
};
struct mask16 {
  bool m[16];
};

template <typename Lane>
static inline f32x16 each_f32(Lane lane) {
  f32x16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = lane(i);
  return r;
}
template <typename Lane>
static inline i32x16 each_i32(Lane lane) {
  i32x16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = lane(i);
  return r;
}
// Integer lanes wrap around like the vector instructions do.
static inline std::int32_t wrap(std::uint32_t u) { return static_cast<std::int32_t>(u); }
static inline std::uint32_t unsigned_of(std::int32_t i) { return static_cast<std::uint32_t>(i); }

static inline mask16 first_lanes(int n) {
  mask16 r;
  for (int i = 0; i < 16; ++i) r.m[i] = i < n;
  return r;
}

static inline f32x16 zero() { return {}; }
static inline f32x16 splat(float x) {
  return each_f32([=](int) { return x; });
}
static inline f32x16 load(const void* p) {
  f32x16 r;
  copy_bytes(r.v, p, 64);
  return r;
}
static inline f32x16 load_first(const void* p, int n) {
  f32x16 r = {};
  copy_bytes(r.v, p, 4L * n);
  return r;
}
static inline void store(void* p, const f32x16& a) { copy_bytes(p, a.v, 64); }
static inline void store_first(void* p, const f32x16& a, int n) { copy_bytes(p, a.v, 4L * n); }

static inline f32x16 operator+(const f32x16& a, const f32x16& b) {
  return each_f32([&](int i) { return a.v[i] + b.v[i]; });
}
static inline f32x16 operator-(const f32x16& a, const f32x16& b) {
  return each_f32([&](int i) { return a.v[i] - b.v[i]; });
}
static inline f32x16 operator*(const f32x16& a, const f32x16& b) {
  return each_f32([&](int i) { return a.v[i] * b.v[i]; });
}
static inline f32x16 operator/(const f32x16& a, const f32x16& b) {
  return each_f32([&](int i) { return a.v[i] / b.v[i]; });
}
static inline f32x16 fma(const f32x16& a, const f32x16& b, const f32x16& c) {
  return each_f32([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
static inline f32x16 max(const f32x16& a, const f32x16& b) {
  return each_f32([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
static inline f32x16 min(const f32x16& a, const f32x16& b) {
  return each_f32([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
static inline f32x16 sqrt(const f32x16& a) {
  return each_f32([&](int i) { return __builtin_sqrtf(a.v[i]); });
}
static inline f32x16 abs(const f32x16& a) {
  return each_f32([&](int i) { return __builtin_fabsf(a.v[i]); });
}
static inline f32x16 round_even(const f32x16& a) {
  return each_f32([&](int i) { return __builtin_rintf(a.v[i]); });
}

static inline mask16 lt(const f32x16& a, const f32x16& b) {
  mask16 r;
  for (int i = 0; i < 16; ++i) r.m[i] = a.v[i] < b.v[i];
  return r;
}
static inline f32x16 select(const mask16& m, const f32x16& a, const f32x16& b) {
  return each_f32([&](int i) { return m.m[i] ? a.v[i] : b.v[i]; });
}

static inline i32x16 splat_i32(std::int32_t x) {
  return each_i32([=](int) { return x; });
}
static inline i32x16 load_i32(const void* p) {
  i32x16 r;
  copy_bytes(r.v, p, 64);
  return r;
}
static inline i32x16 load_first_i32(const void* p, int n) {
  i32x16 r = {};
  copy_bytes(r.v, p, 4L * n);
  return r;
}
static inline void store_i32(void* p, const i32x16& a) { copy_bytes(p, a.v, 64); }
static inline i32x16 operator+(const i32x16& a, const i32x16& b) {
  return each_i32([&](int i) { return wrap(unsigned_of(a.v[i]) + unsigned_of(b.v[i])); });
}
static inline i32x16 operator-(const i32x16& a, const i32x16& b) {
  return each_i32([&](int i) { return wrap(unsigned_of(a.v[i]) - unsigned_of(b.v[i])); });
}
static inline i32x16 operator*(const i32x16& a, const i32x16& b) {
  return each_i32([&](int i) { return wrap(unsigned_of(a.v[i]) * unsigned_of(b.v[i])); });
}
static inline i32x16 max(const i32x16& a, const i32x16& b) {
  return each_i32([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
template <int n>
static inline i32x16 shift_left(const i32x16& a) {
  return each_i32([&](int i) { return wrap(unsigned_of(a.v[i]) << n); });
}
static inline i32x16 operator&(const i32x16& a, const i32x16& b) {
  return each_i32([&](int i) { return a.v[i] & b.v[i]; });
}
static inline i32x16 operator|(const i32x16& a, const i32x16& b) {
  return each_i32([&](int i) { return a.v[i] | b.v[i]; });
}
template <int n>
static inline i32x16 shift_right(const i32x16& a) {
  return each_i32([&](int i) { return wrap(unsigned_of(a.v[i]) >> n); });
}
template <int n>
static inline i32x16 shift_right_arithmetic(const i32x16& a) {
  return each_i32([&](int i) { return a.v[i] >> n; });
}
static inline f32x16 to_f32(const i32x16& a) {
  return each_f32([&](int i) { return static_cast<float>(a.v[i]); });
}
static inline i32x16 to_i32(const f32x16& a) {
  // Outside the int32 range the conversion is undefined in C++; the vector paths give some value there.
  return each_i32([&](int i) {
    const float x = a.v[i];
    return x >= -2147483648.0f && x < 2147483648.0f ? static_cast<std::int32_t>(__builtin_rintf(x)) : INT32_MIN;
  });
}
static inline f32x16 bits_to_f32(const i32x16& a) { return load(a.v); }
static inline i32x16 bits_to_i32(const f32x16& a) { return load_i32(a.v); }

static inline void store_i8(void* p, const i32x16& a) {
  std::int8_t bytes[16];
  for (int i = 0; i < 16; ++i) bytes[i] = static_cast<std::int8_t>(a.v[i]);
  copy_bytes(p, bytes, 16);
}
static inline i32x16 load_i8(const void* p) {
  std::int8_t bytes[16];
  copy_bytes(bytes, p, 16);
  return each_i32([&](int i) { return bytes[i]; });
}
static inline i32x16 load_u8(const void* p) {
  std::uint8_t bytes[16];
  copy_bytes(bytes, p, 16);
  return each_i32([&](int i) { return bytes[i]; });
}
static inline std::int32_t sum_lanes(const i32x16& a) {
  std::uint32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += unsigned_of(a.v[i]);
  return wrap(sum);
}

static inline f32x16 load_first_f16(const void* p, int n) {
  std::uint16_t h[16] = {};
  copy_bytes(h, p, 2L * n);
  return each_f32([&](int i) { return f16_to_f32(h[i]); });
}
static inline f32x16 load_f16(const void* p) { return load_first_f16(p, 16); }
static inline void store_first_f16(void* p, const f32x16& a, int n) {
  std::uint16_t h[16];
  for (int i = 0; i < 16; ++i) h[i] = f32_to_f16(a.v[i]);
  copy_bytes(p, h, 2L * n);
}
static inline void store_f16(void* p, const f32x16& a) { store_first_f16(p, a, 16); }

static inline f32x16 load_first_bf16(const void* p, int n) {
  std::uint16_t h[16] = {};
  copy_bytes(h, p, 2L * n);
  return each_f32([&](int i) { return bf16_to_f32(h[i]); });
}
static inline f32x16 load_bf16(const void* p) { return load_first_bf16(p, 16); }
static inline void store_first_bf16(void* p, const f32x16& a, int n) {
  std::uint16_t h[16];
  for (int i = 0; i < 16; ++i) h[i] = f32_to_bf16(a.v[i]);
  copy_bytes(p, h, 2L * n);
}
static inline void store_bf16(void* p, const f32x16& a) { store_first_bf16(p, a, 16); }

static inline float sum_tree(f32x16 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.v[i] = a.v[i] + a.v[i + half];
  }
  return a.v[0];
}
static inline float max_lanes(f32x16 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
  }
  return a.v[0];
}

static inline void store_sums4(float* to, const f32x16* a) {
  for (int i = 0; i < 4; ++i) to[i] = sum_tree(a[i]);
}

}  // namespace kv::cpu::KV_PATH
