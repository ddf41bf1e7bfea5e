// The CUDA backend's attention over a paged pool. What only this file can catch: a split, a row tile or a block table that
// shows in the bits, a stale slot that reaches an output, and errors above the stated bound.
#include <cmath>

#include "cuda/kernels/kernels.h"
#include "host/block_tokens.h"
#include "tests/check.h"
#include "tests/cuda_memory.h"
#include "tests/random_weights.h"

namespace {

using namespace kv::test;
using kv::kBlockTokens;

struct Shape {
  std::int32_t heads, kv_heads, D, window;
  float softcap;
  bool sinks;
  std::int32_t dtype;
};

// One layer's attention over two sequences: one with `many` new tokens, one decoding.
struct Case {
  Shape shape;
  std::vector<std::int32_t> cu, positions, tables;
  std::int32_t width = 4;
  std::vector<float> q, k, v, sinks;  // k, v: (sequence, position, Hkv, D) as the pool holds them, in float32

  Case(const Shape& s, std::int32_t many, std::uint64_t seed) : shape(s) {
    const std::int32_t context[] = {700, 513};
    cu = {0, many, many + 1};
    for (std::int32_t t = 0; t < many; ++t) positions.push_back(context[0] - many + t);
    positions.push_back(context[1] - 1);
    tables = {5, 0, 7, 1, 3, 6, 2, 4};
    q = random_floats(static_cast<std::int64_t>(positions.size()) * s.heads * s.D, seed);
    k = random_floats(std::int64_t{2} * 1024 * s.kv_heads * s.D, seed + 1);
    v = random_floats(std::int64_t{2} * 1024 * s.kv_heads * s.D, seed + 2);
    sinks = random_floats(s.heads, seed + 3);
  }
};

// Runs position_heads to fill the pool (as it stores values), then attention.
std::vector<float> run(Case& c, bool split, std::int32_t rows_per_item) {
  const Shape& s = c.shape;
  const std::int32_t value_bytes = s.dtype == KV_F32 ? 4 : 2;
  const std::int64_t half = std::int64_t{s.kv_heads} * kBlockTokens * s.D * value_bytes;
  const OnDevice<std::uint8_t> pool(static_cast<std::size_t>(8 * 2 * half));  // poisoned: NaN in every dtype
  std::vector<std::int32_t> slots;
  const std::int32_t context[] = {700, 513};
  std::vector<float> keys, values;
  for (std::int32_t sequence = 0; sequence < 2; ++sequence) {
    for (std::int32_t p = 0; p < context[sequence]; ++p) {
      slots.push_back(c.tables[static_cast<std::size_t>(sequence * c.width + p / kBlockTokens)] * kBlockTokens +
                      p % kBlockTokens);
      const std::size_t at = static_cast<std::size_t>((sequence * 1024 + p) * s.kv_heads * s.D);
      keys.insert(keys.end(), c.k.begin() + static_cast<std::ptrdiff_t>(at),
                  c.k.begin() + static_cast<std::ptrdiff_t>(at) + s.kv_heads * s.D);
      values.insert(values.end(), c.v.begin() + static_cast<std::ptrdiff_t>(at),
                    c.v.begin() + static_cast<std::ptrdiff_t>(at) + s.kv_heads * s.D);
    }
  }
  const auto T = static_cast<std::int32_t>(slots.size());
  const OnDevice<float> k_at(keys), v_at(values), dummy(static_cast<std::size_t>(T * s.heads * s.D));
  const OnDevice<std::int32_t> slots_at(slots);
  kv::cuda::HeadsArgs heads{};
  heads.q = dummy.data();
  heads.k = k_at.data();
  heads.v = v_at.data();
  heads.slots = slots_at.data();
  heads.pool = pool.data();
  heads.block_bytes = 2 * half;
  heads.value_offset = half;
  heads.n_heads = s.heads;
  heads.n_kv_heads = s.kv_heads;
  heads.head_dim = s.D;
  heads.dtype = s.dtype;
  heads.tokens = T;
  kv::cuda::position_heads(heads, nullptr);

  std::vector<kv::cuda::AttentionItem> items;
  const std::int32_t group = s.heads / s.kv_heads;
  for (std::int32_t sequence = 0; sequence < 2; ++sequence) {
    const std::int32_t rows =
        (c.cu[static_cast<std::size_t>(sequence) + 1] - c.cu[static_cast<std::size_t>(sequence)]) * group;
    for (std::int32_t head = 0; head < s.kv_heads; ++head) {
      for (std::int32_t first = 0; first < rows; first += rows_per_item) {
        const std::int32_t count = std::min(rows_per_item, rows - first), begin = c.cu[static_cast<std::size_t>(sequence)];
        const auto position = [&](std::int32_t row) { return c.positions[static_cast<std::size_t>(begin + row / group)]; };
        items.push_back({sequence, head, first, count, begin, position(0), position(first), position(first + count - 1)});
      }
    }
  }
  const OnDevice<kv::cuda::AttentionItem> items_at(items);
  const OnDevice<std::int32_t> cu(c.cu), positions(c.positions), tables(c.tables);
  const OnDevice<float> q(c.q), out(c.q.size()), sinks(c.sinks);
  const OnDevice<float> states(items.size() * static_cast<std::size_t>(4 * c.width * kv::cuda::kFewRows * (s.D + 2)));
  kv::cuda::AttentionArgs args{};
  args.q = q.data();
  args.out = out.data();
  args.sinks = s.sinks ? sinks.data() : nullptr;
  args.pool = pool.data();
  args.block_bytes = 2 * half;
  args.value_offset = half;
  args.items = items_at.data();
  args.positions = positions.data();
  args.cu_seqlens = cu.data();
  args.block_tables = tables.data();
  args.states = states.data();
  args.table_width = c.width;
  args.n_items = static_cast<std::int32_t>(items.size());
  args.n_splits = split ? 4 * c.width : 0;
  args.rows_per_item = rows_per_item;
  args.n_heads = s.heads;
  args.n_kv_heads = s.kv_heads;
  args.head_dim = s.D;
  args.window = s.window;
  args.dtype = s.dtype;
  args.scale = 1.0f / std::sqrt(static_cast<float>(s.D));
  args.softcap = s.softcap;
  if (rows_per_item == kv::cuda::kTensorRows) {
    kv::cuda::tensor_attention(args, nullptr);
  } else {
    kv::cuda::attention(args, nullptr);
  }
  const std::vector<float> result = out.read();
  KV_CHECK(out.end_is_intact());
  return result;
}

double as_stored(std::int32_t dtype, float value) {
  if (dtype == KV_F32) return value;
  if (dtype == KV_BF16) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  return static_cast<double>(static_cast<float>(static_cast<_Float16>(value)));
}

// Bound: 2e-6 of the largest value of V, which is 1.
double worst_error(const Case& c, const std::vector<float>& got) {
  const Shape& s = c.shape;
  const std::int32_t group = s.heads / s.kv_heads;
  double worst = 0;
  for (std::int32_t sequence = 0; sequence < 2; ++sequence) {
    for (std::int32_t t = c.cu[static_cast<std::size_t>(sequence)]; t < c.cu[static_cast<std::size_t>(sequence) + 1]; ++t) {
      const std::int32_t position = c.positions[static_cast<std::size_t>(t)];
      const std::int32_t begin = s.window > 0 ? std::max(0, position - s.window + 1) : 0;
      for (std::int32_t head = 0; head < s.heads; ++head) {
        const float* q = c.q.data() + (std::int64_t{t} * s.heads + head) * s.D;
        std::vector<double> scores;
        double most = s.sinks ? c.sinks[static_cast<std::size_t>(head)] : -1e300;
        for (std::int32_t p = begin; p <= position; ++p) {
          double score = 0;
          const std::int64_t at = (std::int64_t{sequence} * 1024 + p) * s.kv_heads * s.D + head / group * s.D;
          for (std::int32_t d = 0; d < s.D; ++d) score += q[d] * as_stored(s.dtype, c.k[static_cast<std::size_t>(at + d)]);
          score /= std::sqrt(static_cast<double>(s.D));
          if (s.softcap > 0) score = s.softcap * std::tanh(score / s.softcap);
          scores.push_back(score);
          most = std::max(most, score);
        }
        double sum = s.sinks ? std::exp(c.sinks[static_cast<std::size_t>(head)] - most) : 0;
        for (double& score : scores) sum += score = std::exp(score - most);
        for (std::int32_t d = 0; d < s.D; ++d) {
          double expected = 0;
          for (std::int32_t p = begin; p <= position; ++p) {
            const std::int64_t at = (std::int64_t{sequence} * 1024 + p) * s.kv_heads * s.D + head / group * s.D;
            expected += scores[static_cast<std::size_t>(p - begin)] / sum * as_stored(s.dtype, c.v[static_cast<std::size_t>(at + d)]);
          }
          const double error = std::fabs(got[static_cast<std::size_t>((std::int64_t{t} * s.heads + head) * s.D + d)] - expected);
          worst = error > worst || std::isnan(error) ? error : worst;
        }
      }
    }
  }
  return worst;
}

KV_TEST("attention stays within 2e-6 of float64, and its bits do not depend on splits or row tiles") {
  const Shape shapes[] = {
      {7, 1, 128, 0, 0, false, KV_F16},  {4, 2, 64, 100, 0, true, KV_BF16}, {8, 8, 20, 0, 30, false, KV_F32},
      {16, 2, 96, 300, 0, true, KV_F16}, {3, 1, 7, 0, 0, false, KV_F16},    {2, 1, 256, 0, 0, false, KV_F32},
      {2, 2, 512, 0, 0, false, KV_BF16},
  };
  std::uint64_t seed = 100;
  for (const Shape& shape : shapes) {
    for (const std::int32_t many : {1, 37}) {
      Case c(shape, many, seed += 10);
      const std::vector<float> walked = run(c, false, kv::cuda::kFewRows);
      const std::vector<float> split = run(c, true, kv::cuda::kFewRows);
      KV_CHECK_MSG(same_bytes(walked, split), "head %d, window %d: split differs", shape.D, shape.window);
      KV_CHECK_MSG(same_bytes(walked, run(c, true, 3)), "head %d, window %d: rows by 3 differ", shape.D, shape.window);
      if (shape.D <= kv::cuda::kManyRowsHeadDim) {
        KV_CHECK_MSG(same_bytes(walked, run(c, false, kv::cuda::kManyRows)), "head %d: many rows differ", shape.D);
      }
      const double error = worst_error(c, walked);
      KV_CHECK_MSG(error <= 2e-6, "head %d, window %d, dtype %d: %g", shape.D, shape.window, shape.dtype, error);
    }
  }
}

// Q and the softmax's weights lose 11 (bf16: 8) bits each: bound 2^-10 (2^-7) of the largest value of V.
KV_TEST("attention on matrix units stays within its 16-bit operands' rounding of float64") {
  const Shape shapes[] = {
      {7, 1, 128, 0, 0, false, KV_F16},  {28, 4, 128, 0, 0, false, KV_F16}, {4, 2, 64, 100, 0, true, KV_BF16},
      {8, 8, 64, 0, 30, false, KV_F16},  {16, 2, 128, 300, 0, true, KV_F16}, {5, 1, 128, 0, 0, false, KV_BF16},
  };
  std::uint64_t seed = 500;
  for (const Shape& shape : shapes) {
    KV_CHECK(kv::cuda::tensor_attention_applies(shape.D, shape.dtype));
    for (const std::int32_t many : {1, 37, 300}) {
      Case c(shape, many, seed += 10);
      const double error = worst_error(c, run(c, false, kv::cuda::kTensorRows));
      KV_CHECK_MSG(error <= (shape.dtype == KV_BF16 ? 0x1p-7 : 0x1p-10), "head %d, window %d, dtype %d, %d new: %g",
                   shape.D, shape.window, shape.dtype, many, error);
    }
  }
  KV_CHECK(!kv::cuda::tensor_attention_applies(96, KV_F16) && !kv::cuda::tensor_attention_applies(128, KV_F32));
}

KV_TEST("rotation by tables of the device is the definition's, both styles") {
  for (const std::int32_t style : {KV_ROPE_HALVES, KV_ROPE_INTERLEAVED}) {
    const std::int32_t D = 24, half = 8, T = 5;
    std::vector<double> frequencies;
    for (std::int32_t i = 0; i < half; ++i) frequencies.push_back(std::pow(10000.0, -i / 8.0));
    const std::vector<std::int32_t> positions = {0, 1, 77, 4095, 131071};
    const std::vector<float> q = random_floats(T * 2 * D, 1), kv = random_floats(T * D, 2);
    const OnDevice<double> frequencies_at(frequencies);
    const OnDevice<std::int32_t> positions_at(positions), slots(std::vector<std::int32_t>(T, -1));
    const OnDevice<float> cosines(T * half), sines(T * half), q_at(q), k_at(kv);
    kv::cuda::rope_tables({frequencies_at.data(), positions_at.data(), cosines.data(), sines.data(), 1.25, half, T}, nullptr);
    kv::cuda::HeadsArgs args{};
    args.q = q_at.data();
    args.k = args.v = k_at.data();
    args.cosines = cosines.data();
    args.sines = sines.data();
    args.slots = slots.data();
    args.n_heads = 2;
    args.n_kv_heads = 1;
    args.head_dim = D;
    args.rotary_dim = 2 * half;
    args.rope_style = style;
    args.tokens = T;
    kv::cuda::position_heads(args, nullptr);
    const std::vector<float> got = q_at.read();
    for (std::int32_t t = 0; t < T; ++t) {
      for (std::int32_t head = 0; head < 2; ++head) {
        const std::size_t at = static_cast<std::size_t>((t * 2 + head) * D);
        for (std::int32_t i = 0; i < half; ++i) {
          const auto a = static_cast<std::size_t>(style == KV_ROPE_HALVES ? i : 2 * i);
          const auto b = static_cast<std::size_t>(style == KV_ROPE_HALVES ? i + half : 2 * i + 1);
          const double angle = positions[static_cast<std::size_t>(t)] * frequencies[static_cast<std::size_t>(i)];
          const double c = std::cos(angle) * 1.25, s = std::sin(angle) * 1.25;
          KV_CHECK(std::fabs(got[at + a] - (q[at + a] * c - q[at + b] * s)) < 1e-6);
          KV_CHECK(std::fabs(got[at + b] - (q[at + b] * c + q[at + a] * s)) < 1e-6);
        }
        for (std::int32_t d = 2 * half; d < D; ++d) KV_CHECK(got[at + static_cast<std::size_t>(d)] == q[at + static_cast<std::size_t>(d)]);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
