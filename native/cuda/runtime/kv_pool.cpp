#include "cuda/runtime/kv_pool.h"

#include "common/checks.h"
#include "host/block_tokens.h"
#include "host/kv_format.h"

namespace kv::cuda {

KvPool::KvPool(DeviceLedger& ledger, const DeviceModel& model, const std::uint32_t* n_blocks, kv_dtype dtype)
    : dtype_(dtype), groups_(model.scalars().n_groups) {
  for (const DeviceLayer& layer : model.layers()) {
    const kv_layer& shape = layer.shape;
    Group& group = groups_[shape.group];
    const std::uint64_t half =
        std::uint64_t{shape.n_kv_heads} * kBlockTokens * kv_record_bytes(dtype, shape.head_dim);
    layers_.push_back({shape.group, group.block_bytes, half});
    group.block_bytes += 2 * half;
  }
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    groups_[i].memory = DeviceBuffer<std::uint8_t>(
        ledger, ledger.kv_pool_bytes, buffer_product("KV pool", groups_[i].block_bytes, n_blocks[i]), "KV pool");
  }
}

void KvPool::copy(const DeviceModel& model, std::uint32_t group, const std::int32_t* sources,
                  const std::int32_t* destinations, const std::int32_t* n_tokens, std::int32_t count,
                  cudaStream_t stream) const {
  if (count == 0) return;
  for (std::uint32_t index = 0; index < layers_.size(); ++index) {
    if (layers_[index].group != group) continue;
    const kv_layer& shape = model.layers()[index].shape;
    for (int half = 0; half < 2; ++half) {
      copy_blocks({layer(index) + (half == 0 ? 0 : value_offset(index)),
                   static_cast<std::int64_t>(groups_[group].block_bytes), sources, destinations, n_tokens, count,
                   static_cast<std::int32_t>(shape.n_kv_heads),
                   static_cast<std::int32_t>(kv_record_bytes(dtype_, shape.head_dim))},
                  stream);
    }
  }
}

}  // namespace kv::cuda
