// Half: the compiler's own 16-bit float, whose conversions the tests hold the kernels' to.
#pragma once

namespace kv::test {

#if defined(__aarch64__)
using Half = __fp16;  // GCC before 13 has no _Float16 in C++ there
#else
using Half = _Float16;
#endif

}  // namespace kv::test
