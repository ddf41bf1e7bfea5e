#include "cuda/runtime/device.h"

#include "common/status.h"

namespace kv::cuda {

namespace {

kv_status status_of(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation:
      return KV_OUT_OF_MEMORY;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorStubLibrary:
    case cudaErrorInvalidDevice:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorNoKernelImageForDevice:
      return KV_DEVICE_UNAVAILABLE;
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorDevicesUnavailable:
      return KV_DEVICE_LOST;
    default:
      return KV_INTERNAL;
  }
}

}  // namespace

void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that is not sticky must not be met again by the next call
  const kv_status kind = status_of(status);
  const char* advice = kind == KV_OUT_OF_MEMORY       ? "lower the number of blocks or the batch limits"
                       : kind == KV_DEVICE_UNAVAILABLE ? "no CUDA device can be used here; use the CPU backend"
                       : kind == KV_DEVICE_LOST        ? "load the model again"
                                                       : "report it";
  fail(kind, "CUDA: %s: expected success, found %s (%s); %s", what, cudaGetErrorName(status),
       cudaGetErrorString(status), advice);
}

DeviceInfo describe_device() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();
    fail(KV_DEVICE_UNAVAILABLE, "no CUDA device: expected one with a driver, found %s; install the driver or use the CPU "
         "backend", status == cudaSuccess ? "none" : cudaGetErrorString(status));
  }
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, kDevice), "read the device's properties");
  if (properties.major != 9 || properties.minor != 0) {
    fail(KV_DEVICE_UNAVAILABLE, "no usable CUDA device: expected compute capability 9.0, found %s with %d.%d; use the CPU "
         "backend", properties.name, properties.major, properties.minor);
  }
  return {properties.name, "sm_90", properties.multiProcessorCount};
}

void configure_device() {
  check_cuda(cudaSetDevice(kDevice), "choose the device");
  check_cuda(cudaDeviceSetLimit(cudaLimitMallocHeapSize, 0), "leave kernels without a heap");
  // No preference beside what each launch asks for (launch.h): preferring L1 makes many sequences slower (EXP-011).
  check_cuda(cudaDeviceSetCacheConfig(cudaFuncCachePreferNone), "set the cache preference");
}

DeviceBytes device_bytes() {
  std::size_t available = 0, total = 0;
  check_cuda(cudaMemGetInfo(&available, &total), "ask how much memory is free");
  return {total, available};
}

}  // namespace kv::cuda
