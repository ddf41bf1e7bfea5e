#include "cuda/runtime/runner.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <utility>

#include "common/checks.h"
#include "cuda/runtime/memory_plan.h"
#include "host/block_tokens.h"

namespace kv::cuda {

namespace {

// Copies of batches held from the start: two flying and one queued behind them.
constexpr int kStagedBatches = 3;
// Steps between two looks at where the runner's memory lies.
constexpr std::uint64_t kResidencySteps = 1024;
// Blocks of one copy command that go to the device at a time.
constexpr std::uint32_t kCopyChunk = kBlockListEntries / 3;

// All that can be refused is, before anything large is allocated.
DeviceInfo prepared_device(const kv_model* model, const kv_runner_options* options) {
  DeviceInfo device = checked_device(model, options);
  configure_device();
  check_memory(plan_memory(*model, *options));
  return device;
}

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count());
}

}  // namespace

Runner::Runner(const kv_model* model, const kv_runner_options* options, kv_progress_callback progress, void* user)
    : device_(prepared_device(model, options)),
      ledger_(options->poison_pool != 0),
      host_ledger_(options->poison_pool != 0),
      mode_(static_cast<kv_activation_mode>(options->activation_mode)),
      model_(*model, ledger_, progress, user),
      limits_(limits_of(*model, model_, *options)),
      pool_(ledger_, model_, options->n_blocks, static_cast<kv_dtype>(options->kv_dtype)),
      space_(ledger_, model_, limits_),
      library_(mode_ == KV_ACTIVATIONS_FAST
                   ? std::make_unique<const LibraryProducts>(ledger_, model_, limits_.batch.max_tokens)
                   : nullptr),
      forward_(model_, pool_, space_, limits_, mode_, library_.get()),
      block_lists_(ledger_, ledger_.workspace_bytes, kBlockListEntries, "block lists"),
      mover_(ledger_),
      slots_(options->n_sampler_slots),
      slot_logprobs_(options->n_sampler_slots, 0),
      gate_(host_ledger_, limits_.batch) {
  for (Flight& flight : flights_) {
    flight.input = PinnedBuffer<std::byte>(ledger_, input_capacity(limits_), "step input");
    flight.output = PinnedBuffer<std::byte>(ledger_, output_capacity(limits_), "step output");
    flight.wanted.reserve(limits_.batch.max_tokens);
    flight.logits_tokens.reserve(limits_.batch.max_tokens);
    flight.stops.reserve(limits_.batch.max_sequences);
    flight.samplers.resize(limits_.batch.max_sequences);
  }
  for (int i = 0; i < kStagedBatches; ++i) {
    spare_steps_.emplace_back();
    spare_steps_.back().batch = std::make_unique<StagedBatch>(host_ledger_, limits_.batch);
  }
  ledger_.verify_residency();
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
  if (mode_ == KV_ACTIVATIONS_FAST) return "cuda-3/fast";
  return mode_ == KV_ACTIVATIONS_FLOAT ? "cuda-3/float-activations" : "cuda-3/f16-operands";
}

kv_memory Runner::memory() const {
  kv_memory memory{};
  memory.size = sizeof memory;
  memory.weights_repacked_bytes = ledger_.weights_bytes;
  memory.kv_pool_bytes = ledger_.kv_pool_bytes;
  memory.workspace_bytes = ledger_.workspace_bytes;
  memory.pinned_bytes = ledger_.pinned_bytes;
  memory.host_bytes = host_ledger_.workspace_bytes;
  memory.allocations = ledger_.allocations + host_ledger_.allocations;
  memory.residency_checks = ledger_.residency_checks;
  memory.residency_failures = ledger_.residency_failures;
  return memory;
}

