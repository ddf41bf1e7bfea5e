// KvPool: the paged key/value memory of one runner, and the canonical payload of its blocks.
//
// Device layout per group, layer and block: K as (Hkv, D, Bk), V as (Hkv, Bk, D). Tokens of K lie in vector lanes, so
// attention scores are a stream of fused multiply-adds without horizontal sums.
#pragma once

#include <cstdint>
#include <vector>

#include "abi/kvasir_abi.h"
#include "host/block_tokens.h"
#include "host/memory.h"

namespace kv::cpu {

// Geometry of the KV of one layer.
struct KvLayerShape {
  std::uint32_t group;
  std::uint32_t n_kv_heads;
  std::uint32_t head_dim;
};

class KvPool {
 public:
  // layers: (n_layers), n_blocks: (n_groups). Fails with KV_OUT_OF_MEMORY.
  KvPool(MemoryLedger& ledger, const std::vector<KvLayerShape>& layers, std::uint32_t n_groups,
         const std::uint32_t* n_blocks, kv_dtype dtype);

  kv_dtype dtype() const { return dtype_; }
  std::uint32_t n_blocks(std::uint32_t group) const { return groups_[group].n_blocks; }
  std::uint64_t payload_bytes(std::uint32_t group) const { return groups_[group].block_bytes; }

  // Start of K (D, Bk) and V (Bk, D) of one head in one block.
  std::byte* keys(std::uint32_t layer, std::uint32_t block, std::uint32_t head) const;
  std::byte* values(std::uint32_t layer, std::uint32_t block, std::uint32_t head) const;

  void copy_block(std::uint32_t group, std::uint32_t source, std::uint32_t destination, std::uint32_t n_tokens);
  // Payload: for each layer of the group in order K then V, each (Hkv, Bk, D).
  void read_block(std::uint32_t group, std::uint32_t block, std::byte* payload) const;
  void write_block(std::uint32_t group, std::uint32_t block, const std::byte* payload);

 private:
  struct Layer {
    KvLayerShape shape;
    std::uint64_t head_bytes;   // of K, and of V: D * Bk values
    std::uint64_t block_bytes;  // K and V of all heads
    std::byte* base;            // block 0 of this layer
  };
  struct Group {
    std::uint32_t n_blocks = 0;
    std::uint64_t block_bytes = 0;  // over all layers of the group
    std::vector<std::uint32_t> layers;
    Buffer<std::byte> memory;
  };

  kv_dtype dtype_;
  std::uint32_t value_bytes_;
  std::vector<Layer> layers_;
  std::vector<Group> groups_;
};

}  // namespace kv::cpu
