#include "cuda/runtime/matrix_library.h"

#include <dlfcn.h>
#include <library_types.h>

#include "common/status.h"

namespace kv::cuda {

namespace {

// Of cuBLAS's stable C interface: cublasStatus_t, cublasOperation_t, cublasComputeType_t and cublasGemmAlgo_t.
constexpr int kAllocationFailed = 3;
constexpr int kPlain = 0, kTransposed = 1, kComputeFloat = 68, kAnyAlgorithm = -1;
constexpr std::uint64_t kScratchBytes = std::uint64_t{32} << 20;
constexpr const char* kNames[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so"};

template <typename Function>
void find(void* library, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  if (function == nullptr) {
    fail(KV_UNSUPPORTED, "fast mode: expected cuBLAS 12 or 13, found a library without %s; install the CUDA toolkit 13 or "
         "choose quantized activations", name);
  }
}

void check_library(int status, const char* what) {
  if (status == kAllocationFailed) {
    fail(KV_OUT_OF_MEMORY, "cuBLAS: %s: expected room for its handle, found none; lower the number of blocks", what);
  }
  if (status != 0) fail(KV_INTERNAL, "cuBLAS: %s: expected success, found status %d; report it", what, status);
}

}  // namespace

MatrixLibrary::MatrixLibrary(DeviceLedger& ledger)
    : scratch_(ledger, ledger.workspace_bytes, kScratchBytes, "matrix library") {
  if (ledger.only_counts) return;
  for (const char* name : kNames) {
    if (library_ == nullptr) library_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  if (library_ == nullptr) {
    fail(KV_UNSUPPORTED, "fast mode: expected cuBLAS (%s) on the library path, found none; install the CUDA toolkit 13 or "
         "choose quantized activations", kNames[0]);
  }
  int (*create)(void**) = nullptr;
  find(library_, "cublasCreate_v2", create);
  find(library_, "cublasSetWorkspace_v2", set_workspace_);
  find(library_, "cublasDestroy_v2", destroy_);
  find(library_, "cublasSetStream_v2", set_stream_);
  find(library_, "cublasGemmEx", multiply_);
  check_library(create(&handle_), "create a handle");
}

// The library itself stays open: it registers with the driver for the life of the process.
MatrixLibrary::~MatrixLibrary() {
  if (handle_ != nullptr) destroy_(handle_);
}

void MatrixLibrary::multiply(const Product& p, cudaStream_t stream) const {
  check_library(set_stream_(handle_, stream), "choose a stream");
  // Choosing a stream resets the workspace to the library's own.
  check_library(set_workspace_(handle_, scratch_.data(), kScratchBytes), "give it workspace");
  const float one = 1.0f, keep = p.add ? 1.0f : 0.0f;
  const int type = p.is_bf16 ? CUDA_R_16BF : CUDA_R_16F;
  // Column-major there: y's transpose is w times x's transpose.
  check_library(multiply_(handle_, kTransposed, kPlain, p.rows, p.tokens, p.cols, &one, p.w, type, p.cols, p.x, type,
                          p.cols, &keep, p.y, CUDA_R_32F, static_cast<int>(p.ldy), kComputeFloat, kAnyAlgorithm),
                "multiply");
}

}  // namespace kv::cuda
