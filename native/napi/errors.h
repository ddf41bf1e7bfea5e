// One shape for every failure that leaves the binding: a JavaScript Error with a numeric `status` (kv_status).
#pragma once

#include "abi/kvasir_abi.h"
#include "napi/include_napi.h"

#include <string>
#include <utility>

namespace kv::node {

// What the waist, or a conversion in front of it, refused. Thrown on the JavaScript thread only.
struct Refusal {
  kv_status status;
  std::string message;
};

// A kv_error that knows its own size.
struct WaistError : kv_error {
  WaistError();
};

// Throws Refusal unless status is KV_OK.
void check(kv_status status, const kv_error& error);

[[noreturn]] void refuse_argument(std::string message);

// Error object with `status`; does not throw it. JavaScript thread.
Napi::Value error_object(Napi::Env env, kv_status status, const std::string& message);

// Turns a Refusal, and any exception nobody classified (as KV_INTERNAL), into a JavaScript exception.
void throw_to_javascript(Napi::Env env);

// Entry point of the addon's face: runs `body` and converts what it throws. A JavaScript exception passes as it is.
template <typename Body>
Napi::Value guarded(const Napi::CallbackInfo& info, Body&& body) {
  try {
    return std::forward<Body>(body)(info);
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw_to_javascript(info.Env());
    return info.Env().Undefined();
  }
}

}  // namespace kv::node
