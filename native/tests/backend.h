// The backend under test, for tests that know nothing but the waist: built once per backend.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "abi/kvasir_abi.h"

namespace kv::test {

#if defined(KVASIR_TEST_CUDA)
inline constexpr const char* kBackend = "cuda";
inline constexpr const char* kNumerics = "cuda-3";
inline constexpr const char* kQuantizedActivations = "/f16-operands";
// Tiny weights make every kernel's shapes; sizes reported for them differ from a mapped file's.
inline constexpr bool kMapsFiles = false;
// Heads of 64 and 128 have kernels of their own.
inline constexpr bool kWideHeadsDiffer = true;
#else
inline constexpr const char* kBackend = "cpu";
inline constexpr const char* kNumerics = "cpu-1";
inline constexpr const char* kQuantizedActivations = "/int8-activations";
inline constexpr bool kMapsFiles = true;
inline constexpr bool kWideHeadsDiffer = false;
#endif

// The dtypes of KV pools the backends hold.
inline std::vector<kv_dtype> pool_dtypes() { return {KV_F16, KV_F32, KV_BF16, KV_Q8, KV_Q4}; }

// The instruction paths this machine can run. A machine without the backend's device fails here, loudly.
inline std::vector<std::string> instruction_paths() {
  kv_backend_info info{};
  info.size = sizeof info;
  if (kv_get_backend_info(&info, nullptr) != KV_OK || info.instruction_paths[0] == '\0') {
    std::printf("no device for the %s backend: %s\n", kBackend, info.device);
    std::exit(1);
  }
  std::vector<std::string> paths;
  std::string names = info.instruction_paths;
  for (std::size_t begin = 0; begin <= names.size();) {
    std::size_t end = names.find(',', begin);
    if (end == std::string::npos) end = names.size();
    paths.push_back(names.substr(begin, end - begin));
    begin = end + 1;
  }
  return paths;
}

}  // namespace kv::test
