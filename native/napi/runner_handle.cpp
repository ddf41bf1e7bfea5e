#include "napi/runner_handle.h"

#include "napi/errors.h"

#include <system_error>
#include <utility>

namespace kv::node {
namespace {

constexpr napi_type_tag kRunnerTag = {0x6b76617369722d72ull, 0x756e6e65722d3031ull};

}  // namespace

Napi::Object RunnerHandle::open(Napi::Env env, std::unique_ptr<ModelArguments> model,
                                std::unique_ptr<RunnerArguments> options, Napi::Function on_completion,
                                Napi::Function on_progress, uint32_t ticket) {
  Napi::Object object = Napi::Object::New(env);
  auto* handle = new RunnerHandle(env, model->get().vocab, ticket);
  if (napi_wrap(env, object, handle, on_collected, nullptr, nullptr) != napi_ok) {
    delete handle;
    throw Napi::Error::New(env);
  }
  object.TypeTag(&kRunnerTag);
  handle->self_ = Napi::Weak(object);
  handle->events_ = new EventQueue(env, on_completion, on_progress, handle);
  // After the queue's thread-safe function, whose own hook must run later: hooks run last in, first out.
  napi_add_env_cleanup_hook(env, on_environment_end, handle);
  handle->begin(ticket);
  const auto load = [handle, ticket, model = std::shared_ptr(std::move(model)),
                     options = std::shared_ptr(std::move(options))] {
    WaistError error;
    Completion completion;
    completion.ticket = ticket;
    completion.status =
        kv_runner_create(&model->get(), &options->get(), on_load_progress, handle, &handle->runner_, &error);
    if (completion.status != KV_OK) completion.message = error.message;
    handle->events_->push(std::move(completion));
  };
  try {
    handle->start_thread(load);
  } catch (...) {
    handle->end_call(ticket);
    handle->finish();
    throw;
  }
  return object;
}

RunnerHandle& RunnerHandle::from(Napi::Value value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kRunnerTag)) {
    refuse_argument("runner: expected a handle made by this addon's openRunner, found something else");
  }
  void* handle = nullptr;
  if (napi_unwrap(value.Env(), value, &handle) != napi_ok) throw Napi::Error::New(value.Env());
  return *static_cast<RunnerHandle*>(handle);
}

void RunnerHandle::cancel_opening() { cancelled_ = true; }

void RunnerHandle::destroy(uint32_t ticket) {
  runner();
  begin(ticket);
  try {
    start_thread([this, ticket] {
      kv_runner_destroy(runner_);
      Completion completion;
      completion.ticket = ticket;
      events_->push(std::move(completion));
    });
  } catch (...) {
    end_call(ticket);
    throw;
  }
  lifetime_ticket_ = ticket;
  state_ = State::closing;
}

template <typename Body>
void RunnerHandle::start_thread(Body&& body) {
  try {
    thread_ = std::thread(std::forward<Body>(body));
  } catch (const std::system_error& error) {
    throw Refusal{KV_OUT_OF_MEMORY, std::string("the system refused another thread: ") + error.what()};
  }
}

kv_runner* RunnerHandle::runner() const {
  if (state_ != State::open) {
    throw Refusal{KV_CANCELLED, std::string("runner: expected an open one, found it ") +
                                    (state_ == State::opening ? "still opening" : "disposed")};
  }
  return runner_;
}

void RunnerHandle::begin(uint32_t ticket, Napi::Object pinned) {
  if (unsettled_.contains(ticket)) refuse_argument("ticket: expected a number not in use, found " + std::to_string(ticket));
  if (unsettled_.empty()) {
    self_.Ref();
    events_->ref();
  }
  unsettled_[ticket] = pinned.IsEmpty() ? Napi::ObjectReference() : Napi::Persistent(pinned);
}

void RunnerHandle::abandon(uint32_t ticket) { end_call(ticket); }

void RunnerHandle::end_call(uint32_t ticket) {
  unsettled_.erase(ticket);
  if (!unsettled_.empty()) return;
  events_->unref();
  self_.Unref();
}

void RunnerHandle::settle(const Completion& completion) {
  end_call(completion.ticket);
  if (completion.ticket != lifetime_ticket_) return;
  if (state_ == State::opening) {
    thread_.join();
    events_->end_progress();
    if (completion.status == KV_OK) {
      state_ = State::open;
      adjust_external_memory(+1);
      return;
    }
    finish();
  } else if (state_ == State::closing) {
    thread_.join();
    finish();
  }
}

// No thread is left: gives everything back but the C++ object, which belongs to the JavaScript one.
void RunnerHandle::finish() {
  runner_ = nullptr;
  state_ = State::closed;
  adjust_external_memory(-1);
  napi_remove_env_cleanup_hook(env_, on_environment_end, this);
  events_->disown();
  events_->close();
  events_ = nullptr;
}

int32_t RunnerHandle::on_load_progress(void* self, uint64_t done, uint64_t total) {
  auto* handle = static_cast<RunnerHandle*>(self);
  handle->events_->report_progress(done, total);
  return handle->cancelled_ ? 1 : 0;
}

// Lets the collector see what the object stands for; mapped weights are the page cache's and do not count.
void RunnerHandle::adjust_external_memory(int64_t sign) {
  if (sign > 0) {
    WaistError error;
    kv_memory memory{};
    memory.size = sizeof(memory);
    if (kv_runner_memory(runner_, &memory, &error) != KV_OK) return;  // an estimate for the collector, nobody's result
    external_bytes_ =
        static_cast<int64_t>(memory.kv_pool_bytes + memory.workspace_bytes + memory.weights_repacked_bytes);
  }
  int64_t adjusted = 0;
  napi_adjust_external_memory(env_, sign * external_bytes_, &adjusted);
}

// Runs before the environment's thread-safe functions are closed: waits for every thread that could push to ours.
void RunnerHandle::on_environment_end(void* self) {
  auto* handle = static_cast<RunnerHandle*>(self);
  handle->cancelled_ = true;
  if (handle->thread_.joinable()) handle->thread_.join();
  if (handle->state_ != State::closing) kv_runner_destroy(handle->runner_);
  handle->runner_ = nullptr;
  handle->state_ = State::closed;
  handle->unsettled_.clear();
  handle->events_->end_progress();
  handle->events_->disown();
  handle->events_ = nullptr;
}

void RunnerHandle::on_collected(napi_env, void* self, void*) {
  auto* handle = static_cast<RunnerHandle*>(self);
  if (handle->state_ == State::open) {
    kv_runner_destroy(handle->runner_);
    handle->finish();
  }
  delete handle;
}

RunnerHandle::RunnerHandle(Napi::Env env, uint32_t vocab, uint32_t ticket)
    : env_(env), vocab_(vocab), lifetime_ticket_(ticket) {}

}  // namespace kv::node
