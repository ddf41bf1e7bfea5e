// linear_tiles: products of several tokens. Which tile a launch takes never shows in the bits (tile_kernel.cuh).
#include "cuda/kernels/dispatch.h"
#include "cuda/kernels/tile_kernel.cuh"

namespace kv::cuda {

namespace {

// Shared memory of a multiprocessor, less what every block takes for itself.
constexpr int kSharedBytes = 222 * 1024;

// Stages that leave room for kResident blocks.
template <typename Operand, int kGroups, int kTiles, int kResident>
constexpr int kRoom = kSharedBytes / kResident / StageLayout<Operand, 4 * kGroups, kTiles>::kBytes;

// 64 * kGroups rows by 8 * kTiles tokens.
template <typename Operand, int kGroups, int kTiles, int kResident>
void launch(const LinearPart* parts, int n_parts, const HalfInput& x, int tokens, cudaStream_t stream) {
  constexpr int kFit = kRoom<Operand, kGroups, kTiles, kResident>, kStages = kFit >= 4 ? 4 : kFit;
  static_assert(kStages >= 2);
  launch_product<Operand, TileShape<kGroups, kTiles, false, kStages, kResident>,
                 TileShape<kGroups, kTiles, true, kStages, kResident>>(parts, n_parts, x, tokens, stream);
}

// Sixteen warps on a multiprocessor: of two blocks or, where two stages of two do not fit, of one.
template <typename Operand, int kTiles>
void launch_for(const LinearPart* parts, int n_parts, const HalfInput& x, int tokens, cudaStream_t stream) {
  if constexpr (kRoom<Operand, 2, kTiles, 2> >= 2) {
    launch<Operand, 2, kTiles, 2>(parts, n_parts, x, tokens, stream);
  } else {
    launch<Operand, 4, kTiles, 1>(parts, n_parts, x, tokens, stream);
  }
}

}  // namespace

void linear_tiles(const LinearPart* parts, int n_parts, const HalfInput& x, int tokens, cudaStream_t stream) {
  with_operand(parts[0].weight.dtype, [&]<typename Operand>() {
    if (tokens <= 8) return launch_for<Operand, 1>(parts, n_parts, x, tokens, stream);
    if (tokens <= 16) return launch_for<Operand, 2>(parts, n_parts, x, tokens, stream);
    if (tokens <= 32) return launch_for<Operand, 4>(parts, n_parts, x, tokens, stream);
    if (tokens <= 64) return launch_for<Operand, 8>(parts, n_parts, x, tokens, stream);
    launch<Operand, 2, 16, 1>(parts, n_parts, x, tokens, stream);
  });
}

}  // namespace kv::cuda
