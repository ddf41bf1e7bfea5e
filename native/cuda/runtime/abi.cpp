// The C waist over Runner: arguments in, statuses out. Every entry is one abi_guard.
#include <cstdio>
#include <cstring>

#include "abi/kvasir_abi.h"
#include "common/checks.h"
#include "cuda/runtime/memory_plan.h"
#include "cuda/runtime/runner.h"

struct kv_runner {
  kv_runner(const kv_model* model, const kv_runner_options* options, kv_progress_callback progress, void* user)
      : runner(model, options, progress, user) {}
  kv::cuda::Runner runner;
};

namespace {

using kv::abi_guard;
using kv::check;
using kv::check_struct;

kv::cuda::Runner& get(kv_runner* handle) {
  check(handle != nullptr, "runner: expected a runner, found NULL");
  return handle->runner;
}

void copy_text(const char* text, char* out, std::uint32_t capacity) {
  check(out != nullptr && capacity > std::strlen(text), "out: expected room for %u bytes, found %u",
        static_cast<unsigned>(std::strlen(text) + 1), capacity);
  std::memcpy(out, text, std::strlen(text) + 1);
}

}  // namespace

kv_status kv_get_backend_info(kv_backend_info* info, kv_error* error) {
  return abi_guard(error, [&] {
    check_struct(info, "kv_backend_info");
    info->abi_version = KV_ABI_VERSION;
    // Known before there is a device: what this library is.
    std::snprintf(info->name, sizeof info->name, "cuda");
    std::snprintf(info->device, sizeof info->device, "none");
    std::snprintf(info->instruction_paths, sizeof info->instruction_paths, "%s", "");
    try {
      const kv::cuda::DeviceInfo device = kv::cuda::describe_device();
      std::snprintf(info->device, sizeof info->device, "%s", device.name.c_str());
      std::snprintf(info->instruction_paths, sizeof info->instruction_paths, "%s", device.instruction_path.c_str());
    } catch (const kv::Error& failure) {
      // Which backends there are is asked on machines without one, too; creating a runner reports it as an error.
      std::snprintf(info->device, sizeof info->device, "%.120s", failure.what());
    }
  });
}

kv_status kv_plan_memory(const kv_model* model, const kv_runner_options* options, kv_memory_plan* plan,
                         kv_error* error) {
  return abi_guard(error, [&] {
    check_struct(plan, "kv_memory_plan");
    kv::cuda::checked_device(model, options);
    *plan = kv::cuda::plan_memory(*model, *options);
  });
}

kv_status kv_runner_create(const kv_model* model, const kv_runner_options* options, kv_progress_callback progress,
                           void* user, kv_runner** runner, kv_error* error) {
  return abi_guard(error, [&] {
    check(runner != nullptr, "runner: expected a place for the handle, found NULL");
    *runner = new kv_runner(model, options, progress, user);
  });
}

void kv_runner_destroy(kv_runner* runner) { delete runner; }

kv_status kv_runner_numerics_id(kv_runner* runner, char* out, uint32_t capacity, kv_error* error) {
  return abi_guard(error, [&] { copy_text(get(runner).numerics_id(), out, capacity); });
}

kv_status kv_runner_instruction_path(kv_runner* runner, char* out, uint32_t capacity, kv_error* error) {
  return abi_guard(error, [&] { copy_text(get(runner).instruction_path(), out, capacity); });
}

kv_status kv_runner_memory(kv_runner* runner, kv_memory* memory, kv_error* error) {
  return abi_guard(error, [&] {
    check_struct(memory, "kv_memory");
    *memory = get(runner).memory();
  });
}

kv_status kv_runner_submit(kv_runner* runner, const kv_batch* batch, kv_step_callback callback, void* user,
                           kv_error* error) {
  return abi_guard(error, [&] { get(runner).submit(batch, callback, user); });
}

kv_status kv_runner_block_bytes(kv_runner* runner, uint32_t group, uint64_t* bytes, kv_error* error) {
  return abi_guard(error, [&] {
    check(bytes != nullptr, "bytes: expected a place for the size, found NULL");
    *bytes = get(runner).block_bytes(group);
  });
}

kv_status kv_runner_copy_blocks(kv_runner* runner, uint32_t group, const int32_t* sources, const int32_t* destinations,
                                const int32_t* n_tokens, uint32_t count, kv_done_callback callback, void* user,
                                kv_error* error) {
  return abi_guard(
      error, [&] { get(runner).copy_blocks(group, sources, destinations, n_tokens, count, callback, user); });
}

kv_status kv_runner_read_blocks(kv_runner* runner, uint32_t group, const int32_t* blocks, uint32_t count, void* data,
                                uint64_t bytes, kv_done_callback callback, void* user, kv_error* error) {
  return abi_guard(error, [&] { get(runner).read_blocks(group, blocks, count, data, bytes, callback, user); });
}

kv_status kv_runner_write_blocks(kv_runner* runner, uint32_t group, const int32_t* blocks, uint32_t count,
                                 const void* data, uint64_t bytes, kv_done_callback callback, void* user,
                                 kv_error* error) {
  return abi_guard(error, [&] { get(runner).write_blocks(group, blocks, count, data, bytes, callback, user); });
}
