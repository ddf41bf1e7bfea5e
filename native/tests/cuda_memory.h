// Device arrays for kernel tests: filled from host vectors or poisoned with NaN patterns, read back as vectors.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace kv::test {

inline void cuda_ok(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::printf("CUDA: %s: %s\n", what, cudaGetErrorString(status));
  std::exit(1);
}

template <typename T>
class OnDevice {
 public:
  explicit OnDevice(std::size_t count) : count_(count) {
    cuda_ok(cudaMalloc(&data_, (count + 64) * sizeof(T)), "allocate");
    cuda_ok(cudaMemset(data_, 0xff, (count + 64) * sizeof(T)), "poison");
    cuda_ok(cudaDeviceSynchronize(), "poison");
  }
  explicit OnDevice(const std::vector<T>& values) : OnDevice(values.size()) {
    cuda_ok(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "fill");
    cuda_ok(cudaDeviceSynchronize(), "fill");
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;

  T* data() const { return data_; }
  std::vector<T> read() const {
    cuda_ok(cudaDeviceSynchronize(), "kernels");
    std::vector<T> values(count_);
    cuda_ok(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "read");
    return values;
  }
  // Whether the 64 elements behind the last are still poison.
  bool end_is_intact() const {
    std::vector<unsigned char> tail(64 * sizeof(T));
    cuda_ok(cudaMemcpy(tail.data(), data_ + count_, tail.size(), cudaMemcpyDeviceToHost), "read");
    for (const unsigned char byte : tail) {
      if (byte != 0xff) return false;
    }
    return true;
  }

 private:
  T* data_ = nullptr;
  std::size_t count_;
};

template <typename T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace kv::test
