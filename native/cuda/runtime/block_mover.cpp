#include "cuda/runtime/block_mover.h"

#include <algorithm>
#include <cstring>

namespace kv::cuda {

namespace {

// Below this a copy is done before helpers wake up.
constexpr std::uint64_t kSharedBytes = std::uint64_t{1} << 20;

}  // namespace

ParallelCopy::ParallelCopy() {
  const unsigned cores = std::max(2u, std::thread::hardware_concurrency());
  const std::size_t count = std::min<std::size_t>(kHelpers, cores / 2);
  for (std::size_t i = 0; i < count; ++i) helpers_.emplace_back([this, i] { serve(i); });
}

ParallelCopy::~ParallelCopy() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  begun_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ParallelCopy::copy_share(std::size_t index) const {
  const std::uint64_t shares = helpers_.size() + 1, share = (bytes_ / shares + 4095) / 4096 * 4096;
  const std::uint64_t begin = std::min(bytes_, share * index);
  const std::uint64_t end = index + 1 == shares ? bytes_ : std::min(bytes_, begin + share);
  std::memcpy(to_ + begin, from_ + begin, end - begin);
}

void ParallelCopy::serve(std::size_t index) {
  std::uint64_t seen = 0;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      begun_.wait(lock, [&] { return stopping_ || round_ != seen; });
      if (stopping_) return;
      seen = round_;
    }
    copy_share(index);
    const std::lock_guard lock(mutex_);
    if (--busy_ == 0) ended_.notify_one();
  }
}

void ParallelCopy::copy(std::byte* to, const std::byte* from, std::uint64_t bytes) {
  if (bytes < kSharedBytes) {
    std::memcpy(to, from, bytes);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    to_ = to;
    from_ = from;
    bytes_ = bytes;
    busy_ = helpers_.size();
    ++round_;
  }
  begun_.notify_all();
  copy_share(helpers_.size());
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [&] { return busy_ == 0; });
}

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
  stream_.synchronize();
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
