// The device, and RAII for what the CUDA runtime hands out. One runner uses one device, the process's first.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "cuda/kernels/launch.h"

namespace kv::cuda {

// The one device used.
inline constexpr int kDevice = 0;

// Name and instruction path of the device. Throws KV_DEVICE_UNAVAILABLE where there is none, or no driver.
struct DeviceInfo {
  std::string name;
  std::string instruction_path;  // "sm_90"
  int multiprocessors;
};
DeviceInfo describe_device();

// The process's rules for the device, before anything is allocated there: kernels get no heap of their own, and caches are
// shared out the same way for all of them. Any number of times.
void configure_device();

struct DeviceBytes {
  std::uint64_t total, free;
};
DeviceBytes device_bytes();

class Stream {
 public:
  Stream() { check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "create a stream"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }
  void synchronize() const { check_cuda(cudaStreamSynchronize(stream_), "wait for the device"); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() { check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "create an event"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  void record(cudaStream_t stream) const { check_cuda(cudaEventRecord(event_, stream), "record an event"); }
  void synchronize() const { check_cuda(cudaEventSynchronize(event_), "wait for the device"); }
  cudaEvent_t get() const { return event_; }
  // Throws when the work before it failed.
  bool is_done() const {
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) return false;
    check_cuda(status, "a step on the device");
    return true;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace kv::cuda
