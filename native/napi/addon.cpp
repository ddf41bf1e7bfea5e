// The addon's face: one JavaScript function for each function of the waist. packages/native-runner/src/addon.ts types it.
#include "abi/kvasir_abi.h"
#include "napi/convert_batch.h"
#include "napi/convert_model.h"
#include "napi/errors.h"
#include "napi/fields.h"
#include "napi/include_napi.h"
#include "napi/runner_handle.h"

#include <initializer_list>
#include <memory>
#include <new>
#include <utility>

namespace kv::node {
namespace {

// What a callback from the submission thread needs to know about the call it settles.
struct Ticket {
  EventQueue* events;
  uint32_t number, n_tokens, vocab;
};

void on_step(void* user, const kv_step_result* result, const kv_error* error) noexcept {
  const std::unique_ptr<Ticket> ticket(static_cast<Ticket*>(user));
  Completion completion;
  completion.ticket = ticket->number;
  if (error != nullptr) {
    completion.status = static_cast<kv_status>(error->status);
    completion.message = error->message;
  } else {
    try {
      completion.step.emplace(*result, ticket->n_tokens, ticket->vocab);
    } catch (const std::bad_alloc&) {
      completion.status = KV_OUT_OF_MEMORY;
      completion.message = "the step ran but the host has no memory for its result; ask for fewer logits rows a step";
    }
  }
  ticket->events->push(std::move(completion));
}

void on_done(void* user, const kv_error* error) noexcept {
  const std::unique_ptr<Ticket> ticket(static_cast<Ticket*>(user));
  Completion completion;
  completion.ticket = ticket->number;
  if (error != nullptr) {
    completion.status = static_cast<kv_status>(error->status);
    completion.message = error->message;
  }
  ticket->events->push(std::move(completion));
}

// Runs `call(runner, ticket, error)` as an unsettled call of the handle; a refused call leaves nothing behind.
template <typename Call>
void start_call(RunnerHandle& handle, uint32_t number, uint32_t n_tokens, Napi::Object pinned, Call&& call) {
  kv_runner* runner = handle.runner();
  auto ticket = std::make_unique<Ticket>(Ticket{&handle.events(), number, n_tokens, handle.vocab()});
  handle.begin(number, pinned);
  WaistError error;
  const kv_status status = call(runner, ticket.get(), &error);
  if (status == KV_OK) {
    ticket.release();
  } else {
    handle.abandon(number);
    check(status, error);
  }
}

uint32_t u32_argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  const double value = info[index].IsNumber() ? info[index].As<Napi::Number>().DoubleValue() : -1;
  if (!(value >= 0 && value <= UINT32_MAX) || value != static_cast<double>(static_cast<uint32_t>(value))) {
    refuse_argument(std::string(name) + ": expected an integer of 0 to 4294967295, found " + kind_of(info.Env(), info[index]));
  }
  return static_cast<uint32_t>(value);
}

template <typename T>
View<T> array_argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  View<T> view;
  if (!try_view(info.Env(), info[index], view)) {
    refuse_argument(std::string(name) + ": expected " + array_name<T>() + ", found " + kind_of(info.Env(), info[index]));
  }
  return view;
}

Napi::Value backend_info(const Napi::CallbackInfo& info) {
  WaistError error;
  kv_backend_info backend{};
  backend.size = sizeof(backend);
  check(kv_get_backend_info(&backend, &error), error);
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("abiVersion", Napi::Number::New(info.Env(), backend.abi_version));
  object.Set("name", Napi::String::New(info.Env(), backend.name));
  object.Set("device", Napi::String::New(info.Env(), backend.device));
  object.Set("instructionPaths", Napi::String::New(info.Env(), backend.instruction_paths));
  return object;
}

Napi::Object numbers(Napi::Env env, std::initializer_list<std::pair<const char*, uint64_t>> fields) {
  Napi::Object object = Napi::Object::New(env);
  for (const auto& [name, value] : fields) object.Set(name, Napi::Number::New(env, static_cast<double>(value)));
  return object;
}

Napi::Value plan_memory(const Napi::CallbackInfo& info) {
  const ModelArguments model(info[0]);
  const RunnerArguments options(info[1]);
  WaistError error;
  kv_memory_plan plan{};
  plan.size = sizeof(plan);
  check(kv_plan_memory(&model.get(), &options.get(), &plan, &error), error);
  return numbers(info.Env(), {{"totalBytes", plan.total_bytes},
                              {"freeBytes", plan.free_bytes},
                              {"weightsBytes", plan.weights_bytes},
                              {"kvPoolBytes", plan.kv_pool_bytes},
                              {"workspaceBytes", plan.workspace_bytes},
                              {"pinnedBytes", plan.pinned_bytes}});
}

Napi::Value open_runner(const Napi::CallbackInfo& info) {
  if (!info[3].IsFunction() || !info[4].IsFunction()) {
    refuse_argument("openRunner: expected functions for onCompletion and onProgress");
  }
  const uint32_t ticket = u32_argument(info, 0, "ticket");
  auto model = std::make_unique<ModelArguments>(info[1]);
  auto options = std::make_unique<RunnerArguments>(info[2]);
  return RunnerHandle::open(info.Env(), std::move(model), std::move(options), info[3].As<Napi::Function>(),
                            info[4].As<Napi::Function>(), ticket);
}

Napi::Value cancel_opening(const Napi::CallbackInfo& info) {
  RunnerHandle::from(info[0]).cancel_opening();
  return info.Env().Undefined();
}

Napi::Value destroy_runner(const Napi::CallbackInfo& info) {
  RunnerHandle::from(info[0]).destroy(u32_argument(info, 1, "ticket"));
  return info.Env().Undefined();
}

