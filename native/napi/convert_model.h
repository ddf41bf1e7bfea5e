// Model descriptor and runner options: JavaScript objects → the waist's structs. Everything is copied, so that loading
// can go on on another thread after JavaScript has moved on.
#pragma once

#include "abi/kvasir_abi.h"
#include "napi/include_napi.h"

#include <string>
#include <vector>

namespace kv::node {

// Owns what kv_model points to. Not movable: the struct points into the vectors.
class ModelArguments {
 public:
  // Throws Refusal (KV_INVALID_ARGUMENT) where a field cannot be represented; what it means is the backend's to judge.
  explicit ModelArguments(Napi::Value model);
  ModelArguments(const ModelArguments&) = delete;
  ModelArguments& operator=(const ModelArguments&) = delete;

  const kv_model& get() const { return model_; }

 private:
  kv_model model_{};
  std::vector<kv_layer> layers_;
  std::vector<kv_rope> ropes_;
  std::vector<std::vector<double>> frequencies_;
  std::vector<kv_tensor> tensors_;
  std::vector<std::string> paths_;
  std::vector<const char*> files_;
};

// Owns what kv_runner_options points to. Not movable for the same reason.
class RunnerArguments {
 public:
  explicit RunnerArguments(Napi::Value options);
  RunnerArguments(const RunnerArguments&) = delete;
  RunnerArguments& operator=(const RunnerArguments&) = delete;

  const kv_runner_options& get() const { return options_; }

 private:
  kv_runner_options options_{};
  std::string instruction_path_;
};

}  // namespace kv::node
