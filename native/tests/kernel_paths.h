// The instruction paths this machine can run, for tests that compare them.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels/kernels.h"

namespace kv::test {

inline std::vector<const cpu::KernelTable*> kernel_paths() {
  std::vector<const cpu::KernelTable*> paths;
  std::string names = cpu::available_instruction_paths();
  std::size_t begin = 0;
  while (begin <= names.size()) {
    std::size_t end = names.find(',', begin);
    if (end == std::string::npos) end = names.size();
    paths.push_back(cpu::select_kernels(names.substr(begin, end - begin).c_str()));
    begin = end + 1;
  }
  return paths;
}

}  // namespace kv::test
