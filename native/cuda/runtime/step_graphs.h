// StepGraphs: decoding steps as CUDA graphs. A step's launches depend on its plan alone, so equal plans replay one graph. A
// graph takes device memory of its own; a plan whose graph found none is launched directly, with the same bits.
#pragma once

#include <cuda_runtime.h>

#include <cstring>
#include <list>

#include "cuda/runtime/step_plan.h"

namespace kv::cuda {

class StepGraphs {
 public:
  StepGraphs() = default;
  ~StepGraphs() { clear(); }
  StepGraphs(const StepGraphs&) = delete;

  // Runs launch(stream) directly the first time a plan is met, captures it the second time and replays it from then on.
  template <typename Launch>
  void run(const StepPlan& plan, cudaStream_t stream, Launch&& launch) {
    Entry& entry = find(plan);
    if (entry.graph == nullptr) {
      if (entry.had_no_memory || ++entry.met == 1) return launch(stream);
      cudaGraph_t graph = nullptr;
      check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture a step");
      try {
        launch(stream);
      } catch (...) {
        cudaStreamEndCapture(stream, &graph);
        if (graph != nullptr) cudaGraphDestroy(graph);
        throw;
      }
      check_cuda(cudaStreamEndCapture(stream, &graph), "capture a step");
      const cudaError_t status = cudaGraphInstantiate(&entry.graph, graph, 0);
      cudaGraphDestroy(graph);
      if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        entry.graph = nullptr;
        entry.had_no_memory = true;
        return launch(stream);
      }
      check_cuda(status, "instantiate a step's graph");
    }
    check_cuda(cudaGraphLaunch(entry.graph, stream), "launch a step's graph");
  }

 private:
  static constexpr std::size_t kMaxEntries = 64;
  struct Entry {
    StepPlan plan;
    int met = 0;
    bool had_no_memory = false;
    cudaGraphExec_t graph = nullptr;
  };

  Entry& find(const StepPlan& plan) {
    for (auto at = entries_.begin(); at != entries_.end(); ++at) {
      if (std::memcmp(&at->plan, &plan, sizeof plan) != 0) continue;
      entries_.splice(entries_.begin(), entries_, at);
      return entries_.front();
    }
    if (entries_.size() >= kMaxEntries) {
      if (entries_.back().graph != nullptr) cudaGraphExecDestroy(entries_.back().graph);
      entries_.pop_back();
    }
    entries_.push_front({plan, 0, false, nullptr});
    return entries_.front();
  }
  void clear() {
    for (Entry& entry : entries_) {
      if (entry.graph != nullptr) cudaGraphExecDestroy(entry.graph);
    }
    entries_.clear();
  }

  std::list<Entry> entries_;  // most recently used first
};

}  // namespace kv::cuda
