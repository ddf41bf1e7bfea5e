// Random weights of every stored format for the tests and benchmarks: valid blocks whose scales are ordinary numbers, so
// that results can be compared with a float64 reference. Seeded; the same bytes on every machine.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "common/dtype.h"
#include "common/formats/blocks.h"

namespace kv::test {

// splitmix64.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15ull;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>((next() >> 32) % n); }
  // Uniform in [-1, 1).
  float uniform() { return static_cast<float>(static_cast<double>(next() >> 11) * 0x1p-52 - 1.0); }

 private:
  std::uint64_t state_;
};

// A finite f16 of either sign with magnitude 2^-10 to 2^-5.
inline void put_random_half(std::uint8_t* to, Random& random) {
  const std::uint32_t bits = (random.below(2) << 15) | ((5 + random.below(5)) << 10) | random.below(1024);
  to[0] = static_cast<std::uint8_t>(bits);
  to[1] = static_cast<std::uint8_t>(bits >> 8);
}

inline std::vector<std::byte> random_weights(kv_dtype dtype, std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  std::uint64_t bytes = 0;
  if (!weight_matrix_bytes(dtype, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols), &bytes)) return {};
  std::vector<std::byte> data(bytes);
  Random random(seed);
  std::uint8_t* p = reinterpret_cast<std::uint8_t*>(data.data());
  if (dtype == KV_F32) {
    for (std::uint64_t i = 0; i < bytes; i += 4) {
      const float x = random.uniform();
      std::memcpy(p + i, &x, 4);
    }
    return data;
  }
  if (dtype == KV_F16) {
    for (std::uint64_t i = 0; i < bytes; i += 2) put_random_half(p + i, random);
    return data;
  }
  if (dtype == KV_BF16) {
    for (std::uint64_t i = 0; i < bytes; i += 2) {
      const float x = random.uniform();
      std::memcpy(p + i, reinterpret_cast<const char*>(&x) + 2, 2);
    }
    return data;
  }
  for (std::uint64_t i = 0; i + 8 <= bytes; i += 8) {
    const std::uint64_t word = random.next();
    std::memcpy(p + i, &word, 8);
  }
  for (std::uint64_t i = bytes / 8 * 8; i < bytes; ++i) p[i] = static_cast<std::uint8_t>(random.next());
  const DtypeInfo* info = weight_dtype_info(dtype);
  for (std::uint64_t block = 0; block < bytes; block += info->block_bytes) {
    std::uint8_t* b = p + block;
    switch (dtype) {
      case KV_Q4_1:
      case KV_Q5_1:
      case KV_Q4_K:
      case KV_Q5_K:
        put_random_half(b, random);
        put_random_half(b + 2, random);
        break;
      case KV_Q6_K:
        put_random_half(b + 208, random);
        break;
      case KV_MXFP4:
        b[0] = static_cast<std::uint8_t>(118 + random.below(6));
        break;
      default:
        put_random_half(b, random);
    }
  }
  return data;
}

inline std::vector<float> random_floats(std::int64_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = random.uniform();
  return values;
}

// Activations as models have them: a few large outliers among small values, and a group of zeros.
inline std::vector<float> random_activations(std::int64_t tokens, std::int64_t cols, std::uint64_t seed) {
  std::vector<float> values = random_floats(tokens * cols, seed);
  Random random(seed ^ 0x5bd1e995u);
  for (std::int64_t t = 0; t < tokens; ++t) {
    values[static_cast<std::size_t>(t * cols + random.below(static_cast<std::uint32_t>(cols)))] *= 40.0f;
    if (cols >= 64 && t % 3 == 0) {
      for (std::int64_t c = 32; c < 64; ++c) values[static_cast<std::size_t>(t * cols + c)] = 0.0f;
    }
  }
  return values;
}

inline constexpr kv_dtype kWeightDtypes[] = {KV_F32,  KV_F16,  KV_BF16, KV_Q8_0, KV_Q4_0, KV_Q4_1,
                                             KV_Q5_0, KV_Q5_1, KV_Q4_K, KV_Q5_K, KV_Q6_K, KV_MXFP4};

}  // namespace kv::test
