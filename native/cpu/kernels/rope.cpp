// rope: rotates the pairs of one head by the angles of its position.
//
//   (a, b) -> (a*cos - b*sin, b*cos + a*sin), every product and sum rounded on its own
// Pairs are (i, i + rotary_dim/2) or (2i, 2i + 1); values past rotary_dim are left alone.
#include "cpu/kernels/transformer_path_kernels.h"

namespace kv::cpu::KV_PATH {

namespace {

template <typename First, typename Second>
void rotate(const RopeArgs& args, First first, Second second) {
  float* head = args.head;
  for (std::int32_t i = 0; i < args.rotary_dim / 2; ++i) {
    const float a = head[first(i)];
    const float b = head[second(i)];
    const float c = args.cosines[i];
    const float s = args.sines[i];
    head[first(i)] = a * c - b * s;
    head[second(i)] = b * c + a * s;
  }
}

}  // namespace

void rope(const RopeArgs& args) {
  if (args.style == KV_ROPE_INTERLEAVED) {
    rotate(args, [](std::int32_t i) { return 2 * i; }, [](std::int32_t i) { return 2 * i + 1; });
  } else {
    const std::int32_t half = args.rotary_dim / 2;
    rotate(args, [](std::int32_t i) { return i; }, [half](std::int32_t i) { return i + half; });
  }
}

}  // namespace kv::cpu::KV_PATH
