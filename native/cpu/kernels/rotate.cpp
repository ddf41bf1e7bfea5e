// rotate: the Walsh-Hadamard transform of each run of `block` values, times a power of two.
//
//   block < 16: y(i) = sum over j ascending of the run, from 0, of H(i,j) * x(j)
//   else the same within each 16 values, then for half = 16, 32 .. block/2: (a, b) -> (a + b, a - b) over pairs `half`
//   apart; every sum rounded on its own. Then y * factor.
// H(i,j) is -1 where i and j share an odd number of bits, else 1.
#include "cpu/kernels/transformer_path_kernels.h"
#include "cpu/simd/f32x16.h"

namespace kv::cpu::KV_PATH {

namespace {

struct Signs {
  float row[16][16];
};

constexpr Signs hadamard_signs() {
  Signs signs{};
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) signs.row[i][j] = __builtin_popcount(static_cast<unsigned>(i & j)) % 2 == 0 ? 1.0f : -1.0f;
  }
  return signs;
}

constexpr Signs kSigns = hadamard_signs();

// Up to 8 values: the corner of the 16-value matrix.
void rotate_few(float* run, std::int32_t block, float factor) {
  float out[16];
  for (std::int32_t i = 0; i < block; ++i) {
    float sum = 0.0f;
    for (std::int32_t j = 0; j < block; ++j) sum = sum + kSigns.row[i][j] * run[j];
    out[i] = sum * factor;
  }
  for (std::int32_t i = 0; i < block; ++i) run[i] = out[i];
}

constexpr int kVectors = 4;

// kCount times 16 values, at once so that their chains overlap.
template <int kCount>
void rotate_vectors(float* values) {
  f32x16 sums[kCount];
  for (int v = 0; v < kCount; ++v) sums[v] = zero();
  for (int j = 0; j < 16; ++j) {
    const f32x16 signs = load(kSigns.row[j]);
    for (int v = 0; v < kCount; ++v) sums[v] = fma(splat(values[16 * v + j]), signs, sums[v]);
  }
  for (int v = 0; v < kCount; ++v) store(values + 16 * v, sums[v]);
}

}  // namespace

void rotate(float* values, std::int64_t n, std::int32_t block, float factor) {
  if (block < 16) {
    for (std::int64_t start = 0; start < n; start += block) rotate_few(values + start, block, factor);
    return;
  }
  std::int64_t start = 0;
  for (; start + 16 * kVectors <= n; start += 16 * kVectors) rotate_vectors<kVectors>(values + start);
  for (; start < n; start += 16) rotate_vectors<1>(values + start);
  for (std::int64_t run = 0; run < n; run += block) {
    for (std::int32_t half = 16; half < block; half *= 2) {
      for (std::int32_t first = 0; first < block; first += 2 * half) {
        for (std::int32_t i = first; i < first + half; i += 16) {
          float* at = values + run + i;
          const f32x16 a = load(at), b = load(at + half);
          store(at, a + b);
          store(at + half, a - b);
        }
      }
    }
    for (std::int32_t i = 0; i < block; i += 16) store(values + run + i, load(values + run + i) * splat(factor));
  }
}

}  // namespace kv::cpu::KV_PATH
