#include "cuda/runtime/device_model.h"

#include <cuda_fp16.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include "common/checks.h"
#include "cuda/runtime/device.h"
#include "host/mapped_file.h"
#include "host/tensor_roles.h"

namespace kv::cuda {

namespace {

constexpr std::uint64_t kStagingBytes = std::uint64_t{32} << 20;
constexpr std::uint64_t kAlignment = 256;

std::uint64_t round_up(std::uint64_t value) { return (value + kAlignment - 1) / kAlignment * kAlignment; }

float vector_value(std::int32_t dtype, const std::byte* data, std::uint64_t index) {
  if (dtype == KV_F32) {
    float value;
    std::memcpy(&value, data + 4 * index, 4);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, data + 2 * index, 2);
  if (dtype == KV_BF16) return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  __half_raw raw;
  raw.x = bits;
  return __half2float(__half(raw));
}

// Two pinned buffers and their device counterparts, used in turn: one is filled from the file while the other is on its
// way.
class Staging {
 public:
  Staging(DeviceLedger& ledger, std::uint64_t bytes) : bytes_(bytes) {
    for (Lane& lane : lanes_) {
      lane.host = PinnedBuffer<std::byte>(ledger, bytes, "staging buffers");
      lane.device = DeviceBuffer<std::uint8_t>(ledger, ledger.workspace_bytes, bytes, "staging buffers");
    }
  }
  ~Staging() { cudaStreamSynchronize(stream_.get()); }

  std::uint64_t bytes() const { return bytes_; }

  // consume(device pointer, stream) follows the copy of `count` bytes.
  template <typename Consume>
  void send(const std::byte* from, std::uint64_t count, Consume&& consume) {
    Lane& lane = lanes_[next_];
    next_ = 1 - next_;
    lane.free.synchronize();
    std::memcpy(lane.host.data(), from, count);
    check_cuda(cudaMemcpyAsync(lane.device.data(), lane.host.data(), count, cudaMemcpyHostToDevice, stream_.get()),
               "send weights");
    consume(lane.device.data(), stream_.get());
    lane.free.record(stream_.get());
  }
  void finish() { stream_.synchronize(); }

