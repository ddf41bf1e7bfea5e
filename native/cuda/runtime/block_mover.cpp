#include "cuda/runtime/block_mover.h"

#include <algorithm>

namespace kv::cuda {

BlockMover::BlockMover(DeviceLedger& ledger) {
  const auto allocate = [&](Slot& slot) { slot.memory = PinnedBuffer<std::byte>(ledger, kSlotBytes, "block staging"); };
  for (Slot& slot : slots_) allocate(slot);
  for (Slot& slot : read_slots_) allocate(slot);
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

std::vector<BlockMover::Part> BlockMover::parts_of(const std::vector<BlockPiece>& pieces, std::uint64_t bytes) {
  std::vector<Part> parts;
  for (const BlockPiece& piece : pieces) {
    for (std::uint64_t at = 0; at < bytes; at += kSlotBytes) {
      parts.push_back({piece.device + at, piece.read_to + at, std::min(kSlotBytes, bytes - at)});
    }
  }
  return parts;
}

void BlockMover::fetch(const Part& part, const Slot& slot) const {
  check_cuda(cudaMemcpyAsync(slot.memory.data(), part.device, part.bytes, cudaMemcpyDeviceToHost, stream_.get()),
             "read a block");
  slot.done.record(stream_.get());
}

void BlockMover::read(const std::vector<BlockPiece>& pieces, std::uint64_t bytes, cudaStream_t steps) {
  follow(steps, stream_.get());
  const std::vector<Part> parts = parts_of(pieces, bytes);
  for (std::size_t i = 0; i < std::min(kSlots, parts.size()); ++i) fetch(parts[i], slots_[i]);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Slot& slot = slots_[i % kSlots];
    slot.done.synchronize();
    copy_.copy(parts[i].to, slot.memory.data(), parts[i].bytes);
    if (i + kSlots < parts.size()) fetch(parts[i + kSlots], slot);
  }
}

bool BlockMover::begin_read(const std::vector<BlockPiece>& pieces, std::uint64_t bytes, cudaStream_t steps) {
  BegunRead begun{parts_of(pieces, bytes), next_read_slot_, 0};
  const std::size_t count = begun.parts.size();
  if (count == 0 || count > kReadSlots - n_taken_) return false;
  follow(steps, stream_.get());
  for (std::size_t i = 0; i < count; ++i) fetch(begun.parts[i], read_slots_[(next_read_slot_ + i) % kReadSlots]);
  follow(stream_.get(), steps);
  next_read_slot_ = (next_read_slot_ + count) % kReadSlots;
  n_taken_ += count;
  reads_.push_back(std::move(begun));
  return true;
}

bool BlockMover::land(bool waits) {
  BegunRead& begun = reads_.front();
  const Slot& slot = read_slots_[(begun.first_slot + begun.landed) % kReadSlots];
  try {
    if (!waits && !slot.done.is_done()) return false;
    slot.done.synchronize();
  } catch (...) {
    forget_oldest_read();
    throw;
  }
  const Part& part = begun.parts[begun.landed];
  copy_.copy(part.to, slot.memory.data(), part.bytes);
  if (++begun.landed < begun.parts.size()) return false;
  forget_oldest_read();
  return true;
}

void BlockMover::forget_oldest_read() {
  n_taken_ -= reads_.front().parts.size();
  reads_.pop_front();
}

}  // namespace kv::cuda
