// KvPool: the paged key/value memory of one runner, and the canonical payload of its blocks.
//
// Device layout per group, layer and block: K of all heads, then V of all heads. K of a float dtype is (D, Bk) and V
// (Bk, D): tokens of K lie in vector lanes, so attention scores are a stream of fused multiply-adds without horizontal
// sums. Quantized heads: kernels/kv_layout.h.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "abi/kvasir_abi.h"
#include "host/block_tokens.h"
#include "host/kv_format.h"
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
  // layers: (n_layers), n_blocks: (n_groups). Every head_dim is one kv_dtype_takes. Fails with KV_OUT_OF_MEMORY.
  KvPool(MemoryLedger& ledger, const std::vector<KvLayerShape>& layers, std::uint32_t n_groups,
         const std::uint32_t* n_blocks, kv_dtype dtype);

  kv_dtype dtype() const { return dtype_; }
  KvRotation rotation(std::uint32_t layer) const { return kv_rotation(dtype_, layers_[layer].shape.head_dim); }
  std::uint32_t n_blocks(std::uint32_t group) const { return groups_[group].n_blocks; }
  std::uint64_t payload_bytes(std::uint32_t group) const { return groups_[group].block_bytes; }

  // Start of K and of V of one head in one block.
  std::byte* keys(std::uint32_t layer, std::uint32_t block, std::uint32_t head) const;
  std::byte* values(std::uint32_t layer, std::uint32_t block, std::uint32_t head) const;
  // Bytes of K, and of V, of one head in one block; of K and V of all heads.
  std::uint64_t head_bytes(std::uint32_t layer) const { return layers_[layer].head_bytes; }
  std::uint64_t block_bytes(std::uint32_t layer) const { return layers_[layer].block_bytes; }

  void copy_block(std::uint32_t group, std::uint32_t source, std::uint32_t destination, std::uint32_t n_tokens);
  // One of several threads that move a block together, each some of its layers.
  struct Share {
    std::uint32_t member = 0;
    std::uint32_t members = 1;
  };
  // Payload: for each layer of the group in order K then V, each (Hkv, Bk) records (host/kv_format.h).
  void read_block(std::uint32_t group, std::uint32_t block, std::byte* payload, Share share) const;
  void write_block(std::uint32_t group, std::uint32_t block, const std::byte* payload, Share share);

 private:
  // A part of a head that lies as (rows, Bk, bytes), and in each token's record as rows * bytes.
  struct Section {
    std::uint32_t rows = 0;
    std::uint32_t bytes = 0;
  };
  // Codes, scales, minima; unused ones have no rows.
  using Sections = std::array<Section, 3>;
  struct Layer {
    KvLayerShape shape;
    Sections keys, values;
    std::uint32_t record_bytes;
    std::uint64_t head_bytes;   // of K, and of V
    std::uint64_t block_bytes;  // K and V of all heads
    std::byte* base;            // block 0 of this layer
  };
  struct Group {
    std::uint32_t n_blocks = 0;
    std::uint64_t block_bytes = 0;  // over all layers of the group
    std::vector<std::uint32_t> layers;
    Buffer<std::byte> memory;
  };

  template <typename Visit>
  void each_layer_of(std::uint32_t group, Share share, Visit&& visit) const;
  static Sections sections_of(kv_dtype dtype, std::uint32_t head_dim, bool is_keys);
  static void to_records(const Layer& layer, const Sections& sections, const std::byte* head, std::byte* records);
  static void from_records(const Layer& layer, const Sections& sections, const std::byte* records, std::byte* head);

  kv_dtype dtype_;
  std::vector<Layer> layers_;
  std::vector<Group> groups_;
};

}  // namespace kv::cpu
