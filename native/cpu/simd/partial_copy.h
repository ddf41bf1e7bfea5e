// Byte copies that stay inside their path's namespace (see f32x16.h on why the standard library's are not used).
#pragma once

namespace kv::cpu::KV_PATH {

static inline void copy_bytes(void* to, const void* from, long count) {
  __builtin_memcpy(to, from, static_cast<unsigned long>(count));
}

}  // namespace kv::cpu::KV_PATH
