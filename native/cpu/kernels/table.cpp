// Which instruction paths were built, which of them this machine can run, and the choice between them.
#include <cstring>
#include <string>

#include "cpu/kernels/kernels.h"

#if defined(KV_HAS_AVX2)
#include <cpuid.h>
#endif
#if (defined(KV_HAS_NEON) || defined(KV_HAS_NEON_DOTPROD)) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(KV_HAS_NEON_DOTPROD) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace kv::cpu {

#define KV_DECLARE_PATH(path)        \
  namespace path {                   \
  extern const KernelTable kTable;   \
  }
KV_DECLARE_PATH(scalar)
KV_DECLARE_PATH(avx2)
KV_DECLARE_PATH(avx512)
KV_DECLARE_PATH(neon)
KV_DECLARE_PATH(neon_dotprod)
#undef KV_DECLARE_PATH

namespace {

#if defined(KV_HAS_AVX2)
// Asked of the processor, because not every compiler's detection knows this feature.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
// The compiler's own detection also asks the operating system (XGETBV) whether it saves the wide registers.
bool can_run_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
#endif
#if defined(KV_HAS_AVX512)
bool can_run_avx512() {
  return can_run_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif
#if defined(KV_HAS_NEON_DOTPROD)
bool can_run_neon_dotprod() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, nullptr, 0) == 0 && value != 0;
#else
  return false;
#endif
}
#endif
bool can_run_anywhere() { return true; }

struct Path {
  const KernelTable* table;
  bool (*can_run)();
};

// Best first.
constexpr Path kPaths[] = {
#if defined(KV_HAS_AVX512)
    {&avx512::kTable, can_run_avx512},
#endif
#if defined(KV_HAS_AVX2)
    {&avx2::kTable, can_run_avx2},
#endif
#if defined(KV_HAS_NEON_DOTPROD)
    {&neon_dotprod::kTable, can_run_neon_dotprod},
#endif
#if defined(KV_HAS_NEON)
    {&neon::kTable, can_run_anywhere},
#endif
    {&scalar::kTable, can_run_anywhere},
};

}  // namespace

const KernelTable* select_kernels(const char* name) {
  const bool any = name == nullptr || name[0] == '\0' || std::strcmp(name, "auto") == 0;
  for (const Path& path : kPaths) {
    if ((any || std::strcmp(name, path.table->name) == 0) && path.can_run()) return path.table;
  }
  return nullptr;
}

const char* available_instruction_paths() {
  static const std::string names = [] {
    std::string list;
    for (const Path& path : kPaths) {
      if (!path.can_run()) continue;
      if (!list.empty()) list += ',';
      list += path.table->name;
    }
    return list;
  }();
  return names.c_str();
}

}  // namespace kv::cpu
