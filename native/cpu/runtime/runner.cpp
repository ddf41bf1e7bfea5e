#include "cpu/runtime/runner.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/checks.h"
#include "host/model_check.h"

namespace kv::cpu {

namespace {

// Copies of batches held from the start: one running and one queued behind it.
constexpr int kStagedBatches = 2;

// Moves of at least this many bytes are shared among the team: below it, waking a helper takes longer than it saves.
constexpr std::uint64_t kSharedMoveBytes = std::uint64_t{1} << 20;

// A runner without work for this long counts as idle: longer than a client takes between two turns of a script.
constexpr std::chrono::milliseconds kIdleAfter{200};
// Collectors go on freeing for a while, so memory is given back again after pauses that double up to this one.
constexpr std::chrono::milliseconds kLongIdle{10'000};

const KernelTable& choose_kernels(const kv_runner_options& options) {
  const KernelTable* kernels = select_kernels(options.instruction_path);
  if (kernels == nullptr) {
    fail(KV_UNSUPPORTED, "instruction_path: expected auto or one of %s, found %s", available_instruction_paths(),
         options.instruction_path);
  }
  return *kernels;
}

std::uint32_t choose_threads(const kv_runner_options& options) {
  if (options.n_threads != 0) return options.n_threads;
  return std::clamp(std::thread::hardware_concurrency(), 1u, 64u);
}

// Both structs are checked before any member is built from them.
const kv_runner_options& checked(const kv_model* model, const kv_runner_options* options) {
  check_model(model);
  check_options(*model, options, true);
  if (options->activation_mode == KV_ACTIVATIONS_FAST) {
    fail(KV_UNSUPPORTED, "activation_mode: the CPU backend has no fast mode; choose quantized or float activations");
  }
  return *options;
}

BatchLimits limits_of(const Model& model, const kv_runner_options& options) {
  BatchLimits limits{};
  limits.max_tokens = options.max_batch_tokens;
  limits.max_sequences = options.max_batch_sequences;
  limits.max_blocks_per_sequence = options.max_blocks_per_sequence;
  limits.n_sampler_slots = options.n_sampler_slots;
  limits.vocabulary = model.vocabulary();
  limits.context_length = model.context_length();
  limits.n_groups = model.n_groups();
  bool full[KV_MAX_GROUPS] = {};
  for (const Layer& layer : model.layers()) {
    const kv_layer& shape = layer.shape;
    full[shape.group] = full[shape.group] || shape.window_tokens == 0;
    limits.window_tokens[shape.group] = std::max(limits.window_tokens[shape.group], shape.window_tokens);
  }
  for (std::uint32_t group = 0; group < limits.n_groups; ++group) {
    limits.n_blocks[group] = options.n_blocks[group];
    if (full[group]) limits.window_tokens[group] = 0;
  }
  return limits;
}

}  // namespace

Runner::Runner(const kv_model* model, const kv_runner_options* options, kv_progress_callback progress, void* user)
    : ledger_(checked(model, options).poison_pool != 0),
      kernels_(choose_kernels(*options)),
      mode_(static_cast<kv_activation_mode>(options->activation_mode)),
      model_(model, ledger_, progress, user),
      limits_(limits_of(model_, *options)),
      n_threads_(choose_threads(*options)),
      pool_(ledger_, model_.kv_shapes(), model_.n_groups(), options->n_blocks,
            static_cast<kv_dtype>(options->kv_dtype)),
      workspace_(ledger_, model_, limits_, n_threads_),
      output_(ledger_, kernels_, workspace_, limits_, n_threads_),
      team_(static_cast<int>(n_threads_)),
      forward_(model_, pool_, kernels_, team_, workspace_, limits_, mode_),
      gate_(ledger_, limits_) {
  for (int i = 0; i < kStagedBatches; ++i) {
    spare_steps_.emplace_back();
    spare_steps_.back().batch = std::make_unique<StagedBatch>(ledger_, limits_);
  }
  submission_thread_ = std::thread([this] { serve(); });
}

Runner::~Runner() {
  {
    const std::lock_guard lock(queue_mutex_);
    stopping_ = true;
  }
  queue_changed_.notify_one();
  submission_thread_.join();
}

const char* Runner::numerics_id() const {
  return mode_ == KV_ACTIVATIONS_FLOAT ? "cpu-1/float-activations" : "cpu-1/int8-activations";
}

kv_memory Runner::memory() const {
  kv_memory memory{};
  memory.size = sizeof memory;
  memory.weights_mapped_bytes = model_.mapped_bytes();
  memory.weights_repacked_bytes = ledger_.repacked_bytes;
  memory.kv_pool_bytes = ledger_.kv_pool_bytes;
  memory.workspace_bytes = ledger_.workspace_bytes;
  memory.allocations = ledger_.allocations;
  return memory;
}

std::uint64_t Runner::block_bytes(std::uint32_t group) const {
  check(group < model_.n_groups(), "group: expected below %u, found %u", model_.n_groups(), group);
  return pool_.payload_bytes(group);
}

// ------------------------------------------------------------------------------------------------------------ queue

void Runner::submit(const kv_batch* batch, kv_step_callback callback, void* user) {
  check(callback != nullptr, "callback: expected a function, found NULL");
  const std::lock_guard order(submit_mutex_);
  std::list<Job> job = take_spare_job();
  try {
    gate_.stage(batch, *job.front().batch);
  } catch (...) {
    const std::lock_guard lock(queue_mutex_);
    spare_steps_.splice(spare_steps_.end(), job);
    throw;
  }
  job.front().on_step = callback;
  job.front().user = user;
  enqueue(std::move(job));
}

void Runner::copy_blocks(std::uint32_t group, const std::int32_t* sources, const std::int32_t* destinations,
                         const std::int32_t* n_tokens, std::uint32_t count, kv_done_callback callback, void* user) {
  check_blocks(group, sources, count, "sources");
  check_blocks(group, destinations, count, "destinations");
  check(count == 0 || n_tokens != nullptr, "n_tokens: expected %u numbers, found NULL", count);
  for (std::uint32_t i = 0; i < count; ++i) {
    check(n_tokens[i] >= 0 && n_tokens[i] <= kBlockTokens, "n_tokens[%u]: expected 0 to %d, found %d", i, kBlockTokens,
          n_tokens[i]);
  }
  enqueue_blocks(Job::Kind::kCopy, group, sources, count, callback, user, [&](Job& job) {
    job.destinations.assign(destinations, destinations + count);
    job.n_tokens.assign(n_tokens, n_tokens + count);
  });
}

void Runner::read_blocks(std::uint32_t group, const std::int32_t* blocks, std::uint32_t count, void* data,
                         std::uint64_t bytes, kv_done_callback callback, void* user) {
  check_blocks(group, blocks, count, "blocks");
  check_payload(group, count, data, bytes);
  enqueue_blocks(Job::Kind::kRead, group, blocks, count, callback, user,
                 [&](Job& job) { job.read_to = static_cast<std::byte*>(data); });
}

void Runner::write_blocks(std::uint32_t group, const std::int32_t* blocks, std::uint32_t count, const void* data,
                          std::uint64_t bytes, kv_done_callback callback, void* user) {
  check_blocks(group, blocks, count, "blocks");
  check_payload(group, count, data, bytes);
  enqueue_blocks(Job::Kind::kWrite, group, blocks, count, callback, user,
                 [&](Job& job) { job.write_from = static_cast<const std::byte*>(data); });
}

void Runner::check_blocks(std::uint32_t group, const std::int32_t* blocks, std::uint32_t count,
                          const char* name) const {
  check(group < model_.n_groups(), "group: expected below %u, found %u", model_.n_groups(), group);
  check(count == 0 || blocks != nullptr, "%s: expected %u block ids, found NULL", name, count);
  for (std::uint32_t i = 0; i < count; ++i) {
    check(blocks[i] >= 0 && static_cast<std::uint32_t>(blocks[i]) < limits_.n_blocks[group],
          "%s[%u]: expected a block below %u, found %d", name, i, limits_.n_blocks[group], blocks[i]);
  }
}

void Runner::check_payload(std::uint32_t group, std::uint32_t count, const void* data, std::uint64_t bytes) const {
  std::uint64_t expected = 0;
  check(multiply(pool_.payload_bytes(group), count, &expected) && bytes == expected,
        "data: %u blocks of this group take %llu bytes, found %llu", count,
        static_cast<unsigned long long>(expected), static_cast<unsigned long long>(bytes));
  check(count == 0 || data != nullptr, "data: expected %llu bytes, found NULL", static_cast<unsigned long long>(bytes));
}

void Runner::enqueue_blocks(Job::Kind kind, std::uint32_t group, const std::int32_t* blocks, std::uint32_t count,
                            kv_done_callback callback, void* user, const std::function<void(Job&)>& complete) {
  check(callback != nullptr, "callback: expected a function, found NULL");
  std::list<Job> list(1);
  Job& job = list.front();
  job.kind = kind;
  job.group = group;
  job.blocks.assign(blocks, blocks + count);
  job.on_done = callback;
  job.user = user;
  complete(job);
  const std::lock_guard order(submit_mutex_);
  enqueue(std::move(list));
}

std::list<Runner::Job> Runner::take_spare_job() {
  std::list<Job> job;
  {
    const std::lock_guard lock(queue_mutex_);
    if (!spare_steps_.empty()) job.splice(job.end(), spare_steps_, spare_steps_.begin());
  }
  if (job.empty()) {
    job.emplace_back();
    job.back().batch = std::make_unique<StagedBatch>(ledger_, limits_);
  }
  return job;
}

void Runner::enqueue(std::list<Job>&& job) {
  {
    const std::lock_guard lock(queue_mutex_);
    queue_.splice(queue_.end(), job);
  }
  queue_changed_.notify_one();
}

// ----------------------------------------------------------------------------------------------- submission thread

void Runner::serve() {
  std::unique_lock lock(queue_mutex_);
  while (true) {
    wait_for_work(lock);
    if (queue_.empty()) return;
    std::list<Job> job;
    job.splice(job.end(), queue_, queue_.begin());
    const bool cancel = stopping_;
    lock.unlock();
    if (cancel) {
      report_failure(job.front(), KV_CANCELLED, "the runner was destroyed before this began");
    } else {
      run_job(job.front());
    }
    lock.lock();
    if (job.front().kind == Job::Kind::kStep) spare_steps_.splice(spare_steps_.end(), job);
  }
}

void Runner::wait_for_work(std::unique_lock<std::mutex>& lock) {
  const auto has_work = [this] { return stopping_ || !queue_.empty(); };
  for (auto pause = kIdleAfter; pause < kLongIdle; pause *= 2) {
    if (queue_changed_.wait_for(lock, pause, has_work)) return;
    lock.unlock();
    give_back_free_memory();
    lock.lock();
  }
  queue_changed_.wait(lock, has_work);
}

void Runner::run_job(Job& job) {
  const auto begin = std::chrono::steady_clock::now();
  kv_error error{};
  error.size = sizeof error;
  const kv_status status = abi_guard(&error, [&] {
    if (job.kind == Job::Kind::kStep) {
      run_step(*job.batch);
    } else {
      run_blocks(job);
    }
  });
  if (status != KV_OK) {
    if (job.kind == Job::Kind::kStep) output_.forget_samples();
    report_failure(job, status, error.message);
  } else if (job.kind == Job::Kind::kStep) {
    kv_step_result result = output_.result();
    result.execute_ns = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - begin).count());
    job.on_step(job.user, &result, nullptr);
  } else {
    job.on_done(job.user, nullptr);
  }
}

