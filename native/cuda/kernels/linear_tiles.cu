// linear_tiles: products of several tokens. Which tile a launch takes never shows in the bits (tile_kernel.cuh).
#include "cuda/kernels/dispatch.h"
#include "cuda/kernels/tile_kernel.cuh"

namespace kv::cuda {

namespace {

// Shared memory of a multiprocessor, less what every block takes for itself.
constexpr int kSharedBytes = 222 * 1024;

// Stages on their way: as many as leave room for kResident blocks.
template <typename Operand, int kGroups, int kTiles, int kResident>
constexpr int stages() {
  constexpr int kBytes = StageLayout<Operand, 4 * kGroups, kTiles>::kBytes, kRoom = kSharedBytes / kResident / kBytes;
  return kRoom >= 4 ? 4 : kRoom >= 3 ? 3 : 2;
}

// 64 * kGroups rows by 8 * kTiles tokens.
template <typename Operand, int kGroups, int kTiles, int kResident>
void launch(const LinearPart* parts, int n_parts, const HalfInput& x, int tokens, cudaStream_t stream) {
  constexpr int kStages = stages<Operand, kGroups, kTiles, kResident>();
  launch_product<Operand, TileShape<kGroups, kTiles, false, kStages, kResident>,
                 TileShape<kGroups, kTiles, true, kStages, kResident>>(parts, n_parts, x, tokens, stream);
}

}  // namespace

void linear_tiles(const LinearPart* parts, int n_parts, const HalfInput& x, int tokens, cudaStream_t stream) {
  with_operand(parts[0].weight, [&]<typename Operand>() {
    if (tokens <= 8) return launch<Operand, 2, 1, 2>(parts, n_parts, x, tokens, stream);
    if (tokens <= 16) return launch<Operand, 2, 2, 2>(parts, n_parts, x, tokens, stream);
    if (tokens <= 32) return launch<Operand, 2, 4, 2>(parts, n_parts, x, tokens, stream);
    if (tokens <= 64) return launch<Operand, 2, 8, 2>(parts, n_parts, x, tokens, stream);
    launch<Operand, 2, 16, 1>(parts, n_parts, x, tokens, stream);
  });
}

}  // namespace kv::cuda
