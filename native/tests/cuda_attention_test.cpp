// The CUDA backend's attention over a paged pool. What only this file can catch: a split, a row tile or a block table that
// shows in the bits, a stale slot that reaches an output, records that are not the CPU backend's, and errors above the
// stated bounds.
#include <algorithm>
#include <cmath>

#include "cpu/kernels/kernels.h"
#include "cpu/runtime/kv_pool.h"
#include "cuda/kernels/kernels.h"
#include "host/block_tokens.h"
#include "host/kv_format.h"
#include "tests/check.h"
#include "tests/cuda_memory.h"
#include "tests/half_float.h"
#include "tests/kernel_paths.h"
#include "tests/random_weights.h"

namespace {

using namespace kv::test;
using kv::kBlockTokens;

constexpr std::int32_t kContext[] = {700, 513};  // tokens of the two sequences
constexpr std::int32_t kBlocks = 8;

struct Shape {
  std::int32_t heads, kv_heads, D, window;
  float softcap;
  bool sinks;
  kv_dtype dtype;
  float loud = 1;  // of the queries

  std::int64_t record() const { return kv::kv_record_bytes(dtype, static_cast<std::uint32_t>(D)); }
  std::int64_t half() const { return std::int64_t{kv_heads} * kBlockTokens * record(); }  // K, or V, of a block
};

double half_value(const std::uint8_t* at) {
  Half half;
  std::memcpy(&half, at, 2);
  return static_cast<double>(half);
}

// Value d of a record as its format defines it.
double stored_value(const Shape& s, const std::uint8_t* record, std::int32_t d) {
  if (s.dtype == KV_F32) {
    float value;
    std::memcpy(&value, record + 4 * d, 4);
    return static_cast<double>(value);
  }
  if (s.dtype == KV_F16) return half_value(record + 2 * d);
  if (s.dtype == KV_BF16) {
    std::uint32_t bits = static_cast<std::uint32_t>(record[2 * d] << 16 | record[2 * d + 1] << 24);
    float value;
    std::memcpy(&value, &bits, 4);
    return static_cast<double>(value);
  }
  const auto group = static_cast<std::int32_t>(kv::kv_group_values(static_cast<std::uint32_t>(s.D)));
  const std::int32_t g = d / group, i = d % group, groups = s.D / group;
  if (s.dtype == KV_Q8) return static_cast<std::int8_t>(record[d]) * half_value(record + s.D + 2 * g);
  const std::uint8_t byte = record[g * (group / 2) + i % (group / 2)];
  const std::uint8_t* headers = record + s.D / 2;
  return half_value(headers + 2 * (groups + g)) + half_value(headers + 2 * g) * (i < group / 2 ? byte & 15 : byte >> 4);
}

// One layer's attention over two sequences: one with `many` new tokens, one decoding. The pool is filled by position_heads,
// every other slot of its 8 blocks holds bytes of ones: NaN in every format.
struct Case {
  Shape shape;
  std::vector<std::int32_t> cu, positions, tables{5, 0, 7, 1, 3, 6, 2, 4};
  std::int32_t width = 4;
  std::vector<float> q, sinks;
  OnDevice<std::uint8_t> pool;
  std::vector<std::uint8_t> stored;

  Case(const Shape& s, std::int32_t many, std::uint64_t seed)
      : shape(s), cu{0, many, many + 1}, pool(static_cast<std::size_t>(kBlocks * 2 * s.half())) {
    for (std::int32_t t = 0; t < many; ++t) positions.push_back(kContext[0] - many + t);
    positions.push_back(kContext[1] - 1);
    q = random_floats(static_cast<std::int64_t>(positions.size()) * s.heads * s.D, seed);
    for (float& x : q) x *= s.loud;
    sinks = random_floats(s.heads, seed + 3);
    std::vector<std::int32_t> slots;
    for (std::int32_t sequence = 0; sequence < 2; ++sequence) {
      for (std::int32_t p = 0; p < kContext[sequence]; ++p) slots.push_back(slot_of(sequence, p));
    }
    const auto T = static_cast<std::int32_t>(slots.size());
    const OnDevice<float> k(random_floats(std::int64_t{T} * s.kv_heads * s.D, seed + 1));
    const OnDevice<float> v(random_floats(std::int64_t{T} * s.kv_heads * s.D, seed + 2));
    const OnDevice<float> dummy(static_cast<std::size_t>(T * s.heads * s.D));
    const OnDevice<std::int32_t> slots_at(slots);
    kv::cuda::HeadsArgs heads{};
    heads.q = dummy.data();
    heads.k = k.data();
    heads.v = v.data();
    heads.slots = slots_at.data();
    heads.pool = pool.data();
    heads.block_bytes = 2 * s.half();
    heads.value_offset = s.half();
    heads.n_heads = s.heads;
    heads.n_kv_heads = s.kv_heads;
    heads.head_dim = s.D;
    heads.dtype = s.dtype;
    heads.tokens = T;
    kv::cuda::position_heads(heads, nullptr);
    stored = pool.read();
  }

