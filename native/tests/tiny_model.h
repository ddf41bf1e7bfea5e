// A model of random weights in a temporary file, small enough for tests and complete enough for every branch of a step.
#pragma once

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "abi/kvasir_abi.h"
#include "common/dtype.h"
#include "tests/random_weights.h"

namespace kv::test {

struct TinyShape {
  std::uint32_t n_layers = 2;
  std::uint32_t hidden = 64;
  std::uint32_t n_heads = 4;
  std::uint32_t n_kv_heads = 2;
  std::uint32_t head_dim = 16;
  std::uint32_t ffn = 96;
  std::uint32_t vocab = 301;
  std::uint32_t context_length = 4096;
  kv_dtype weights = KV_F32;
  kv_rope_style rope_style = KV_ROPE_HALVES;
  std::uint32_t rotary_dim = 16;
  bool biases = false;
  bool head_norms = false;
  bool post_norms = false;
  bool sinks = false;
  bool tied = true;
  float logit_softcap = 0;
  std::uint32_t window_of_odd_layers = 0;  // not 0: odd layers are a second, windowed group
  kv_activation activation = KV_ACT_SILU;
};

// Owns the file and everything kv_model points to. Fields are public: tests of hostile descriptors change them.
class TinyModel {
 public:
  explicit TinyModel(const TinyShape& shape, std::uint64_t seed = 1) : shape_(shape), random_(seed) {
    char name[] = "/tmp/kvasir-tiny-XXXXXX";
    const int descriptor = mkstemp(name);
    if (descriptor < 0) throw std::runtime_error("mkstemp failed");
    close(descriptor);
    path = name;
    for (std::uint32_t i = 0; i < shape.rotary_dim / 2; ++i) {
      frequencies.push_back(std::pow(10000.0, -2.0 * i / shape.rotary_dim));
    }
    add_matrix(KV_ROLE_TOKEN_EMBEDDING, -1, shape.vocab, shape.hidden);
    add_vector(KV_ROLE_OUTPUT_NORM, -1, shape.hidden, 1.0f);
    if (!shape.tied) add_matrix(KV_ROLE_OUTPUT, -1, shape.vocab, shape.hidden);
    for (std::uint32_t layer = 0; layer < shape.n_layers; ++layer) add_layer(static_cast<std::int32_t>(layer));
    write_file();
    fill_model();
  }
  ~TinyModel() { unlink(path.c_str()); }
  TinyModel(const TinyModel&) = delete;

  std::string path;
  std::vector<std::byte> bytes;
  std::vector<double> frequencies;
  std::vector<kv_tensor> tensors;
  std::vector<kv_layer> layers;
  std::vector<kv_rope> ropes;
  std::vector<const char*> files;
  kv_model model{};

  const TinyShape& shape() const { return shape_; }

 private:
  void add_layer(std::int32_t layer) {
    const std::uint32_t q = shape_.n_heads * shape_.head_dim;
    const std::uint32_t kv = shape_.n_kv_heads * shape_.head_dim;
    add_vector(KV_ROLE_ATTN_NORM, layer, shape_.hidden, 1.0f);
    add_matrix(KV_ROLE_ATTN_Q, layer, q, shape_.hidden);
    add_matrix(KV_ROLE_ATTN_K, layer, kv, shape_.hidden);
    add_matrix(KV_ROLE_ATTN_V, layer, kv, shape_.hidden);
    add_matrix(KV_ROLE_ATTN_OUTPUT, layer, shape_.hidden, q);
    add_vector(KV_ROLE_FFN_NORM, layer, shape_.hidden, 1.0f);
    add_matrix(KV_ROLE_FFN_GATE, layer, shape_.ffn, shape_.hidden);
    add_matrix(KV_ROLE_FFN_UP, layer, shape_.ffn, shape_.hidden);
    add_matrix(KV_ROLE_FFN_DOWN, layer, shape_.hidden, shape_.ffn);
    if (shape_.biases) {
      add_vector(KV_ROLE_ATTN_Q_BIAS, layer, q, 0.0f);
      add_vector(KV_ROLE_ATTN_K_BIAS, layer, kv, 0.0f);
      add_vector(KV_ROLE_ATTN_V_BIAS, layer, kv, 0.0f);
    }
    if (shape_.head_norms) {
      add_vector(KV_ROLE_ATTN_Q_NORM, layer, shape_.head_dim, 1.0f);
      add_vector(KV_ROLE_ATTN_K_NORM, layer, shape_.head_dim, 1.0f);
    }
    if (shape_.post_norms) {
      add_vector(KV_ROLE_ATTN_POST_NORM, layer, shape_.hidden, 1.0f);
      add_vector(KV_ROLE_FFN_POST_NORM, layer, shape_.hidden, 1.0f);
    }
    if (shape_.sinks) add_vector(KV_ROLE_ATTN_SINKS, layer, shape_.n_heads, 0.0f);
  }

