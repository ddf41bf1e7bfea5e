// BlockMover: blocks between the pool and the caller's ordinary memory, through a ring of pinned buffers on a stream of its
// own.
#pragma once

#include <cstdint>
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

  static constexpr std::uint64_t pinned_bytes() { return (1 + kReads) * kSlots * kSlotBytes; }

  // Moves `pieces` of `bytes` each after everything queued on `steps`; returns when the caller's memory is done with. A
  // write may then still be under way from pinned memory: the next one's copying need not wait for it, and what is queued
  // on `steps` afterwards sees what was written. A copy that fails then shows with the next move or step.
  void write(const std::vector<BlockPiece>& pieces, std::uint64_t bytes, cudaStream_t steps);
  void read(const std::vector<BlockPiece>& pieces, std::uint64_t bytes, cudaStream_t steps);

  // A read in two halves, between which steps are launched and run: `begin_read` queues the copies to pinned memory, before
  // whatever is queued on `steps` afterwards, and `land` copies on from there. False, and nothing done, where the pieces
  // are too large for that or kReads have begun and not landed.
  bool begin_read(const std::vector<BlockPiece>& pieces, std::uint64_t bytes, cudaStream_t steps);
  // Lands one slot's share of the oldest read, if it has arrived or `waits`. True when that read is over.
  bool land(bool waits);

  static constexpr std::size_t kReads = 2;

 private:
  static constexpr std::uint64_t kSlotBytes = std::uint64_t{8} << 20;
  static constexpr std::size_t kSlots = 4;
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
    Slot slots[kSlots];
    std::vector<Part> parts;
    std::size_t landed = 0;
  };
  static std::vector<Part> parts_of(const std::vector<BlockPiece>& pieces, std::uint64_t bytes);
  void fetch(const Part& part, const Slot& slot) const;
  void forget_oldest_read();
  void follow(cudaStream_t first, cudaStream_t second) const;

  Stream stream_;
  Event order_;
  Slot slots_[kSlots];
  BegunRead reads_[kReads];
  std::size_t first_read_ = 0, n_reads_ = 0;
  ParallelCopy copy_;
};

}  // namespace kv::cuda
