// KvPool: the paged key/value memory of one runner. A block of a group is contiguous and lies as its canonical payload:
// for each layer in order K then V, each (Hkv, Bk) records (host/kv_format.h). So a block crosses to the host and back in
// one copy.
#pragma once

#include <cstdint>
#include <vector>

#include "abi/kvasir_abi.h"
#include "cuda/runtime/device_memory.h"
#include "cuda/runtime/device_model.h"

namespace kv::cuda {

class KvPool {
 public:
  KvPool(DeviceLedger& ledger, const DeviceModel& model, const std::uint32_t* n_blocks, kv_dtype dtype);

  kv_dtype dtype() const { return dtype_; }
  std::uint64_t payload_bytes(std::uint32_t group) const { return groups_[group].block_bytes; }
  std::uint8_t* block(std::uint32_t group, std::int32_t id) const {
    return groups_[group].memory.data() + static_cast<std::uint64_t>(id) * groups_[group].block_bytes;
  }
  // K of block 0 of a layer, and from a block's K to its V.
  std::uint8_t* layer(std::uint32_t index) const {
    return groups_[layers_[index].group].memory.data() + layers_[index].offset;
  }
  std::int64_t value_offset(std::uint32_t index) const { return static_cast<std::int64_t>(layers_[index].half_bytes); }

  // Copies leading slots between blocks; the arrays are device memory.
  void copy(const DeviceModel& model, std::uint32_t group, const std::int32_t* sources, const std::int32_t* destinations,
            const std::int32_t* n_tokens, std::int32_t count, cudaStream_t stream) const;

 private:
  struct Layer {
    std::uint32_t group;
    std::uint64_t offset;      // in a block
    std::uint64_t half_bytes;  // of K, and of V
  };
  struct Group {
    std::uint64_t block_bytes = 0;
    DeviceBuffer<std::uint8_t> memory;
  };
  kv_dtype dtype_;
  std::vector<Layer> layers_;
  std::vector<Group> groups_;
};

}  // namespace kv::cuda
