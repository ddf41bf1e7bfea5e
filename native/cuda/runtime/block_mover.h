// BlockMover: blocks between the pool and the caller's ordinary memory, through a ring of pinned buffers on a stream of its
// own.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "cuda/runtime/device.h"
#include "cuda/runtime/device_memory.h"
#include "cuda/runtime/parallel_copy.h"

namespace kv::cuda {

// One piece of device memory and its place in the caller's.
struct BlockPiece {
  std::uint8_t* device;
  std::byte* read_to;
  const std::byte* write_from;
};

// Used by the submission thread alone.
class BlockMover {
 public:
  explicit BlockMover(DeviceLedger& ledger);
  ~BlockMover();

  static constexpr std::uint64_t pinned_bytes() { return (kSlots + kReadSlots) * kSlotBytes; }

  // Moves `pieces` of `bytes` each after everything queued on `steps`; returns when the caller's memory is done with. A
  // write may then still be under way from pinned memory: the next one's copying need not wait for it, and what is queued
  // on `steps` afterwards sees what was written. A copy that fails then shows with the next move or step.
  void write(const std::vector<BlockPiece>& pieces, std::uint64_t bytes, cudaStream_t steps);
  void read(const std::vector<BlockPiece>& pieces, std::uint64_t bytes, cudaStream_t steps);

  // A read in two halves, between which steps are launched and run: `begin_read` queues the copies to pinned memory, before
  // whatever is queued on `steps` afterwards, and `land` copies on from there. False, and nothing done, where the buffers
  // that other reads have not landed from leave too little room.
  bool begin_read(const std::vector<BlockPiece>& pieces, std::uint64_t bytes, cudaStream_t steps);
  // Lands one slot's share of the oldest read, if it has arrived or `waits`. True when that read is over.
  bool land(bool waits);

 private:
  static constexpr std::uint64_t kSlotBytes = std::uint64_t{8} << 20;
  // Of reads in two halves as many as the blocks that a step of 2,048 tokens takes from others, at up to 16 MiB each.
  static constexpr std::size_t kSlots = 4, kReadSlots = 16;
  struct Slot {
    PinnedBuffer<std::byte> memory;
    Event done;
  };
  struct Part {
    const std::uint8_t* device;
    std::byte* to;
    std::uint64_t bytes;
  };
  struct BegunRead {
    std::vector<Part> parts;
    std::size_t first_slot, landed;
  };
  static std::vector<Part> parts_of(const std::vector<BlockPiece>& pieces, std::uint64_t bytes);
  void fetch(const Part& part, const Slot& slot) const;
  void forget_oldest_read();
  void follow(cudaStream_t first, cudaStream_t second) const;

  Stream stream_;
  Event order_;
  Slot slots_[kSlots];
  // A ring: reads take slots in the order they begin and give them back in that order.
  Slot read_slots_[kReadSlots];
  std::size_t next_read_slot_ = 0, n_taken_ = 0;
  std::deque<BegunRead> reads_;
  ParallelCopy copy_;
};

}  // namespace kv::cuda