 private:
  struct Lane {
    PinnedBuffer<std::byte> host;
    DeviceBuffer<std::uint8_t> device;
    Event free;
  };
  std::uint64_t bytes_;
  Stream stream_;
  Lane lanes_[2];
  int next_ = 0;
};

void check_extents(const kv_model& description, const std::vector<std::unique_ptr<MappedFile>>& files) {
  for (std::uint32_t i = 0; i < description.n_tensors; ++i) {
    const kv_tensor& tensor = description.tensors[i];
    const MappedFile& file = *files[tensor.file];
    std::uint64_t end = 0;
    check(add(tensor.offset, tensor.bytes, &end), "tensor %u: offset %llu is beyond any file", i,
          static_cast<unsigned long long>(tensor.offset));
    if (end > file.bytes()) {
      fail(KV_FILE_TRUNCATED, "%s: tensor %u needs bytes %llu to %llu, the file has %llu; fetch it again",
           file.path().c_str(), i, static_cast<unsigned long long>(tensor.offset), static_cast<unsigned long long>(end),
           static_cast<unsigned long long>(file.bytes()));
    }
  }
}

}  // namespace

DeviceModel::DeviceModel(const kv_model& description, DeviceLedger& ledger, kv_progress_callback progress,
                         void* user)
    : description_(description) {
  for (std::uint32_t i = 0; i < description.n_layers; ++i) {
    layers_.emplace_back();
    layers_.back().shape = description.layers[i];
  }
  std::vector<std::unique_ptr<MappedFile>> files;
  for (std::uint32_t i = 0; i < description.n_files && !ledger.only_counts; ++i) {
    files.push_back(std::make_unique<MappedFile>(description.files[i]));
    file_bytes_ += files.back()->bytes();
  }
  if (!ledger.only_counts) check_extents(description, files);
  for (const auto& file : files) file->map();

  // One arena: planes of every matrix, f32 copies of every vector, frequencies.
  struct Placed {
    DeviceMatrix matrix;
    PlaneBytes planes;
    std::uint64_t offset;
  };
  std::vector<Placed> placed(description.n_tensors);
  std::uint64_t total = 0, weight_bytes = 0, longest_row = 1;
  for (std::uint32_t i = 0; i < description.n_tensors; ++i) {
    const kv_tensor& tensor = description.tensors[i];
    Placed& at = placed[i];
    at.offset = total;
    weight_bytes += tensor.bytes;
    if (role_spec(tensor.role)->kind == TensorKind::kVector) {
      total += round_up(tensor.shape[0] * sizeof(float));
      continue;
    }
    at.matrix = {};
    at.matrix.dtype = tensor.dtype;
    at.matrix.rows = static_cast<std::int32_t>(tensor.shape[0]);
    at.matrix.cols = static_cast<std::int32_t>(tensor.shape[1]);
    at.planes = plan_planes(at.matrix);
    longest_row = std::max(longest_row, tensor.bytes / tensor.shape[0]);
    total += static_cast<std::uint64_t>(at.planes.total());
  }
  const std::uint64_t ropes_at = total;
  for (std::uint32_t i = 0; i < description.n_ropes; ++i) total += round_up(description.ropes[i].rotary_dim / 2 * 8);
  weights_ = DeviceBuffer<std::uint8_t>(ledger, ledger.weights_bytes, total, "weights");

  staging_bytes_ = 2 * std::max(kStagingBytes, kStripRows * longest_row);
  if (ledger.only_counts) {
    for (std::uint32_t i = 0; i < description.n_tensors; ++i) {
      const kv_tensor& tensor = description.tensors[i];
      if (role_spec(tensor.role)->kind == TensorKind::kVector) continue;
      if (DeviceLinear* place = linear_of(tensor)) place->weight = placed[i].matrix;
    }
    for (std::uint32_t i = 0; i < description.n_ropes; ++i) {
      const kv_rope& rope = description.ropes[i];
      ropes_.push_back({rope.style, static_cast<std::int32_t>(rope.rotary_dim), rope.attention_factor, nullptr});
    }
    forget_description();
    return;
  }

  Staging staging(ledger, staging_bytes_ / 2);
  std::uint64_t done = 0;
  const auto report = [&](std::uint64_t bytes) {
    done += bytes;
    if (bytes != 0 && progress != nullptr && progress(user, done, weight_bytes) != 0) {
      fail(KV_CANCELLED, "loading was cancelled after %llu of %llu bytes", static_cast<unsigned long long>(done),
           static_cast<unsigned long long>(weight_bytes));
    }
  };
  std::vector<float> values;
  for (std::uint32_t i = 0; i < description.n_tensors; ++i) {
    const kv_tensor& tensor = description.tensors[i];
    Placed& at = placed[i];
    const std::byte* data = files[tensor.file]->data() + tensor.offset;
    std::uint8_t* base = weights_.data() + at.offset;
    if (role_spec(tensor.role)->kind == TensorKind::kVector) {
      values.resize(tensor.shape[0]);
      for (std::uint64_t j = 0; j < tensor.shape[0]; ++j) values[j] = vector_value(tensor.dtype, data, j);
      check_cuda(cudaMemcpy(base, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice), "send a vector");
      if (const float** place = vector_of(tensor)) *place = reinterpret_cast<const float*>(base);
      report(tensor.bytes);
      continue;
    }
    DeviceMatrix& matrix = at.matrix;
    place_planes(matrix, at.planes, base);
    const std::uint64_t row_bytes = tensor.bytes / tensor.shape[0];
    const std::uint64_t step = staging.bytes() / row_bytes / kStripRows * kStripRows;
    for (std::uint64_t row = 0; row < tensor.shape[0]; row += step) {
      const std::uint64_t rows = std::min(step, tensor.shape[0] - row);
      staging.send(data + row * row_bytes, rows * row_bytes, [&](const std::uint8_t* raw, cudaStream_t stream) {
        repack(matrix, raw, static_cast<std::int64_t>(row), static_cast<std::int64_t>(rows), stream);
      });
      report(rows * row_bytes);
    }
    if (DeviceLinear* place = linear_of(tensor)) place->weight = matrix;
  }
  staging.finish();
  for (const auto& file : files) {
    if (file->truncated()) {
      fail(KV_FILE_TRUNCATED, "%s: expected %llu bytes, found fewer: the file was cut while it was read; restore it and "
           "load the model again", file->path().c_str(), static_cast<unsigned long long>(file->bytes()));
    }
  }
  if (output_.weight.codes == nullptr) output_.weight = embedding_.weight;
  std::uint64_t rope_at = ropes_at;
  for (std::uint32_t i = 0; i < description.n_ropes; ++i) {
    const kv_rope& rope = description.ropes[i];
    std::uint8_t* to = weights_.data() + rope_at;
    check_cuda(cudaMemcpy(to, rope.inverse_frequencies, rope.rotary_dim / 2 * 8, cudaMemcpyHostToDevice),
               "send frequencies");
    ropes_.push_back({rope.style, static_cast<std::int32_t>(rope.rotary_dim), rope.attention_factor,
                      reinterpret_cast<const double*>(to)});
    rope_at += round_up(rope.rotary_dim / 2 * 8);
  }
  // Streams of ours do not wait for the default one, which carried the vectors.
  check_cuda(cudaDeviceSynchronize(), "load the weights");
  forget_description();
}

void DeviceModel::forget_description() {
  description_.layers = nullptr;
  description_.ropes = nullptr;
  description_.tensors = nullptr;
  description_.files = nullptr;
}

DeviceLinear* DeviceModel::linear_of(const kv_tensor& tensor) {
  if (tensor.layer < 0) return tensor.role == KV_ROLE_OUTPUT ? &output_ : &embedding_;
  DeviceLayer& layer = layers_[static_cast<std::size_t>(tensor.layer)];
  switch (tensor.role) {
    case KV_ROLE_ATTN_Q: return &layer.q;
    case KV_ROLE_ATTN_K: return &layer.k;
    case KV_ROLE_ATTN_V: return &layer.v;
    case KV_ROLE_ATTN_OUTPUT: return &layer.attention_output;
    case KV_ROLE_FFN_GATE: return &layer.gate;
    case KV_ROLE_FFN_UP: return &layer.up;
    case KV_ROLE_FFN_DOWN: return &layer.down;
    default: fail(KV_INTERNAL, "tensor role %d has a description but no place in a layer", tensor.role);
  }
}

const float** DeviceModel::vector_of(const kv_tensor& tensor) {
  if (tensor.layer < 0) return &output_norm_;
  DeviceLayer& layer = layers_[static_cast<std::size_t>(tensor.layer)];
  switch (tensor.role) {
    case KV_ROLE_ATTN_NORM: return &layer.attention_norm;
    case KV_ROLE_ATTN_Q_BIAS: return &layer.q.bias;
    case KV_ROLE_ATTN_K_BIAS: return &layer.k.bias;
    case KV_ROLE_ATTN_V_BIAS: return &layer.v.bias;
    case KV_ROLE_ATTN_Q_NORM: return &layer.q_norm;
    case KV_ROLE_ATTN_K_NORM: return &layer.k_norm;
    case KV_ROLE_ATTN_OUTPUT_BIAS: return &layer.attention_output.bias;
    case KV_ROLE_ATTN_SINKS: return &layer.sinks;
    case KV_ROLE_ATTN_POST_NORM: return &layer.attention_post_norm;
    case KV_ROLE_FFN_NORM: return &layer.ffn_norm;
    case KV_ROLE_FFN_GATE_BIAS: return &layer.gate.bias;
    case KV_ROLE_FFN_UP_BIAS: return &layer.up.bias;
    case KV_ROLE_FFN_DOWN_BIAS: return &layer.down.bias;
    case KV_ROLE_FFN_POST_NORM: return &layer.ffn_post_norm;
    default: fail(KV_INTERNAL, "tensor role %d has a description but no place in a layer", tensor.role);
  }
}

}  // namespace kv::cuda
