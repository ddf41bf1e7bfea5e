// Model: a checked descriptor with its weights found: what the step interprets.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "cpu/runtime/kv_pool.h"
#include "host/mapped_file.h"
#include "host/memory.h"

namespace kv::cpu {

struct Linear {
  WeightMatrix weight;  // in the mapped file
  const float* bias;    // (rows), or nullptr
};

struct Rope {
  kv_rope_style style;
  std::uint32_t rotary_dim;
  std::vector<double> inverse_frequencies;  // (rotary_dim / 2)
  double attention_factor;
};

// One layer. Vectors are f32 copies owned by the model; absent ones are nullptr.
struct Layer {
  kv_layer shape;
  const float* attention_norm;       // (hidden)
  Linear q, k, v;                    // (Hq*D, hidden), (Hkv*D, hidden) twice
  const float* q_norm;               // (D)
  const float* k_norm;               // (D)
  const float* sinks;                // (Hq)
  Linear attention_output;           // (hidden, Hq*D)
  const float* attention_post_norm;  // (hidden)
  const float* ffn_norm;             // (hidden)
  Linear gate, up, down;             // (ffn, hidden) twice, (hidden, ffn)
  const float* ffn_post_norm;        // (hidden)
};

class Model {
 public:
  // Checks the descriptor, then every tensor's extent against its file, then maps and reads the files once from start to
  // end, so that the first step meets a warm page cache. Progress counts weight bytes.
  Model(const kv_model* description, MemoryLedger& ledger, kv_progress_callback progress, void* user);

  std::uint32_t hidden() const { return description_.hidden; }
  std::uint32_t vocabulary() const { return description_.vocab; }
  std::uint32_t context_length() const { return description_.context_length; }
  std::uint32_t n_groups() const { return description_.n_groups; }
  float norm_epsilon() const { return description_.norm_epsilon; }
  float embedding_scale() const { return description_.embedding_scale; }
  float logit_scale() const { return description_.logit_scale; }
  float final_logit_softcap() const { return description_.final_logit_softcap; }
  const std::vector<Layer>& layers() const { return layers_; }
  const std::vector<Rope>& ropes() const { return ropes_; }
  const WeightMatrix& embedding() const { return embedding_; }
  const WeightMatrix& output() const { return output_; }
  const float* output_norm() const { return output_norm_; }
  std::uint64_t mapped_bytes() const;
  std::vector<KvLayerShape> kv_shapes() const;

  // Fails with KV_FILE_TRUNCATED when a weight file lost bytes since it was opened; values computed meanwhile are void.
  void check_files() const;

 private:
  void open_files(const kv_model& description);
  void check_extents(const kv_model& description) const;
  void bind_tensors(const kv_model& description, MemoryLedger& ledger);
  void bind(const kv_tensor& tensor, const float* vector, const WeightMatrix& matrix);
  void read_once(const kv_model& description, kv_progress_callback progress, void* user) const;

  kv_model description_;  // scalars only; its pointers are cleared
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::vector<Layer> layers_;
  std::vector<Rope> ropes_;
  WeightMatrix embedding_{};
  WeightMatrix output_{};
  const float* output_norm_ = nullptr;
  Buffer<float> vectors_;
};

}  // namespace kv::cpu
