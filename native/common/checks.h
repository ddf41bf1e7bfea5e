// Checks of untrusted input, alive in every build, and arithmetic that cannot wrap.
#pragma once

#include <cstdint>

#include "common/status.h"

namespace kv {

// Throws KV_INVALID_ARGUMENT with the formatted text when `ok` is false. Arguments are evaluated either way.
template <typename... Arguments>
void check(bool ok, const char* format, Arguments... arguments) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
  if (!ok) fail(KV_INVALID_ARGUMENT, format, arguments...);
#pragma GCC diagnostic pop
}

// Every struct of the waist begins with its size; a caller compiled against another header is refused here.
template <typename Struct>
void check_struct(const Struct* value, const char* name) {
  check(value != nullptr, "%s: expected a pointer, found NULL", name);
  check(value->size == sizeof(Struct), "%s: expected size %u, found %u; rebuild the caller against this kvasir_abi.h",
        name, static_cast<unsigned>(sizeof(Struct)), static_cast<unsigned>(value->size));
}

// a * b and a + b, or false when 64 bits do not hold the result.
inline bool multiply(uint64_t a, uint64_t b, uint64_t* out) { return !__builtin_mul_overflow(a, b, out); }
inline bool add(uint64_t a, uint64_t b, uint64_t* out) { return !__builtin_add_overflow(a, b, out); }

// Product of extents as bytes of a buffer; KV_OUT_OF_MEMORY names `what` when it does not fit 63 bits.
inline uint64_t buffer_product(const char* what, uint64_t a, uint64_t b, uint64_t c = 1, uint64_t d = 1) {
  uint64_t product = 0;
  if (!multiply(a, b, &product) || !multiply(product, c, &product) || !multiply(product, d, &product) ||
      product > static_cast<uint64_t>(INT64_MAX)) {
    fail(KV_OUT_OF_MEMORY, "%s: the declared limits need more bytes than any machine has; lower them", what);
  }
  return product;
}

}  // namespace kv
