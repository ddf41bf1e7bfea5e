// Error: the one exception native code throws, and abi_guard: the one place that turns exceptions into a kv_status.
#pragma once

#include <exception>
#include <new>
#include <string>

#include "abi/kvasir_abi.h"

namespace kv {

class Error : public std::exception {
 public:
  Error(kv_status status, std::string message) : status_(status), message_(std::move(message)) {}
  kv_status status() const noexcept { return status_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  kv_status status_;
  std::string message_;
};

// printf-style; the text states what was expected, what was found and what to do.
[[noreturn]] __attribute__((format(printf, 2, 3))) void fail(kv_status status, const char* format, ...);

// Fills `error` when the caller passed one of a size this build knows; cuts long messages at KV_ERROR_MESSAGE_BYTES.
void fill_error(kv_error* error, kv_status status, const char* message) noexcept;

// Runs one entry of the C waist. No exception passes it: Error keeps its status, bad_alloc is KV_OUT_OF_MEMORY and
// everything else KV_INTERNAL.
template <typename Body>
kv_status abi_guard(kv_error* error, Body&& body) noexcept {
  try {
    body();
    return KV_OK;
  } catch (const Error& failure) {
    fill_error(error, failure.status(), failure.what());
    return failure.status();
  } catch (const std::bad_alloc&) {
    fill_error(error, KV_OUT_OF_MEMORY, "host memory ran out; lower the limits or free memory");
    return KV_OUT_OF_MEMORY;
  } catch (const std::exception& failure) {
    fill_error(error, KV_INTERNAL, failure.what());
    return KV_INTERNAL;
  } catch (...) {
    fill_error(error, KV_INTERNAL, "an exception of unknown type");
    return KV_INTERNAL;
  }
}

}  // namespace kv
