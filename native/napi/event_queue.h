// Carries events from a runner's threads to JavaScript, in order and without losing one: a queue of our own, woken
// through one thread-safe function a runner. The function holds no events itself, so closing it cannot drop any.
#pragma once

#include "abi/kvasir_abi.h"
#include "napi/convert_batch.h"
#include "napi/include_napi.h"

#include <cstdint>
#include <deque>
#include <initializer_list>
#include <mutex>
#include <optional>
#include <string>

namespace kv::node {

// How one call ended. `ticket` is the number JavaScript gave the call.
struct Completion {
  uint32_t ticket = 0;
  kv_status status = KV_OK;
  std::string message;                // when status is not KV_OK
  std::optional<PackedStep> step;     // of a step that succeeded
};

// Hears of every completion on the JavaScript thread, before JavaScript does.
class CompletionListener {
 public:
  virtual void settle(const Completion& completion) = 0;

 protected:
  ~CompletionListener() = default;
};

class EventQueue {
 public:
  // JavaScript thread. `on_completion` is called with (ticket, error | null, step | null), `on_progress` with (bytes
  // done, bytes in all). Does not keep the event loop alive until `ref`.
  EventQueue(Napi::Env env, Napi::Function on_completion, Napi::Function on_progress, CompletionListener* listener);
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;

  // Any thread, until `close`.
  void push(Completion completion);
  // Any thread, until `close`. Reports that JavaScript has not yet seen are replaced by later ones.
  void report_progress(uint64_t done, uint64_t total);

  // JavaScript thread. While referenced, the event loop stays alive.
  void ref();
  void unref();
  // JavaScript thread, once no other thread can push: frees the thread-safe function and with it, later, this object.
  void close();
  // JavaScript thread: loading is over; lets go of `on_progress`.
  void end_progress();
  // JavaScript thread: the owner is going away; completions no longer reach the listener.
  void disown();

 private:
  struct Progress {
    uint64_t done = 0, total = 0;
  };

  static void on_wake(napi_env env, napi_value on_completion, void* context, void* data);
  static void on_finalize(napi_env env, void* self, void* hint);
  void wake();
  void deliver(Napi::Env env, napi_value on_completion);
  void call(Napi::Env env, napi_value function, std::initializer_list<napi_value> arguments);

  napi_env env_;
  napi_threadsafe_function wake_up_ = nullptr;
  Napi::FunctionReference on_progress_;
  CompletionListener* listener_;
  std::mutex mutex_;
  std::deque<Completion> completions_;   // guarded by mutex_
  std::optional<Progress> progress_;     // guarded by mutex_
  bool awake_ = false;                   // guarded by mutex_: a wake-up is on its way
};

}  // namespace kv::node
