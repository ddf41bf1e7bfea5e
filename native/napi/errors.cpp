#include "napi/errors.h"

#include <exception>
#include <new>

namespace kv::node {

WaistError::WaistError() : kv_error{} {
  size = sizeof(kv_error);
  status = KV_OK;
}

void check(kv_status status, const kv_error& error) {
  if (status == KV_OK) return;
  throw Refusal{status, error.message[0] != '\0' ? std::string(error.message)
                                                 : "the backend failed with status " + std::to_string(status) +
                                                       " and gave no message"};
}

void refuse_argument(std::string message) { throw Refusal{KV_INVALID_ARGUMENT, std::move(message)}; }

Napi::Value error_object(Napi::Env env, kv_status status, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("status", Napi::Number::New(env, status));
  return error.Value();
}

void throw_to_javascript(Napi::Env env) {
  kv_status status = KV_INTERNAL;
  std::string message = "an exception nobody classified reached the binding";
  try {
    throw;
  } catch (const Refusal& refusal) {
    status = refusal.status;
    message = refusal.message;
  } catch (const std::bad_alloc&) {
    status = KV_OUT_OF_MEMORY;
    message = "the host has no memory left for this call";
  } catch (const std::exception& exception) {
    message = exception.what();
  }
  napi_throw(env, error_object(env, status, message));
}

}  // namespace kv::node
