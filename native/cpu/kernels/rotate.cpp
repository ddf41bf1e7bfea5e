// rotate: the Walsh-Hadamard transform of each run of `block` values, times a power of two.
//
//   for half = 1, 2, 4 .. block/2: (a, b) -> (a + b, a - b) over pairs `half` apart; then x * factor
// Every sum is rounded on its own, in this order.
#include "cpu/kernels/transformer_path_kernels.h"

namespace kv::cpu::KV_PATH {

void rotate(float* values, std::int64_t n, std::int32_t block, float factor) {
  for (std::int64_t start = 0; start < n; start += block) {
    float* run = values + start;
    for (std::int32_t half = 1; half < block; half *= 2) {
      for (std::int32_t first = 0; first < block; first += 2 * half) {
        for (std::int32_t i = first; i < first + half; ++i) {
          const float a = run[i];
          const float b = run[i + half];
          run[i] = a + b;
          run[i + half] = a - b;
        }
      }
    }
    for (std::int32_t i = 0; i < block; ++i) run[i] *= factor;
  }
}

}  // namespace kv::cpu::KV_PATH
