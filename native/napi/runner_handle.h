// One runner as JavaScript holds it: an opaque, type-tagged object. Owns the waist's kv_runner, the thread that opens or
// destroys it, and the queue its events travel through.
//
// Life: opening → open → closing → closed; a failed opening ends in closed. While a call is unsettled the handle is held
// strongly and the event loop stays alive; otherwise it may be collected, which closes it. When the environment ends
// first (process exit, a worker's termination) a cleanup hook waits for the threads, so that none outlives it.
//
// Threads: everything here runs on the JavaScript thread except what is marked otherwise.
#pragma once

#include "abi/kvasir_abi.h"
#include "napi/convert_model.h"
#include "napi/event_queue.h"
#include "napi/include_napi.h"

#include <atomic>
#include <map>
#include <memory>
#include <thread>

namespace kv::node {

class RunnerHandle final : public CompletionListener {
 public:
  // Starts loading on a thread of its own and returns the JavaScript object. Ticket `ticket` settles when it has ended.
  static Napi::Object open(Napi::Env env, std::unique_ptr<ModelArguments> model,
                           std::unique_ptr<RunnerArguments> options, Napi::Function on_completion,
                           Napi::Function on_progress, uint32_t ticket);

  // The handle behind a JavaScript value. Throws Refusal for anything else.
  static RunnerHandle& from(Napi::Value value);

  // Asks an opening runner to stop; its ticket settles with KV_CANCELLED unless it was faster. No effect afterwards.
  void cancel_opening();
  // Destroys the runner on a thread of its own: unsettled calls settle first, then `ticket`.
  void destroy(uint32_t ticket);

  // The open runner. Throws Refusal (KV_CANCELLED) in any other state.
  kv_runner* runner() const;
  uint32_t vocab() const { return vocab_; }

  // A call that the waist accepts settles exactly once: `begin` before it, `abandon` when it was refused. `pinned` stays
  // alive until then.
  void begin(uint32_t ticket, Napi::Object pinned = Napi::Object());
  void abandon(uint32_t ticket);
  EventQueue& events() { return *events_; }

 private:
  enum class State { opening, open, closing, closed };

  RunnerHandle(Napi::Env env, uint32_t vocab, uint32_t ticket);
  static void on_collected(napi_env env, void* self, void* hint);
  static void on_environment_end(void* self);
  static int32_t on_load_progress(void* self, uint64_t done, uint64_t total);  // opening thread
  void settle(const Completion& completion) override;
  template <typename Body>
  void start_thread(Body&& body);
  void end_call(uint32_t ticket);
  void finish();
  void adjust_external_memory(int64_t sign);

  napi_env env_;
  uint32_t vocab_, lifetime_ticket_;
  State state_ = State::opening;
  kv_runner* runner_ = nullptr;      // written by thread_, read after it was joined
  EventQueue* events_ = nullptr;     // owned by its thread-safe function; null once closed
  std::thread thread_;               // opens or destroys
  std::atomic<bool> cancelled_{false};
  Napi::ObjectReference self_;       // strong while calls are unsettled
  std::map<uint32_t, Napi::ObjectReference> unsettled_;  // ticket → what the call reads or writes, if anything
  int64_t external_bytes_ = 0;
};

}  // namespace kv::node
