#include "cuda/runtime/block_mover.h"

#include <algorithm>

namespace kv::cuda {

BlockMover::BlockMover(DeviceLedger& ledger) {
  for (Slot& slot : slots_) slot.memory = PinnedBuffer<std::byte>(ledger, kSlotBytes, "block staging");
}

BlockMover::~BlockMover() { cudaStreamSynchronize(stream_.get()); }

void BlockMover::follow(cudaStream_t first, cudaStream_t second) const {
  order_.record(first);
  check_cuda(cudaStreamWaitEvent(second, order_.get()), "order copies and steps");
}

void BlockMover::write(const std::vector<BlockPiece>& pieces, std::uint64_t bytes, cudaStream_t steps) {
  follow(steps, stream_.get());
  std::size_t next = 0;
  for (const BlockPiece& piece : pieces) {
    for (std::uint64_t at = 0; at < bytes; at += kSlotBytes) {
      const std::uint64_t count = std::min(kSlotBytes, bytes - at);
      Slot& slot = slots_[next++ % kSlots];
      slot.done.synchronize();
      copy_.copy(slot.memory.data(), piece.write_from + at, count);
      check_cuda(cudaMemcpyAsync(piece.device + at, slot.memory.data(), count, cudaMemcpyHostToDevice, stream_.get()),
                 "write a block");
      slot.done.record(stream_.get());
    }
  }
  follow(stream_.get(), steps);
}

void BlockMover::read(const std::vector<BlockPiece>& pieces, std::uint64_t bytes, cudaStream_t steps) {
  follow(steps, stream_.get());
  struct Part {
    const std::uint8_t* device;
    std::byte* to;
    std::uint64_t bytes;
  };
  std::vector<Part> parts;
  for (const BlockPiece& piece : pieces) {
    for (std::uint64_t at = 0; at < bytes; at += kSlotBytes) {
      parts.push_back({piece.device + at, piece.read_to + at, std::min(kSlotBytes, bytes - at)});
    }
  }
  const auto fetch = [&](std::size_t i) {
    Slot& slot = slots_[i % kSlots];
    check_cuda(cudaMemcpyAsync(slot.memory.data(), parts[i].device, parts[i].bytes, cudaMemcpyDeviceToHost,
                               stream_.get()), "read a block");
    slot.done.record(stream_.get());
  };
  for (std::size_t i = 0; i < std::min(kSlots, parts.size()); ++i) fetch(i);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Slot& slot = slots_[i % kSlots];
    slot.done.synchronize();
    copy_.copy(parts[i].to, slot.memory.data(), parts[i].bytes);
    if (i + kSlots < parts.size()) fetch(i + kSlots);
  }
}

}  // namespace kv::cuda
