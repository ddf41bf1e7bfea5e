// Runner: one loaded model with its pool on the device, its submission thread, and the queue in front of it.
//
// The submission thread launches up to two steps before the first is done, so that the device goes from one to the next
// without the host; results come back in order. Between steps it polls, since waking up costs more than a step's launch.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cuda/runtime/block_mover.h"
#include "cuda/runtime/device.h"
#include "cuda/runtime/device_memory.h"
#include "cuda/runtime/device_model.h"
#include "cuda/runtime/forward.h"
#include "cuda/runtime/kv_pool.h"
#include "cuda/runtime/runner_limits.h"
#include "cuda/runtime/step_graphs.h"
#include "cuda/runtime/step_plan.h"
#include "cuda/runtime/workspace.h"
#include "host/batch.h"

namespace kv::cuda {

// Public methods may be called from any thread; callbacks run on the submission thread, in the order of the calls. The
// destructor must not run on the submission thread, that is, not inside a callback.
class Runner {
 public:
  Runner(const kv_model* model, const kv_runner_options* options, kv_progress_callback progress, void* user);
  ~Runner();

  const char* numerics_id() const;
  const char* instruction_path() const { return device_.instruction_path.c_str(); }
  kv_memory memory() const;
  std::uint64_t block_bytes(std::uint32_t group) const;

  void submit(const kv_batch* batch, kv_step_callback callback, void* user);
  void copy_blocks(std::uint32_t group, const std::int32_t* sources, const std::int32_t* destinations,
                   const std::int32_t* n_tokens, std::uint32_t count, kv_done_callback callback, void* user);
  void read_blocks(std::uint32_t group, const std::int32_t* blocks, std::uint32_t count, void* data,
                   std::uint64_t bytes, kv_done_callback callback, void* user);
  void write_blocks(std::uint32_t group, const std::int32_t* blocks, std::uint32_t count, const void* data,
                    std::uint64_t bytes, kv_done_callback callback, void* user);

 private:
  static constexpr std::size_t kInFlight = kStepsInFlight;

  // What belongs to a launched step until its result is delivered.
  struct Flight {
    PinnedBuffer<std::byte> input, output;
    Event done;
    StepPlan plan;
    std::vector<Wanted> wanted;
    Buffer<float> logits;                   // (rows returned, V); only while a step returns some
    std::vector<std::uint32_t> logits_tokens;
    std::vector<std::uint8_t> stops;        // (S)
    std::vector<std::shared_ptr<const SamplerSlot>> samplers;  // (S) of the rows that sample
    std::uint64_t began_ns = 0;
  };

  struct Job {
    enum class Kind { kStep, kCopy, kRead, kWrite } kind = Kind::kStep;
    std::unique_ptr<StagedBatch> batch;
    std::uint32_t group = 0;
    std::vector<std::int32_t> blocks, destinations, n_tokens;
    std::byte* read_to = nullptr;
    const std::byte* write_from = nullptr;
    kv_step_callback on_step = nullptr;
    kv_done_callback on_done = nullptr;
    void* user = nullptr;
    Flight* flight = nullptr;
    bool lands_later = false;  // a read of which the copies from the device are queued
    kv_status status = KV_OK;  // of its launch
    std::string message;
  };

  void serve();
  bool may_start(const Job& job) const;
  void start(Job& job);
  void start_step(Job& job);
  void start_blocks(Job& job);
  void check_residency();
  void admit(StagedBatch& batch);
  void send_masks(const StagedBatch& batch, const Flight& flight);
  bool is_due(Job& oldest);
  void finish(Job& job);
  void deliver_step(Job& job);
  static void report_failure(const Job& job, kv_status status, const char* message);
  std::list<Job> take_spare_job();
  void enqueue(std::list<Job>&& job);
  void enqueue_blocks(Job::Kind kind, std::uint32_t group, const std::int32_t* blocks, std::uint32_t count,
                      kv_done_callback callback, void* user, const std::function<void(Job&)>& complete);
  void check_blocks(std::uint32_t group, const std::int32_t* blocks, std::uint32_t count, const char* name) const;
  void check_payload(std::uint32_t group, std::uint32_t count, const void* data, std::uint64_t bytes) const;

  const DeviceInfo device_;
  DeviceLedger ledger_;
  MemoryLedger host_ledger_;
  const kv_activation_mode mode_;
  DeviceModel model_;
  const PlanLimits limits_;
  KvPool pool_;
  Workspace space_;
  const std::unique_ptr<const LibraryProducts> library_;  // of the fast mode
  Forward forward_;
  Stream stream_;
  StepGraphs graphs_;
  Flight flights_[kInFlight];
  std::size_t next_flight_ = 0;
  DeviceBuffer<std::int32_t> block_lists_;  // of block copies
  BlockMover mover_;
  std::vector<std::shared_ptr<const SamplerSlot>> slots_;
  std::vector<std::uint32_t> slot_logprobs_;
  std::vector<std::int32_t> admission_;  // entries on their way to a slot
  bool previous_step_failed_ = true;
  std::uint64_t steps_until_residency_ = 0;
  std::uint64_t last_finish_ns_ = 0;

  std::mutex submit_mutex_;  // orders checks against the queue; taken before queue_mutex_
  BatchGate gate_;
  std::mutex queue_mutex_;
  std::condition_variable queue_changed_;
  std::list<Job> queue_;
  std::list<Job> spare_steps_;
  std::list<Job> flying_;  // launched, oldest first; the submission thread's own
  std::size_t n_steps_flying_ = 0;
  bool stopping_ = false;
  std::thread submission_thread_;
};

}  // namespace kv::cuda