using TextFunction = kv_status (*)(kv_runner*, char*, uint32_t, kv_error*);

template <TextFunction function>
Napi::Value runner_text(const Napi::CallbackInfo& info) {
  WaistError error;
  char text[256] = "";
  check(function(RunnerHandle::from(info[0]).runner(), text, sizeof(text), &error), error);
  return Napi::String::New(info.Env(), text);
}

Napi::Value runner_memory(const Napi::CallbackInfo& info) {
  WaistError error;
  kv_memory memory{};
  memory.size = sizeof(memory);
  check(kv_runner_memory(RunnerHandle::from(info[0]).runner(), &memory, &error), error);
  return numbers(info.Env(), {{"weightsMappedBytes", memory.weights_mapped_bytes},
                              {"weightsRepackedBytes", memory.weights_repacked_bytes},
                              {"kvPoolBytes", memory.kv_pool_bytes},
                              {"workspaceBytes", memory.workspace_bytes},
                              {"pinnedBytes", memory.pinned_bytes},
                              {"hostBytes", memory.host_bytes},
                              {"allocations", memory.allocations},
                              {"residencyChecks", memory.residency_checks},
                              {"residencyFailures", memory.residency_failures}});
}

Napi::Value runner_block_bytes(const Napi::CallbackInfo& info) {
  WaistError error;
  uint64_t bytes = 0;
  check(kv_runner_block_bytes(RunnerHandle::from(info[0]).runner(), u32_argument(info, 1, "group"), &bytes, &error),
        error);
  return Napi::Number::New(info.Env(), static_cast<double>(bytes));
}

Napi::Value submit(const Napi::CallbackInfo& info) {
  RunnerHandle& handle = RunnerHandle::from(info[0]);
  const BatchArguments batch(info[2], handle.vocab());
  start_call(handle, u32_argument(info, 1, "ticket"), batch.get().n_tokens, Napi::Object(),
             [&](kv_runner* runner, void* user, kv_error* error) {
               return kv_runner_submit(runner, &batch.get(), on_step, user, error);
             });
  return info.Env().Undefined();
}

Napi::Value copy_blocks(const Napi::CallbackInfo& info) {
  RunnerHandle& handle = RunnerHandle::from(info[0]);
  const uint32_t group = u32_argument(info, 2, "group");
  const View<int32_t> sources = array_argument<int32_t>(info, 3, "sources");
  const View<int32_t> destinations = array_argument<int32_t>(info, 4, "destinations");
  const View<int32_t> n_tokens = array_argument<int32_t>(info, 5, "nTokens");
  if (destinations.length != sources.length || n_tokens.length != sources.length) {
    refuse_argument("copyBlocks: expected sources, destinations and nTokens of one length, found " +
                    std::to_string(sources.length) + ", " + std::to_string(destinations.length) + " and " +
                    std::to_string(n_tokens.length));
  }
  start_call(handle, u32_argument(info, 1, "ticket"), 0, Napi::Object(),
             [&](kv_runner* runner, void* user, kv_error* error) {
               return kv_runner_copy_blocks(runner, group, sources.data, destinations.data, n_tokens.data,
                                            static_cast<uint32_t>(sources.length), on_done, user, error);
             });
  return info.Env().Undefined();
}

enum class Direction { read, write };

template <Direction direction>
Napi::Value move_blocks(const Napi::CallbackInfo& info) {
  RunnerHandle& handle = RunnerHandle::from(info[0]);
  const uint32_t group = u32_argument(info, 2, "group");
  const View<int32_t> blocks = array_argument<int32_t>(info, 3, "blocks");
  const View<uint8_t> data = array_argument<uint8_t>(info, 4, "data");
  start_call(handle, u32_argument(info, 1, "ticket"), 0, info[4].As<Napi::Object>(),
             [&](kv_runner* runner, void* user, kv_error* error) {
               const auto count = static_cast<uint32_t>(blocks.length);
               if constexpr (direction == Direction::read) {
                 return kv_runner_read_blocks(runner, group, blocks.data, count, data.data, data.length, on_done, user,
                                              error);
               } else {
                 return kv_runner_write_blocks(runner, group, blocks.data, count, data.data, data.length, on_done, user,
                                               error);
               }
             });
  return info.Env().Undefined();
}

template <Napi::Value (*function)(const Napi::CallbackInfo&)>
void expose(Napi::Env env, Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New(
                        env, [](const Napi::CallbackInfo& info) { return guarded(info, function); }, name));
}

// Called once per environment: the main thread's and every worker's. No state is shared between them.
Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  exports.Set("abiVersion", Napi::Number::New(env, KV_ABI_VERSION));
  expose<backend_info>(env, exports, "backendInfo");
  expose<plan_memory>(env, exports, "planMemory");
  expose<open_runner>(env, exports, "openRunner");
  expose<cancel_opening>(env, exports, "cancelOpening");
  expose<destroy_runner>(env, exports, "destroyRunner");
  expose<runner_text<kv_runner_numerics_id>>(env, exports, "numericsId");
  expose<runner_text<kv_runner_instruction_path>>(env, exports, "instructionPath");
  expose<runner_memory>(env, exports, "memory");
  expose<runner_block_bytes>(env, exports, "blockBytes");
  expose<submit>(env, exports, "submit");
  expose<copy_blocks>(env, exports, "copyBlocks");
  expose<move_blocks<Direction::read>>(env, exports, "readBlocks");
  expose<move_blocks<Direction::write>>(env, exports, "writeBlocks");
  return exports;
}

}  // namespace
}  // namespace kv::node

static Napi::Object initialise_addon(Napi::Env env, Napi::Object exports) {
  return kv::node::initialise(env, exports);
}

NODE_API_MODULE(kvasir, initialise_addon)
