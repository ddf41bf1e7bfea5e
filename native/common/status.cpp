#include "common/status.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace kv {

void fail(kv_status status, const char* format, ...) {
  char message[KV_ERROR_MESSAGE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  throw Error(status, message);
}

void fill_error(kv_error* error, kv_status status, const char* message) noexcept {
  if (error == nullptr || error->size != sizeof(kv_error)) return;
  error->status = status;
  std::snprintf(error->message, sizeof error->message, "%s", message);
}

}  // namespace kv
