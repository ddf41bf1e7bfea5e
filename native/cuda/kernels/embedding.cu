// embedding: rows of the embedding table in float32, exactly as the format defines them, times a scale.
#include "cuda/kernels/dispatch.h"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/launch.h"

namespace kv::cuda {

namespace {

template <typename Loader>
__global__ void embed_kernel(EmbedArgs args) {
  follow_previous();
  const int token = blockIdx.x;
  const int chunk = blockIdx.y * blockDim.x + threadIdx.x;
  if (8 * chunk >= args.embedding.cols) return;
  const int row = args.input_rows[token];
  const int id = row >= 0 ? args.sampled[row] : args.token_ids[token];
  float values[8];
  Loader::eight(args.embedding, id < 0 ? 0 : id, chunk, values);
  float* x = args.x + std::int64_t{token} * args.embedding.cols + 8 * chunk;
  for (int i = 0; i < 8 && 8 * chunk + i < args.embedding.cols; ++i) x[i] = values[i] * args.scale;
}

}  // namespace

void embed(const EmbedArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(args.tokens), ceil_div(ceil_div(args.embedding.cols, 8), 128));
  with_float_loader(args.embedding.dtype, [&]<typename Loader>() {
    launch_after("embedding", embed_kernel<Loader>, grid, 128, 0, stream, args);
  });
}

}  // namespace kv::cuda
