// Runner: one loaded model with its pool, its submission thread and the queue in front of it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "host/batch.h"
#include "cpu/runtime/forward.h"
#include "cpu/runtime/kv_pool.h"
#include "host/memory.h"
#include "cpu/runtime/model.h"
#include "cpu/runtime/step_output.h"
#include "cpu/runtime/thread_team.h"
#include "cpu/runtime/workspace.h"

namespace kv::cpu {

// Public methods may be called from any thread; callbacks run on the submission thread, in the order of the calls. The
// destructor must not run on the submission thread, that is, not inside a callback.
class Runner {
 public:
  Runner(const kv_model* model, const kv_runner_options* options, kv_progress_callback progress, void* user);
  ~Runner();

  const char* numerics_id() const;
  const char* instruction_path() const { return kernels_.name; }
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
  // Queued work. Jobs are reused, with the batch copy they own, so that a steady stream of steps allocates nothing.
  struct Job {
    enum class Kind { kStep, kCopy, kRead, kWrite } kind = Kind::kStep;
    std::unique_ptr<StagedBatch> batch;
    std::uint32_t group = 0;
    std::vector<std::int32_t> blocks;        // sources, or the blocks read or written
    std::vector<std::int32_t> destinations;  // of copies
    std::vector<std::int32_t> n_tokens;      // of copies
    std::byte* read_to = nullptr;
    const std::byte* write_from = nullptr;
    kv_step_callback on_step = nullptr;
    kv_done_callback on_done = nullptr;
    void* user = nullptr;
  };

  void serve();
  void wait_for_work(std::unique_lock<std::mutex>& lock);
  void run_job(Job& job);
  void run_step(StagedBatch& batch);
  void run_blocks(const Job& job);
  static void report_failure(const Job& job, kv_status status, const char* message);
  std::list<Job> take_spare_job();
  void enqueue(std::list<Job>&& job);
  void enqueue_blocks(Job::Kind kind, std::uint32_t group, const std::int32_t* blocks, std::uint32_t count,
                      kv_done_callback callback, void* user, const std::function<void(Job&)>& complete);
  void check_blocks(std::uint32_t group, const std::int32_t* blocks, std::uint32_t count, const char* name) const;
  void check_payload(std::uint32_t group, std::uint32_t count, const void* data, std::uint64_t bytes) const;

  MemoryLedger ledger_;
  const KernelTable& kernels_;
  const kv_activation_mode mode_;
  Model model_;
  const BatchLimits limits_;
  const std::uint32_t n_threads_;
  KvPool pool_;
  Workspace workspace_;
  StepOutput output_;
  ThreadTeam team_;
  Forward forward_;

  std::mutex submit_mutex_;  // orders checks against the queue; taken before queue_mutex_
  BatchGate gate_;
  std::mutex queue_mutex_;
  std::condition_variable queue_changed_;
  std::list<Job> queue_;
  std::list<Job> spare_steps_;
  bool stopping_ = false;
  std::thread submission_thread_;
};

}  // namespace kv::cpu