  std::int32_t slot_of(std::int32_t sequence, std::int32_t p) const {
    return tables[static_cast<std::size_t>(sequence * width + p / kBlockTokens)] * kBlockTokens + p % kBlockTokens;
  }
  const std::uint8_t* record(bool is_value, std::int32_t sequence, std::int32_t p, std::int32_t kv_head) const {
    const std::int32_t slot = slot_of(sequence, p);
    return stored.data() + slot / kBlockTokens * 2 * shape.half() + (is_value ? shape.half() : 0) +
           (std::int64_t{kv_head} * kBlockTokens + slot % kBlockTokens) * shape.record();
  }
};

std::vector<float> run(const Case& c, bool split, std::int32_t rows_per_item) {
  const Shape& s = c.shape;
  std::vector<kv::cuda::AttentionItem> items;
  const std::int32_t group = s.heads / s.kv_heads;
  std::int32_t state_rows = 0;
  for (std::int32_t sequence = 0; sequence < 2; ++sequence) {
    const std::int32_t rows =
        (c.cu[static_cast<std::size_t>(sequence) + 1] - c.cu[static_cast<std::size_t>(sequence)]) * group;
    for (std::int32_t head = 0; head < s.kv_heads; ++head) {
      for (std::int32_t first = 0; first < rows; first += rows_per_item) {
        const std::int32_t count = std::min(rows_per_item, rows - first), begin = c.cu[static_cast<std::size_t>(sequence)];
        const auto position = [&](std::int32_t row) { return c.positions[static_cast<std::size_t>(begin + row / group)]; };
        items.push_back({sequence, head, first, count, begin, position(0), position(first), position(first + count - 1),
                         state_rows});
        state_rows += count;
      }
    }
  }
  const std::int32_t n_splits =
      c.width * kBlockTokens / kv::cuda::attention_tiles(s.D, s.dtype).span_tokens;
  const OnDevice<kv::cuda::AttentionItem> items_at(items);
  const OnDevice<std::int32_t> positions(c.positions), tables(c.tables);
  const OnDevice<float> q(c.q), out(c.q.size()), sinks(c.sinks);
  const OnDevice<float> states(static_cast<std::size_t>(state_rows * n_splits * kv::cuda::state_floats(s.D)));
  kv::cuda::AttentionArgs args{};
  args.q = q.data();
  args.out = out.data();
  args.sinks = s.sinks ? sinks.data() : nullptr;
  args.pool = c.pool.data();
  args.block_bytes = 2 * s.half();
  args.value_offset = s.half();
  args.items = items_at.data();
  args.positions = positions.data();
  args.block_tables = tables.data();
  args.states = states.data();
  args.table_width = c.width;
  args.n_items = static_cast<std::int32_t>(items.size());
  args.n_splits = split ? n_splits : 0;
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
  KV_CHECK(out.end_is_intact() && states.end_is_intact());
  return result;
}

// Largest difference from a float64 softmax over what the pool stores; values of V are at most about 1.
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
        std::vector<double> scores, expected(static_cast<std::size_t>(s.D), 0.0);
        double most = s.sinks ? static_cast<double>(c.sinks[static_cast<std::size_t>(head)]) : -1e300;
        for (std::int32_t p = begin; p <= position; ++p) {
          double score = 0;
          const std::uint8_t* key = c.record(false, sequence, p, head / group);
          for (std::int32_t d = 0; d < s.D; ++d) score += static_cast<double>(q[d]) * stored_value(s, key, d);
          score /= std::sqrt(static_cast<double>(s.D));
          if (s.softcap > 0) score = static_cast<double>(s.softcap) * std::tanh(score / static_cast<double>(s.softcap));
          scores.push_back(score);
          most = std::max(most, score);
        }
        double sum = s.sinks ? std::exp(static_cast<double>(c.sinks[static_cast<std::size_t>(head)]) - most) : 0;
        for (double& score : scores) sum += score = std::exp(score - most);
        for (std::int32_t p = begin; p <= position; ++p) {
          const std::uint8_t* value = c.record(true, sequence, p, head / group);
          const double weight = scores[static_cast<std::size_t>(p - begin)] / sum;
          for (std::int32_t d = 0; d < s.D; ++d) expected[static_cast<std::size_t>(d)] += weight * stored_value(s, value, d);
        }
        for (std::int32_t d = 0; d < s.D; ++d) {
          const double got_one = static_cast<double>(got[static_cast<std::size_t>((std::int64_t{t} * s.heads + head) * s.D + d)]);
          const double error = std::fabs(got_one - expected[static_cast<std::size_t>(d)]);
          worst = error > worst || std::isnan(error) ? error : worst;
        }
      }
    }
  }
  return worst;
}

