#include "cpu/runtime/kv_pool.h"

#include <algorithm>
#include <cstring>

#include "common/checks.h"
#include "cpu/runtime/transpose.h"

namespace kv::cpu {

namespace {

constexpr std::uint64_t kTokens = kBlockTokens;

// Calls move(row, token) for all of them, in tiles that keep both sides within a few cache lines. What is written is
// written in its own order: token by token into records, row by row into a section.
template <bool kToRecords, typename Move>
void each_in_tiles(std::uint32_t rows, Move&& move) {
  constexpr std::uint32_t kTile = 32;
  for (std::uint32_t r0 = 0; r0 < rows; r0 += kTile) {
    const std::uint32_t r1 = std::min(rows, r0 + kTile);
    for (std::uint64_t t0 = 0; t0 < kTokens; t0 += kTile) {
      if constexpr (kToRecords) {
        for (std::uint64_t t = t0; t < t0 + kTile; ++t) {
          for (std::uint32_t r = r0; r < r1; ++r) move(r, t);
        }
      } else {
        for (std::uint32_t r = r0; r < r1; ++r) {
          for (std::uint64_t t = t0; t < t0 + kTile; ++t) move(r, t);
        }
      }
    }
  }
}

// Copies between a section (rows, Bk, bytes) and its place in the records of Bk tokens.
template <bool kToRecords, typename Section, typename Record>
void transpose(Section* section, Record* record, std::uint32_t rows, std::uint32_t bytes, std::uint64_t record_bytes) {
  const auto move = [&](std::uint64_t row, std::uint64_t token, std::uint64_t size) {
    Section* const in_section = section + (row * kTokens + token) * size;
    Record* const in_record = record + token * record_bytes + row * size;
    if constexpr (kToRecords) {
      std::memcpy(in_record, in_section, size);
    } else {
      std::memcpy(in_section, in_record, size);
    }
  };
  if (bytes == 2) {
    if constexpr (kToRecords) {
      transpose_2_bytes(section, kTokens * 2, record, record_bytes, rows, kBlockTokens);
    } else {
      transpose_2_bytes(record, record_bytes, section, kTokens * 2, kBlockTokens, rows);
    }
  } else if (bytes == 4) {
    each_in_tiles<kToRecords>(rows, [&](std::uint64_t row, std::uint64_t token) { move(row, token, 4); });
  } else {
    each_in_tiles<kToRecords>(rows, [&](std::uint64_t row, std::uint64_t token) { move(row, token, bytes); });
  }
}

}  // namespace

KvPool::Sections KvPool::sections_of(kv_dtype dtype, std::uint32_t head_dim, bool is_keys) {
  if (!is_quantized_kv(dtype)) {
    const std::uint32_t value_bytes = dtype == KV_F32 ? 4 : 2;
    return {is_keys ? Section{head_dim, value_bytes} : Section{1, head_dim * value_bytes}};
  }
  const std::uint32_t groups = head_dim / kv_group_values(head_dim);
  const std::uint32_t code_bytes = dtype == KV_Q8 ? head_dim : head_dim / 2;
  const Section codes = is_keys ? Section{code_bytes / 4, 4} : Section{1, code_bytes};
  return {codes, Section{groups, 2}, dtype == KV_Q4 ? Section{groups, 2} : Section{}};
}

KvPool::KvPool(MemoryLedger& ledger, const std::vector<KvLayerShape>& layers, std::uint32_t n_groups,
               const std::uint32_t* n_blocks, kv_dtype dtype)
    : dtype_(dtype), groups_(n_groups) {
  for (const KvLayerShape& shape : layers) {
    const std::uint32_t record_bytes = kv_record_bytes(dtype, shape.head_dim);
    const std::uint64_t head_bytes = record_bytes * kTokens;
    const std::uint64_t block_bytes = 2 * head_bytes * shape.n_kv_heads;
    Group& group = groups_[shape.group];
    group.layers.push_back(static_cast<std::uint32_t>(layers_.size()));
    group.block_bytes += block_bytes;
    layers_.push_back({shape, sections_of(dtype, shape.head_dim, true), sections_of(dtype, shape.head_dim, false),
                       record_bytes, head_bytes, block_bytes, nullptr});
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
  const auto copy = [n_tokens](const Sections& sections, const std::byte* from, std::byte* to) {
    for (const Section& section : sections) {
      for (std::uint32_t row = 0; row < section.rows; ++row) {
        std::memcpy(to, from, std::uint64_t{n_tokens} * section.bytes);
        from += kTokens * section.bytes;
        to += kTokens * section.bytes;
      }
    }
  };
  for (const std::uint32_t layer : groups_[group].layers) {
    for (std::uint32_t head = 0; head < layers_[layer].shape.n_kv_heads; ++head) {
      copy(layers_[layer].keys, keys(layer, source, head), keys(layer, destination, head));
      copy(layers_[layer].values, values(layer, source, head), values(layer, destination, head));
    }
  }
}

// Calls visit(layer, offset of its payload) for this share of a group's layers.
template <typename Visit>
void KvPool::each_layer_of(std::uint32_t group, Share share, Visit&& visit) const {
  const std::vector<std::uint32_t>& layers = groups_[group].layers;
  const std::size_t first = layers.size() * share.member / share.members;
  const std::size_t end = layers.size() * (share.member + 1) / share.members;
  std::uint64_t offset = 0;
  for (std::size_t i = 0; i < end; ++i) {
    if (i >= first) visit(layers[i], offset);
    offset += layers_[layers[i]].block_bytes;
  }
}

void KvPool::to_records(const Layer& layer, const Sections& sections, const std::byte* head, std::byte* records) {
  if (sections[0].bytes == layer.record_bytes) {  // one section that lies as its records do
    std::memcpy(records, head, layer.head_bytes);
    return;
  }
  for (const Section& section : sections) {
    if (section.rows == 0) continue;
    transpose<true>(head, records, section.rows, section.bytes, layer.record_bytes);
    head += kTokens * section.rows * section.bytes;
    records += section.rows * section.bytes;
  }
}

void KvPool::from_records(const Layer& layer, const Sections& sections, const std::byte* records, std::byte* head) {
  if (sections[0].bytes == layer.record_bytes) {
    std::memcpy(head, records, layer.head_bytes);
    return;
  }
  for (const Section& section : sections) {
    if (section.rows == 0) continue;
    transpose<false>(head, records, section.rows, section.bytes, layer.record_bytes);
    head += kTokens * section.rows * section.bytes;
    records += section.rows * section.bytes;
  }
}

void KvPool::read_block(std::uint32_t group, std::uint32_t block, std::byte* payload, Share share) const {
  each_layer_of(group, share, [&](std::uint32_t index, std::uint64_t offset) {
    const Layer& layer = layers_[index];
    for (std::uint32_t head = 0; head < layer.shape.n_kv_heads; ++head) {
      std::byte* const records = payload + offset + head * layer.head_bytes;
      to_records(layer, layer.keys, keys(index, block, head), records);
      to_records(layer, layer.values, values(index, block, head), records + layer.block_bytes / 2);
    }
  });
}

void KvPool::write_block(std::uint32_t group, std::uint32_t block, const std::byte* payload, Share share) {
  each_layer_of(group, share, [&](std::uint32_t index, std::uint64_t offset) {
    const Layer& layer = layers_[index];
    for (std::uint32_t head = 0; head < layer.shape.n_kv_heads; ++head) {
      const std::byte* const records = payload + offset + head * layer.head_bytes;
      from_records(layer, layer.keys, records, keys(index, block, head));
      from_records(layer, layer.values, records + layer.block_bytes / 2, values(index, block, head));
    }
  });
}

}  // namespace kv::cpu