std::uint64_t Runner::block_bytes(std::uint32_t group) const {
  check(group < limits_.batch.n_groups, "group: expected below %u, found %u", limits_.batch.n_groups, group);
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
  check(group < limits_.batch.n_groups, "group: expected below %u, found %u", limits_.batch.n_groups, group);
  check(count == 0 || blocks != nullptr, "%s: expected %u block ids, found NULL", name, count);
  for (std::uint32_t i = 0; i < count; ++i) {
    check(blocks[i] >= 0 && static_cast<std::uint32_t>(blocks[i]) < limits_.batch.n_blocks[group],
          "%s[%u]: expected a block below %u, found %d", name, i, limits_.batch.n_blocks[group], blocks[i]);
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
    job.back().batch = std::make_unique<StagedBatch>(host_ledger_, limits_.batch);
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
  while (true) {
    std::list<Job> job;
    bool cancel = false;
    {
      std::unique_lock lock(queue_mutex_);
      if (flying_.empty()) queue_changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (!queue_.empty() && may_start(queue_.front())) job.splice(job.end(), queue_, queue_.begin());
      cancel = stopping_;
      if (job.empty() && flying_.empty()) return;
    }
    if (!job.empty() && !cancel) {
      start(job.front());
      if (job.front().kind == Job::Kind::kStep) ++n_steps_flying_;
      flying_.splice(flying_.end(), job);
      continue;
    }
    // Poll the oldest unless nothing else could be started meanwhile; a cancelled job waits for those before it.
    if (!flying_.empty()) {
      const bool polls = job.empty() && n_steps_flying_ < kInFlight;
      if (polls && !is_due(flying_.front())) {
        std::this_thread::yield();
        continue;
      }
      while (!flying_.empty()) {
        finish(flying_.front());
        std::list<Job> finished;
        finished.splice(finished.end(), flying_, flying_.begin());
        if (finished.front().kind == Job::Kind::kStep) {
          --n_steps_flying_;
          const std::lock_guard lock(queue_mutex_);
          spare_steps_.splice(spare_steps_.end(), finished);
        }
        if (job.empty()) break;
      }
    }
    if (job.empty()) continue;
    report_failure(job.front(), KV_CANCELLED, "the runner was destroyed before this began");
    if (job.front().kind == Job::Kind::kStep) {
      const std::lock_guard lock(queue_mutex_);
      spare_steps_.splice(spare_steps_.end(), job);
    }
  }
}

// A step needs a flight of its own; moved blocks never keep one from being launched.
bool Runner::may_start(const Job& job) const { return job.kind != Job::Kind::kStep || n_steps_flying_ < kInFlight; }

// Launches; a failure is kept with the job and told in its turn.
void Runner::start(Job& job) {
  kv_error error{};
  error.size = sizeof error;
  job.flight = nullptr;
  job.status = abi_guard(&error, [&] {
    if (job.kind == Job::Kind::kStep) {
      start_step(job);
    } else {
      start_blocks(job);
    }
  });
  if (job.status != KV_OK) job.message = error.message;
  if (job.kind == Job::Kind::kStep) previous_step_failed_ = job.status != KV_OK;
}

void Runner::start_step(Job& job) {
  StagedBatch& batch = *job.batch;
  check_residency();
  Flight& flight = flights_[next_flight_];
  next_flight_ = (next_flight_ + 1) % kInFlight;
  admit(batch);
  for (std::uint32_t row = 0; row < batch.n_sequences; ++row) {
    check(batch.input_rows[row] < 0 || !previous_step_failed_, "input_rows: row %u reads row %d of a batch that failed",
          row, batch.input_rows[row]);
    const bool samples = (batch.row_flags[row] & KV_ROW_SAMPLE) != 0;
    flight.samplers[row] = samples ? slots_[static_cast<std::size_t>(batch.sampler_slots[row])] : nullptr;
  }
  flight.began_ns = now_ns();
  flight.plan = plan_step(limits_, batch, slot_logprobs_, flight.wanted, flight.input.data());
  const StepPlan& plan = flight.plan;
  check_cuda(cudaMemcpyAsync(space_.input.data(), flight.input.data(), plan.input_bytes, cudaMemcpyHostToDevice,
                             stream_.get()), "send a step");
  send_masks(batch, flight);
  flight.logits_tokens.clear();
  for (const Wanted& wanted : flight.wanted) {
    if (wanted.returned) flight.logits_tokens.push_back(static_cast<std::uint32_t>(wanted.token));
  }
  const bool returns = !flight.logits_tokens.empty();
  const std::uint64_t n_logits = buffer_product("returned logits", flight.logits_tokens.size(), limits_.batch.vocabulary);
  if (n_logits == 0 || n_logits > flight.logits.size()) flight.logits = {};
  if (n_logits > flight.logits.size()) {
    flight.logits = Buffer<float>(host_ledger_, host_ledger_.workspace_bytes, n_logits, "returned logits");
  }
  float* logits = returns ? flight.logits.data() : nullptr;
  const auto launch = [&](cudaStream_t stream) { forward_.launch(plan, flight.wanted, logits, stream); };
  if (plan.n_tokens == plan.n_sequences && plan.n_wanted == plan.n_sequences && !returns) {
    graphs_.run(plan, stream_.get(), launch);
  } else {
    launch(stream_.get());
  }
  check_cuda(cudaMemcpyAsync(flight.output.data(), space_.output.data(), plan.output_bytes, cudaMemcpyDeviceToHost,
                             stream_.get()), "return a step's results");
  flight.done.record(stream_.get());
  job.flight = &flight;
}

void Runner::check_residency() {
  if (steps_until_residency_ > 0) {
    --steps_until_residency_;
    return;
  }
  ledger_.verify_residency();  // throws: the next step asks again
  steps_until_residency_ = kResidencySteps;
}

void Runner::admit(StagedBatch& batch) {
  const std::uint64_t V = limits_.batch.vocabulary;
  for (SamplerSlot& sampler : batch.samplers) {
    const kv_sampler& params = sampler.params;
    const std::uint32_t slot = params.slot;
    std::uint32_t* counts = space_.counts.data() + slot * V;
    float* biases = space_.biases.data() + slot * V;
    clear_slot(counts, biases, static_cast<std::int32_t>(V), stream_.get());
    const auto send = [&] {
      check_cuda(cudaMemcpyAsync(space_.entries.data(), admission_.data(), admission_.size() * sizeof(std::int32_t),
                                 cudaMemcpyHostToDevice, stream_.get()), "send a sampler");
      return static_cast<std::int32_t>(admission_.size() / 2);
    };
    admission_.clear();
    for (const TokenCounts::Entry& entry : sampler.counts.entries()) {
      if (entry.token < 0) continue;
      admission_.push_back(entry.token);
      admission_.push_back(static_cast<std::int32_t>((entry.in_prompt != 0 ? 0x80000000u : 0u) |
                                                     std::min(entry.outputs, 0x7fffffffu)));
    }
    if (!admission_.empty()) set_counts(counts, space_.entries.data(), send(), stream_.get());
    for (std::size_t begin = 0; begin < sampler.bias.size(); begin += V) {
      const std::size_t end = std::min<std::size_t>(sampler.bias.size(), begin + V);
      admission_.clear();
      for (std::size_t i = begin; i < end; ++i) {
        admission_.push_back(sampler.bias[i].first);
        admission_.push_back(std::bit_cast<std::int32_t>(sampler.bias[i].second));
      }
      add_biases(biases, space_.entries.data(), send(), stream_.get());
    }
    const SlotParams sent{params.seed, params.temperature, params.top_p, params.min_p, params.repetition_penalty,
                          params.frequency_penalty, params.presence_penalty, params.top_k, params.n_logprobs,
                          params.report_logprob, sampler.bias.empty() ? 0u : 1u,
                          sampler.counts.entries().empty() ? 0u : 1u};
    check_cuda(cudaMemcpyAsync(space_.slots.data() + slot, &sent, sizeof sent, cudaMemcpyHostToDevice, stream_.get()),
               "send a sampler");
    slot_logprobs_[slot] = params.n_logprobs;
    slots_[slot] = std::make_shared<const SamplerSlot>(std::move(sampler));
  }
  batch.samplers.clear();
}

void Runner::send_masks(const StagedBatch& batch, const Flight&) {
  const std::uint64_t words = (std::uint64_t{limits_.batch.vocabulary} + 31) / 32;
  std::uint64_t n_masks = 0;
  for (std::uint32_t row = 0; row < batch.masks.size(); ++row) {
    if (batch.masks[row].empty() || (batch.row_flags[row] & KV_ROW_SAMPLE) == 0) continue;
    check_cuda(cudaMemcpyAsync(space_.masks.data() + n_masks++ * words, batch.masks[row].data(),
                               words * sizeof(std::uint32_t), cudaMemcpyHostToDevice, stream_.get()), "send a mask");
  }
}

void Runner::start_blocks(Job& job) {
  const std::uint64_t payload = pool_.payload_bytes(job.group);
  if (job.kind == Job::Kind::kCopy) {
    const std::size_t count = job.blocks.size();
    for (std::size_t begin = 0; begin < count; begin += kCopyChunk) {
      const std::size_t n = std::min<std::size_t>(kCopyChunk, count - begin);
      const std::vector<std::int32_t>* lists[] = {&job.blocks, &job.destinations, &job.n_tokens};
      for (std::size_t i = 0; i < 3; ++i) {
        check_cuda(cudaMemcpyAsync(block_lists_.data() + i * kCopyChunk, lists[i]->data() + begin,
                                   n * sizeof(std::int32_t), cudaMemcpyHostToDevice, stream_.get()), "copy blocks");
      }
      const std::int32_t* sources = block_lists_.data();
      pool_.copy(model_, job.group, sources, sources + kCopyChunk, sources + 2 * kCopyChunk,
                 static_cast<std::int32_t>(n), stream_.get());
    }
    stream_.synchronize();
    return;
  }
  std::vector<BlockPiece> pieces;
  const bool reads = job.kind == Job::Kind::kRead;
  for (std::size_t i = 0; i < job.blocks.size(); ++i) {
    pieces.push_back({pool_.block(job.group, job.blocks[i]), reads ? job.read_to + i * payload : nullptr,
                      reads ? nullptr : job.write_from + i * payload});
  }
  if (!reads) return mover_.write(pieces, payload, stream_.get());
  job.lands_later = mover_.begin_read(pieces, payload, stream_.get());
  if (!job.lands_later) mover_.read(pieces, payload, stream_.get());
}

// Whether the oldest job can be told of without a wait. Of a read a part is copied on, if one has arrived.
bool Runner::is_due(Job& oldest) {
  if (oldest.status != KV_OK) return true;
  kv_error error{};
  error.size = sizeof error;
  bool is_over = true;
  const kv_status status = abi_guard(&error, [&] {
    if (oldest.flight != nullptr) {
      is_over = oldest.flight->done.is_done();
    } else if (oldest.lands_later) {
      is_over = mover_.land(false);
      oldest.lands_later = !is_over;
    }
  });
  if (status == KV_OK || oldest.flight != nullptr) return status != KV_OK || is_over;
  oldest.status = status;
  oldest.message = error.message;
  return true;
}

void Runner::finish(Job& job) {
  kv_error error{};
  error.size = sizeof error;
  kv_status status = job.status;
  if (status == KV_OK && job.lands_later) {
    status = abi_guard(&error, [&] {
      while (!mover_.land(true)) {
      }
    });
    job.message = error.message;
  }
  if (status != KV_OK) return report_failure(job, status, job.message.c_str());
  if (job.kind != Job::Kind::kStep) return job.on_done(job.user, nullptr);
  status = abi_guard(&error, [&] { job.flight->done.synchronize(); });
  if (status != KV_OK) {
    previous_step_failed_ = true;
    return report_failure(job, status, error.message);
  }
  deliver_step(job);
}

void Runner::deliver_step(Job& job) {
  Flight& flight = *job.flight;
  const StepPlan& plan = flight.plan;
  const std::byte* out = flight.output.data();
  const auto* sampled = reinterpret_cast<const std::int32_t*>(out + plan.sampled);
  flight.stops.assign(plan.n_sequences, KV_STOP_NONE);
  for (std::uint32_t row = 0; row < plan.n_sequences; ++row) {
    const SamplerSlot* slot = flight.samplers[row].get();
    if (slot == nullptr) continue;
    const auto output_index = static_cast<std::uint32_t>(job.batch->output_indexes[row]);
    if (std::binary_search(slot->stop_ids.begin(), slot->stop_ids.end(), sampled[row])) {
      flight.stops[row] = KV_STOP_TOKEN;
    } else if (slot->params.max_outputs != 0 && output_index >= slot->params.max_outputs - 1) {
      flight.stops[row] = KV_STOP_LENGTH;
    }
  }
  kv_step_result result{};
  result.size = sizeof result;
  result.n_sequences = plan.n_sequences;
  result.n_logits_rows = static_cast<std::uint32_t>(flight.logits_tokens.size());
  result.max_logprobs = plan.max_logprobs;
  result.sampled_ids = sampled;
  result.sampled_logprobs = reinterpret_cast<const float*>(out + plan.logprobs);
  result.stops = flight.stops.data();
  result.top_ids = reinterpret_cast<const std::int32_t*>(out + plan.top_ids);
  result.top_logprobs = reinterpret_cast<const float*>(out + plan.top_logprobs);
  result.logits = flight.logits.data();
  result.logits_tokens = flight.logits_tokens.data();
  result.hashes = reinterpret_cast<const std::uint64_t*>(out + plan.hashes);
  result.target_logprobs = plan.has_targets != 0 ? reinterpret_cast<const float*>(out + plan.targets) : nullptr;
  const std::uint64_t now = now_ns();
  result.execute_ns = now - std::max(flight.began_ns, last_finish_ns_);
  last_finish_ns_ = now;
  job.on_step(job.user, &result, nullptr);
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

}  // namespace kv::cuda
