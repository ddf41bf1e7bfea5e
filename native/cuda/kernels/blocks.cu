// blocks: copies the leading slots of blocks to other blocks of the pool, 2 bytes at a time.
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"
#include "host/block_tokens.h"

namespace kv::cuda {

namespace {

__global__ void copy_kernel(CopyBlocksArgs args) {
  const int i = blockIdx.z, head = blockIdx.y;
  if (args.sources[i] == args.destinations[i]) return;
  const std::int64_t row = args.record_bytes;
  const std::int64_t halves = row * args.n_tokens[i] / 2;
  const std::int64_t offset = std::int64_t{head} * kBlockTokens * row;
  const std::uint16_t* from =
      reinterpret_cast<const std::uint16_t*>(args.component + args.sources[i] * args.block_bytes + offset);
  std::uint16_t* to = reinterpret_cast<std::uint16_t*>(args.component + args.destinations[i] * args.block_bytes + offset);
  for (std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < halves;
       at += std::int64_t{gridDim.x} * blockDim.x) {
    to[at] = from[at];
  }
}

}  // namespace

void copy_blocks(const CopyBlocksArgs& args, cudaStream_t stream) {
  const dim3 grid(8, static_cast<unsigned>(args.n_heads), static_cast<unsigned>(args.count));
  copy_kernel<<<grid, 256, 0, stream>>>(args);
  check_launch("copy blocks");
}

}  // namespace kv::cuda