// Both forms, and items of several sizes, against each other and float64. Small test runs under the sanitizers' tools take
// one number of new tokens (KVASIR_TEST_SMALL set).
void check_strict(const Shape& shape, const std::vector<std::int32_t>& item_rows, double bound, std::uint64_t seed) {
  const kv::cuda::AttentionTiles tiles = kv::cuda::attention_tiles(shape.D, shape.dtype);
  for (const std::int32_t many : {1, 9, 37}) {
    if (many != 9 && std::getenv("KVASIR_TEST_SMALL") != nullptr) continue;
    const Case c(shape, many, seed + static_cast<std::uint64_t>(many));
    const std::vector<float> walked = run(c, false, tiles.walk_rows);
    for (const std::int32_t rows : item_rows) {
      KV_CHECK_MSG(same_bytes(walked, run(c, true, rows)), "head %d, dtype %d, window %d, %d new: split by %d rows differs",
                   shape.D, shape.dtype, shape.window, many, rows);
    }
    const double error = worst_error(c, walked);
    std::printf("head %d, dtype %d, %d of %d heads, window %d, %d new: off by %.2g\n", shape.D, shape.dtype, shape.kv_heads,
                shape.heads, shape.window, many, error);
    KV_CHECK_MSG(error <= bound, "head %d, dtype %d, window %d, %d new: %g", shape.D, shape.dtype, shape.window, many, error);
  }
}

KV_TEST("attention in float32 stays within 2e-6 of float64, and its bits do not depend on splits or row tiles") {
  const Shape shapes[] = {
      {7, 1, 128, 0, 0, false, KV_F32},  {8, 8, 20, 0, 30, false, KV_F32}, {16, 2, 96, 300, 0, true, KV_F16},
      {3, 1, 7, 0, 0, false, KV_F16},    {2, 1, 256, 0, 0, false, KV_F32}, {2, 2, 512, 0, 0, false, KV_BF16},
      {4, 2, 40, 100, 0, true, KV_Q8},   {5, 1, 192, 0, 0, false, KV_Q8},  {6, 2, 8, 0, 0, false, KV_Q4},
      {4, 1, 24, 0, 30, false, KV_Q4},   {2, 1, 256, 0, 0, false, KV_Q4},
  };
  std::uint64_t seed = 100;
  for (const Shape& shape : shapes) {
    KV_CHECK(!kv::cuda::attention_on_matrix_units(shape.D, shape.dtype));
    check_strict(shape, {kv::cuda::kRowItemRows, 3}, 2e-6, seed += 100);
  }
}

KV_TEST("attention on matrix units stays within 2e-6 (loud queries: 2e-5) of float64 whatever splits and tiles, bit for bit") {
  std::uint64_t seed = 5000;
  for (const kv_dtype dtype : {KV_F16, KV_BF16, KV_Q8, KV_Q4}) {
    const Shape shapes[] = {
        {7, 1, 128, 0, 0, false, dtype},    {28, 4, 128, 0, 0, false, dtype, 30}, {16, 2, 128, 300, 0, true, dtype},
        {8, 2, 64, 100, 0, true, dtype, 5}, {8, 8, 64, 0, 30, false, dtype},      {20, 2, 64, 0, 0, false, dtype},
    };
    for (const Shape& shape : shapes) {
      KV_CHECK(kv::cuda::attention_on_matrix_units(shape.D, shape.dtype));
      check_strict(shape, {kv::cuda::kSplitRows, 8, 3, 1}, shape.loud > 1 ? 2e-5 : 2e-6, seed += 100);
    }
  }
}

