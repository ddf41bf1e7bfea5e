// linear_tiles: quantized products of several tokens on the integer tensor cores. Which tile a launch takes never shows in
// the bits (tile_kernel.cuh).
#include "cuda/kernels/dispatch.h"
#include "cuda/kernels/tile_kernel.cuh"

namespace kv::cuda {

namespace {

// Shared memory of a multiprocessor, less what every block takes for itself.
constexpr int kSharedBytes = 224 * 1024;

// Blocks of 256 columns on their way: as many as leave room for kResident blocks.
template <typename Format, int kColumns, int kResident>
constexpr int stages() {
  constexpr int kBytes = StageLayout<Format, 128, 8 * kColumns>::kBytes;
  return 3 * kBytes * kResident <= kSharedBytes ? 3 : 2;
}

template <typename Format>
void launch_few(const LinearPart* parts, int n_parts, const QuantizedInput& x, int tokens, cudaStream_t stream) {
  constexpr int kStages = stages<Format, 1, 3>();
  using Split = TileShape<4, 1, 1, true, kStages, 3>;
  launch_product<Format, TileShape<4, 1, 1, false, kStages, 3>, Split, Split>(parts, n_parts, x, tokens, stream);
}

template <typename Format>
void launch_many(const LinearPart* parts, int n_parts, const QuantizedInput& x, int tokens, cudaStream_t stream) {
  constexpr int kStages = stages<Format, 4, 2>();
  launch_product<Format, TileShape<4, 1, 4, false, kStages, 2>, TileShape<4, 1, 4, true, kStages, 2>,
                 TileShape<4, 1, 4, true, 2, 3>>(parts, n_parts, x, tokens, stream);
}

// Matrices of few rows end sooner in more and smaller tiles.
constexpr int kFewTiles = 8;

}  // namespace

void linear_tiles(const LinearPart* parts, int n_parts, const QuantizedInput& x, int tokens, cudaStream_t stream) {
  int tiles = 0;
  for (int i = 0; i < n_parts; ++i) tiles += static_cast<int>(ceil_div(parts[i].weight.rows, 128));
  const bool few = tokens <= 8 || tiles * static_cast<int>(ceil_div(tokens, 32)) <= kFewTiles;
  with_quantized_format(parts[0].weight.dtype, [&]<typename Format>() {
    if (few) {
      launch_few<Format>(parts, n_parts, x, tokens, stream);
    } else {
      launch_many<Format>(parts, n_parts, x, tokens, stream);
    }
  });
}

}  // namespace kv::cuda