  void add_tensor(kv_role role, std::int32_t layer, kv_dtype dtype, std::vector<std::uint64_t> extents,
                  const std::vector<std::byte>& data) {
    kv_tensor tensor{};
    tensor.size = sizeof tensor;
    tensor.role = role;
    tensor.layer = layer;
    tensor.dtype = dtype;
    tensor.rank = static_cast<std::uint32_t>(extents.size());
    for (std::size_t i = 0; i < extents.size(); ++i) tensor.shape[i] = extents[i];
    bytes.resize((bytes.size() + 31) / 32 * 32);
    tensor.offset = bytes.size();
    tensor.bytes = data.size();
    bytes.insert(bytes.end(), data.begin(), data.end());
    tensors.push_back(tensor);
  }

  void add_matrix(kv_role role, std::int32_t layer, std::uint32_t rows, std::uint32_t cols) {
    std::vector<std::byte> data = random_weights(shape_.weights, rows, cols, random_.next());
    // Smaller than random_weights makes them, so that attention does not saturate.
    if (shape_.weights == KV_F32) {
      for (std::size_t i = 0; i < data.size(); i += 4) {
        float value;
        std::memcpy(&value, &data[i], 4);
        value *= 3.0f / std::sqrt(static_cast<float>(cols));
        std::memcpy(&data[i], &value, 4);
      }
    } else if (shape_.weights == KV_Q8_0) {
      for (std::size_t i = 0; i < data.size(); i += 34) {
        data[i] = std::byte(random_.below(256));
        data[i + 1] = std::byte{0x14};  // scales of 2^-10 to 1.25 * 2^-10
      }
    } else if (shape_.weights == KV_BF16) {
      for (std::size_t i = 0; i < data.size(); i += 2) {
        std::uint32_t bits = static_cast<std::uint32_t>(data[i]) << 16 | static_cast<std::uint32_t>(data[i + 1]) << 24;
        float value;
        std::memcpy(&value, &bits, 4);
        value *= 3.0f / std::sqrt(static_cast<float>(cols));
        std::memcpy(&data[i], reinterpret_cast<const char*>(&value) + 2, 2);
      }
    } else if (shape_.weights == KV_Q4_K) {
      for (std::size_t i = 0; i < data.size(); i += 144) {
        data[i] = data[i + 2] = std::byte{0};
        data[i + 1] = std::byte{0x0c};  // d 2^-12, dmin 2^-9: values on both sides of 0
        data[i + 3] = std::byte{0x18};
      }
    } else if (shape_.weights == KV_Q6_K) {
      for (std::size_t i = 208; i < data.size(); i += 210) {
        data[i] = std::byte{0};
        data[i + 1] = std::byte{0x04};  // d 2^-14
      }
    }
    add_tensor(role, layer, shape_.weights, {rows, cols}, data);
  }

  void add_vector(kv_role role, std::int32_t layer, std::uint32_t n, float center) {
    std::vector<std::byte> data(n * 4);
    for (std::uint32_t i = 0; i < n; ++i) {
      const float value = center + 0.25f * random_.uniform();
      std::memcpy(&data[i * 4], &value, 4);
    }
    add_tensor(role, layer, KV_F32, {n}, data);
  }

  void write_file() const {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    if (file == nullptr || std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size()) {
      throw std::runtime_error("cannot write " + path);
    }
    std::fclose(file);
  }

  void fill_model() {
    files = {path.c_str()};
    ropes = {{sizeof(kv_rope), shape_.rope_style, shape_.rotary_dim, frequencies.data(), 1.0}};
    for (std::uint32_t i = 0; i < shape_.n_layers; ++i) {
      kv_layer layer{};
      layer.size = sizeof layer;
      const bool windowed = shape_.window_of_odd_layers != 0 && i % 2 == 1;
      layer.group = windowed ? 1 : 0;
      layer.window_tokens = windowed ? shape_.window_of_odd_layers : 0;
      layer.n_heads = shape_.n_heads;
      layer.n_kv_heads = shape_.n_kv_heads;
      layer.head_dim = shape_.head_dim;
      layer.softmax_scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
      layer.logit_softcap = shape_.logit_softcap;
      layer.activation = shape_.activation;
      layer.ffn_dim = shape_.ffn;
      layers.push_back(layer);
    }
    model.size = sizeof model;
    model.n_layers = shape_.n_layers;
    model.hidden = shape_.hidden;
    model.vocab = shape_.vocab;
    model.context_length = shape_.context_length;
    model.n_groups = shape_.window_of_odd_layers != 0 ? 2 : 1;
    model.n_ropes = 1;
    model.n_tensors = static_cast<std::uint32_t>(tensors.size());
    model.n_files = 1;
    model.norm_epsilon = 1e-5f;
    model.embedding_scale = 1;
    model.logit_scale = 1;
    model.layers = layers.data();
    model.ropes = ropes.data();
    model.tensors = tensors.data();
    model.files = files.data();
  }

  TinyShape shape_;
  Random random_;
};

}  // namespace kv::test