KV_TEST("blocks of every dtype cross to the CPU backend and back: the same payload, byte for byte, and the same queries") {
  const kv::cpu::KernelTable& cpu = *kernel_paths()[0];
  for (const kv_dtype dtype : {KV_F32, KV_F16, KV_BF16, KV_Q8, KV_Q4}) {
    for (const std::int32_t D : {8, 16, 24, 40, 64, 128, 192, 512}) {
      const Shape s{2, 2, D, 0, 0, false, dtype};
      constexpr std::int32_t kTokens = 6;
      std::vector<float> q = random_floats(kTokens * 2 * D, 1), k = random_floats(kTokens * 2 * D, 2);
      std::vector<float> v = random_floats(kTokens * 2 * D, 3);
      for (std::size_t d = 0; d < static_cast<std::size_t>(D); ++d) {
        v[d] = 0.0f;                                                                // zeros
        v[static_cast<std::size_t>(2 * D) + d] = -0.75f;                            // a constant group
        k[static_cast<std::size_t>(2 * D) + d] *= 1e-6f;                            // scales below f16's normal numbers
        v[static_cast<std::size_t>(3 * D) + d] = static_cast<float>(d) * 500.0f;    // codes of every size
        k[static_cast<std::size_t>(4 * D) + d] *= 3e30f;                            // past f16
      }
      v[static_cast<std::size_t>(7 * D) + 1] = INFINITY;
      if (kv::is_quantized_kv(dtype)) v[static_cast<std::size_t>(6 * D) + 3] = std::nanf("");  // which NaN is not defined
      const std::vector<std::int32_t> slots{17, 3, -1, 255, 256, 300};
      const OnDevice<float> q_at(q), k_at(k), v_at(v);
      const OnDevice<std::int32_t> slots_at(slots);
      const OnDevice<std::uint8_t> pool(static_cast<std::size_t>(2 * 2 * s.half()));
      kv::cuda::HeadsArgs heads{};
      heads.q = q_at.data();
      heads.k = k_at.data();
      heads.v = v_at.data();
      heads.slots = slots_at.data();
      heads.pool = pool.data();
      heads.block_bytes = 2 * s.half();
      heads.value_offset = s.half();
      heads.n_heads = heads.n_kv_heads = 2;
      heads.head_dim = D;
      heads.dtype = dtype;
      heads.tokens = kTokens;
      kv::cuda::position_heads(heads, nullptr);
      const std::vector<std::uint8_t> got = pool.read();
      const kv::KvRotation rotation = kv::kv_rotation(dtype, static_cast<std::uint32_t>(D));
      const auto block = static_cast<std::int32_t>(rotation.block);
      if (rotation.block != 0) {
        cpu.rotate(q.data(), static_cast<std::int64_t>(q.size()), block, rotation.query_factor);
        cpu.rotate(k.data(), static_cast<std::int64_t>(k.size()), block, rotation.key_factor);
      }
      KV_CHECK_MSG(same_bytes(q, q_at.read()), "dtype %d, head %d: queries", dtype, D);
      // A pool of the CPU's whose fresh memory is poisoned like the device's: bytes outside the slots are equal too.
      kv::MemoryLedger ledger(true);
      const std::uint32_t n_blocks = 4;
      kv::cpu::KvPool host(ledger, {{0, 2, static_cast<std::uint32_t>(D)}}, 1, &n_blocks, dtype);
      KV_CHECK(host.payload_bytes(0) == static_cast<std::uint64_t>(2 * s.half()));
      cpu.kv_write({k.data(), v.data(), slots.data(), host.keys(0, 0, 0), static_cast<std::int64_t>(host.block_bytes(0)),
                    static_cast<std::int64_t>(host.head_bytes(0)), 2, D, kBlockTokens, dtype}, 0, kTokens);
      std::vector<std::byte> payload(host.payload_bytes(0));
      for (std::uint32_t id = 0; id < 2; ++id) {
        const std::uint8_t* exported = got.data() + id * payload.size();
        host.read_block(0, id, payload.data(), {});
        KV_CHECK_MSG(std::memcmp(payload.data(), exported, payload.size()) == 0, "dtype %d, head %d, block %u", dtype, D, id);
        host.write_block(0, id + 2, reinterpret_cast<const std::byte*>(exported), {});
        KV_CHECK_MSG(std::memcmp(host.keys(0, id, 0), host.keys(0, id + 2, 0), payload.size()) == 0,
                     "dtype %d, head %d, block %u imported", dtype, D, id);
      }
    }
  }
}

// Q and the softmax's weights lose 11 (bf16: 8) bits each: bound 2^-10 (2^-7) of the largest value of V.
// Q and the softmax's weights lose 11 (bf16: 8) bits each: bound 2^-10 (2^-7) of the largest value of V.
KV_TEST("the fast mode's attention stays within its 16-bit operands' rounding of float64") {
  const Shape shapes[] = {
      {7, 1, 128, 0, 0, false, KV_F16},  {28, 4, 128, 0, 0, false, KV_F16}, {4, 2, 64, 100, 0, true, KV_BF16},
      {8, 8, 64, 0, 30, false, KV_F16},  {16, 2, 128, 300, 0, true, KV_F16}, {5, 1, 128, 0, 0, false, KV_BF16},
  };
  std::uint64_t seed = 500;
  for (const Shape& shape : shapes) {
    KV_CHECK(kv::cuda::tensor_attention_applies(shape.D, shape.dtype));
    for (const std::int32_t many : {1, 37, 300}) {
      const Case c(shape, many, seed += 10);
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
