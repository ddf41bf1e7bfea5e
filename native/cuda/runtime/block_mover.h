// BlockMover: blocks between the pool and the caller's ordinary memory, through a ring of pinned buffers on a stream of its
// own. The host's half of a copy is shared out over a few threads, since one cannot keep up with the bus.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "cuda/runtime/device.h"
#include "cuda/runtime/device_memory.h"

namespace kv::cuda {

// memcpy over the calling thread and helpers that sleep in between. One call at a time.
class ParallelCopy {
 public:
  ParallelCopy();
  ~ParallelCopy();
  ParallelCopy(const ParallelCopy&) = delete;
  void copy(std::byte* to, const std::byte* from, std::uint64_t bytes);

 private:
  static constexpr std::size_t kHelpers = 5;
  void serve(std::size_t index);
  void copy_share(std::size_t index) const;

  std::mutex mutex_;
  std::condition_variable begun_, ended_;
  std::byte* to_ = nullptr;
  const std::byte* from_ = nullptr;
  std::uint64_t bytes_ = 0, round_ = 0;
  std::size_t busy_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> helpers_;
};

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

  static constexpr std::uint64_t pinned_bytes() { return kSlots * kSlotBytes; }

  // Moves `pieces` of `bytes` each after everything queued on `steps`; returns when the caller's memory is done with.
  // What is queued on `steps` afterwards sees what was written.
  void write(const std::vector<BlockPiece>& pieces, std::uint64_t bytes, cudaStream_t steps);
  void read(const std::vector<BlockPiece>& pieces, std::uint64_t bytes, cudaStream_t steps);

 private:
  static constexpr std::uint64_t kSlotBytes = std::uint64_t{8} << 20;
  static constexpr std::size_t kSlots = 4;
  struct Slot {
    PinnedBuffer<std::byte> memory;
    Event done;
  };
  void follow(cudaStream_t first, cudaStream_t second) const;

  Stream stream_;
  Event order_;
  Slot slots_[kSlots];
  ParallelCopy copy_;
};

}  // namespace kv::cuda
