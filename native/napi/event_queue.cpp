#include "napi/event_queue.h"

#include "napi/errors.h"

namespace kv::node {

EventQueue::EventQueue(Napi::Env env, Napi::Function on_completion, Napi::Function on_progress,
                       CompletionListener* listener)
    : env_(env), on_progress_(Napi::Persistent(on_progress)), listener_(listener) {
  const napi_value name = Napi::String::New(env, "kvasir runner");
  if (napi_create_threadsafe_function(env, on_completion, nullptr, name, 0, 1, this, on_finalize, this, on_wake,
                                      &wake_up_) != napi_ok) {
    throw Napi::Error::New(env);
  }
  unref();
}

void EventQueue::push(Completion completion) {
  const std::lock_guard lock(mutex_);
  completions_.push_back(std::move(completion));
  wake();
}

void EventQueue::report_progress(uint64_t done, uint64_t total) {
  const std::lock_guard lock(mutex_);
  progress_ = Progress{done, total};
  wake();
}

// Called with mutex_ held, so that a wake-up and the queue it announces cannot part.
void EventQueue::wake() {
  if (awake_) return;
  awake_ = true;
  if (napi_call_threadsafe_function(wake_up_, nullptr, napi_tsfn_nonblocking) != napi_ok) {
    // The function is unbounded and outlives every pushing thread: a refusal means that this order was broken.
    napi_fatal_error("kv::node::EventQueue::wake", NAPI_AUTO_LENGTH, "an event was pushed after close", NAPI_AUTO_LENGTH);
  }
}

void EventQueue::ref() { napi_ref_threadsafe_function(env_, wake_up_); }

void EventQueue::unref() { napi_unref_threadsafe_function(env_, wake_up_); }

void EventQueue::close() {
  end_progress();
  napi_release_threadsafe_function(wake_up_, napi_tsfn_abort);
}

void EventQueue::end_progress() { on_progress_.Reset(); }

void EventQueue::disown() { listener_ = nullptr; }

void EventQueue::on_wake(napi_env env, napi_value on_completion, void* context, void*) {
  if (env == nullptr) return;  // the environment is being torn down: JavaScript can no longer be called
  try {
    static_cast<EventQueue*>(context)->deliver(Napi::Env(env), on_completion);
  } catch (const Napi::Error& error) {
    error.ThrowAsJavaScriptException();
  }
}

void EventQueue::on_finalize(napi_env, void* self, void*) { delete static_cast<EventQueue*>(self); }

void EventQueue::deliver(Napi::Env env, napi_value on_completion) {
  std::deque<Completion> completions;
  std::optional<Progress> progress;
  {
    const std::lock_guard lock(mutex_);
    completions.swap(completions_);
    progress.swap(progress_);
    awake_ = false;
  }
  if (progress.has_value() && !on_progress_.IsEmpty()) {
    const Napi::HandleScope scope(env);
    call(env, on_progress_.Value(), {Napi::Number::New(env, static_cast<double>(progress->done)),
                                     Napi::Number::New(env, static_cast<double>(progress->total))});
  }
  for (Completion& completion : completions) {
    const Napi::HandleScope scope(env);
    if (listener_ != nullptr) listener_->settle(completion);
    Napi::Value error = env.Null(), step = env.Null();
    try {
      if (completion.step.has_value()) step = completion.step->to_javascript(env);
    } catch (const Napi::Error& failure) {
      completion.status = KV_OUT_OF_MEMORY;
      completion.message = "the step ran but its result found no room in JavaScript: " + failure.Message();
    }
    if (completion.status != KV_OK) error = error_object(env, completion.status, completion.message);
    call(env, on_completion, {Napi::Number::New(env, completion.ticket), error, step});
  }
}

// A callback that throws is an uncaught exception of its own and keeps nobody else's event from arriving.
void EventQueue::call(Napi::Env env, napi_value function, std::initializer_list<napi_value> arguments) {
  const napi_status status =
      napi_call_function(env, env.Undefined(), function, arguments.size(), arguments.begin(), nullptr);
  if (status != napi_pending_exception) return;
  napi_value exception = nullptr;
  if (napi_get_and_clear_last_exception(env, &exception) == napi_ok) napi_fatal_exception(env, exception);
}

}  // namespace kv::node
