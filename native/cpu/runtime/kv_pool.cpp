#include "cpu/runtime/kv_pool.h"

#include <algorithm>
#include <cstring>

#include "common/checks.h"
#include "cpu/runtime/transpose.h"

namespace kv::cpu {

namespace {

// out (cols, rows) = in (rows, cols), in tiles that keep both sides within a few cache lines.
template <typename T>
void transpose(const T* in, T* out, std::uint32_t rows, std::uint32_t cols) {
  constexpr std::uint32_t kTile = 32;
  for (std::uint32_t r0 = 0; r0 < rows; r0 += kTile) {
    for (std::uint32_t c0 = 0; c0 < cols; c0 += kTile) {
      const std::uint32_t r1 = std::min(rows, r0 + kTile);
      const std::uint32_t c1 = std::min(cols, c0 + kTile);
      for (std::uint32_t c = c0; c < c1; ++c) {
        for (std::uint32_t r = r0; r < r1; ++r) {
          std::memcpy(out + std::uint64_t{c} * rows + r, in + std::uint64_t{r} * cols + c, sizeof(T));
        }
      }
    }
  }
}

void transpose_values(std::uint32_t value_bytes, const std::byte* in, std::byte* out, std::uint32_t rows,
                      std::uint32_t cols) {
  if (value_bytes == 4) {
    struct Value { std::byte bytes[4]; };
    transpose(reinterpret_cast<const Value*>(in), reinterpret_cast<Value*>(out), rows, cols);
  } else {
    transpose_2_bytes(in, std::uint64_t{cols} * 2, out, std::uint64_t{rows} * 2, rows, cols);
  }
}

}  // namespace

KvPool::KvPool(MemoryLedger& ledger, const std::vector<KvLayerShape>& layers, std::uint32_t n_groups,
               const std::uint32_t* n_blocks, kv_dtype dtype)
    : dtype_(dtype), value_bytes_(dtype == KV_F32 ? 4 : 2), groups_(n_groups) {
  for (const KvLayerShape& shape : layers) {
    const std::uint64_t head_bytes = std::uint64_t{shape.head_dim} * kBlockTokens * value_bytes_;
    const std::uint64_t block_bytes = 2 * head_bytes * shape.n_kv_heads;
    Group& group = groups_[shape.group];
    group.layers.push_back(static_cast<std::uint32_t>(layers_.size()));
    group.block_bytes += block_bytes;
    layers_.push_back({shape, head_bytes, block_bytes, nullptr});
  }
  for (std::uint32_t index = 0; index < n_groups; ++index) {
    Group& group = groups_[index];
    group.n_blocks = n_blocks[index];
    group.memory = Buffer<std::byte>(ledger, ledger.kv_pool_bytes,
                                     buffer_product("KV pool", group.block_bytes, group.n_blocks), "KV pool");
    std::byte* base = group.memory.data();
    for (const std::uint32_t layer : group.layers) {
      layers_[layer].base = base;
      base += layers_[layer].block_bytes * group.n_blocks;
    }
  }
}

std::byte* KvPool::keys(std::uint32_t layer, std::uint32_t block, std::uint32_t head) const {
  const Layer& at = layers_[layer];
  return at.base + block * at.block_bytes + head * at.head_bytes;
}

std::byte* KvPool::values(std::uint32_t layer, std::uint32_t block, std::uint32_t head) const {
  const Layer& at = layers_[layer];
  return at.base + block * at.block_bytes + (at.shape.n_kv_heads + head) * at.head_bytes;
}

void KvPool::copy_block(std::uint32_t group, std::uint32_t source, std::uint32_t destination, std::uint32_t n_tokens) {
  if (source == destination) return;
  for (const std::uint32_t layer : groups_[group].layers) {
    const KvLayerShape& shape = layers_[layer].shape;
    for (std::uint32_t head = 0; head < shape.n_kv_heads; ++head) {
      const std::byte* from = keys(layer, source, head);
      std::byte* to = keys(layer, destination, head);
      const std::uint64_t row = std::uint64_t{kBlockTokens} * value_bytes_;
      for (std::uint32_t d = 0; d < shape.head_dim; ++d) {
        std::memcpy(to + d * row, from + d * row, std::uint64_t{n_tokens} * value_bytes_);
      }
      std::memcpy(values(layer, destination, head), values(layer, source, head),
                  std::uint64_t{n_tokens} * shape.head_dim * value_bytes_);
    }
  }
}

void KvPool::read_block(std::uint32_t group, std::uint32_t block, std::byte* payload) const {
  for (const std::uint32_t layer : groups_[group].layers) {
    const KvLayerShape& shape = layers_[layer].shape;
    const std::uint64_t half = layers_[layer].head_bytes * shape.n_kv_heads;
    for (std::uint32_t head = 0; head < shape.n_kv_heads; ++head) {
      transpose_values(value_bytes_, keys(layer, block, head), payload + head * layers_[layer].head_bytes,
                       shape.head_dim, kBlockTokens);
    }
    std::memcpy(payload + half, values(layer, block, 0), half);
    payload += 2 * half;
  }
}

void KvPool::write_block(std::uint32_t group, std::uint32_t block, const std::byte* payload) {
  for (const std::uint32_t layer : groups_[group].layers) {
    const KvLayerShape& shape = layers_[layer].shape;
    const std::uint64_t half = layers_[layer].head_bytes * shape.n_kv_heads;
    for (std::uint32_t head = 0; head < shape.n_kv_heads; ++head) {
      transpose_values(value_bytes_, payload + head * layers_[layer].head_bytes, keys(layer, block, head),
                       kBlockTokens, shape.head_dim);
    }
    std::memcpy(values(layer, block, 0), payload + half, half);
    payload += 2 * half;
  }
}

}  // namespace kv::cpu
