// hash_logits: 64 bits that identify the exact bits of a row of logits.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace kv {

// Four independent multiply-rotate lanes over 8-byte words, then a finaliser that lets every input bit reach every
// output bit. Not cryptographic: it tells equal rows from different ones. Never 0, which means "not asked for".
inline std::uint64_t hash_logits(const float* logits, std::uint64_t n) {
  constexpr std::uint64_t kFirst = 0x9E3779B97F4A7C15, kSecond = 0xC2B2AE3D27D4EB4F;
  std::uint64_t lanes[4] = {kFirst, kSecond, kFirst ^ kSecond, n};
  const std::uint64_t bytes = n * sizeof(float);
  for (std::uint64_t at = 0; at < bytes; at += 32) {
    std::uint64_t words[4] = {};
    std::memcpy(words, reinterpret_cast<const char*>(logits) + at, bytes - at < 32 ? bytes - at : 32);
    for (int i = 0; i < 4; ++i) lanes[i] = std::rotl((lanes[i] ^ words[i]) * kSecond, 31) * kFirst;
  }
  std::uint64_t hash = bytes;
  for (const std::uint64_t lane : lanes) hash = std::rotl(hash ^ lane, 27) * kFirst + kSecond;
  hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9;
  hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EB;
  hash ^= hash >> 31;
  return hash == 0 ? 1 : hash;
}

}  // namespace kv