void Runner::report_failure(const Job& job, kv_status status, const char* message) {
  kv_error error{};
  error.size = sizeof error;
  fill_error(&error, status, message);
  if (job.kind == Job::Kind::kStep) {
    job.on_step(job.user, nullptr, &error);
  } else {
    job.on_done(job.user, &error);
  }
}

void Runner::run_step(StagedBatch& batch) {
  model_.check_files();
  std::copy_n(batch.token_ids.data(), batch.n_tokens, workspace_.token_ids.data());
  for (std::uint32_t row = 0; row < batch.n_sequences; ++row) {
    const std::int32_t input = batch.input_rows[row];
    if (input < 0) continue;
    const std::int32_t token = output_.sampled(static_cast<std::uint32_t>(input));
    check(token >= 0, "input_rows: row %u reads row %d of a batch that failed", row, input);
    workspace_.token_ids[static_cast<std::uint64_t>(batch.cu_seqlens[row])] = token;
  }
  const std::uint32_t n_wanted = output_.begin(batch);
  forward_.run(batch, n_wanted, output_);
  model_.check_files();
}

void Runner::run_blocks(const Job& job) {
  const std::uint64_t payload = pool_.payload_bytes(job.group);
  if (job.kind == Job::Kind::kCopy) {
    for (std::size_t i = 0; i < job.blocks.size(); ++i) {
      pool_.copy_block(job.group, static_cast<std::uint32_t>(job.blocks[i]),
                       static_cast<std::uint32_t>(job.destinations[i]), static_cast<std::uint32_t>(job.n_tokens[i]));
    }
    return;
  }
  const auto move = [&](KvPool::Share share) {
    for (std::size_t i = 0; i < job.blocks.size(); ++i) {
      const auto block = static_cast<std::uint32_t>(job.blocks[i]);
      if (job.kind == Job::Kind::kRead) {
        pool_.read_block(job.group, block, job.read_to + i * payload, share);
      } else {
        pool_.write_block(job.group, block, job.write_from + i * payload, share);
      }
    }
  };
  if (payload * job.blocks.size() < kSharedMoveBytes) {
    move({});
    return;
  }
  const auto members = static_cast<std::uint32_t>(team_.size());
  team_.run([&](int member) { move({static_cast<std::uint32_t>(member), members}); });
}

}  // namespace kv::cpu
