// Q8 and Q4 pools: what kv_write_quantized stores, against the definition worked out value by value, and attention over
// it against a float64 softmax of the stored values. What only this file can catch: a code, scale or minimum in the wrong
// place, tiles that change bits, and stale slots that reach an output.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/kv_layout.h"
#include "host/kv_format.h"
#include "tests/check.h"
#include "tests/half_float.h"
#include "tests/kernel_paths.h"
#include "tests/random_weights.h"

namespace {

using namespace kv::test;
using kv::cpu::KernelTable;

constexpr int kTokens = 256;
constexpr kv_dtype kDtypes[] = {KV_Q8, KV_Q4};
constexpr int kHeadDims[] = {8, 16, 24, 40, 64, 128, 192};

double half_value(std::uint16_t bits) {
  Half half;
  std::memcpy(&half, &bits, 2);
  return static_cast<double>(half);
}
std::uint16_t half_bits(float x) {
  const auto half = static_cast<Half>(x);
  std::uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}

// Blocks of one KV head, every byte 0xff at first: codes of -1 or 15 and scales that are no number.
struct Pool {
  Pool(kv_dtype pool_dtype, int head_dim, int blocks)
      : dtype(pool_dtype), D(head_dim), head_bytes(kTokens * std::size_t{kv::kv_record_bytes(dtype, static_cast<std::uint32_t>(D))}),
        bytes(2 * head_bytes * static_cast<std::size_t>(blocks), std::byte{0xff}) {}

  void write(const KernelTable& kernels, const std::vector<float>& k, const std::vector<float>& v,
             const std::vector<std::int32_t>& slots) {
    kernels.kv_write({k.data(), v.data(), slots.data(), bytes.data(), static_cast<std::int64_t>(2 * head_bytes),
                      static_cast<std::int64_t>(head_bytes), 1, D, kTokens, dtype}, 0,
                     static_cast<std::int64_t>(slots.size()));
  }
  void write_all(const KernelTable& kernels, const std::vector<float>& k, const std::vector<float>& v) {
    std::vector<std::int32_t> slots(k.size() / static_cast<std::size_t>(D));
    for (std::size_t t = 0; t < slots.size(); ++t) slots[t] = static_cast<std::int32_t>(t);
    write(kernels, k, v, slots);
  }
  const std::byte* keys(int block) const { return bytes.data() + 2 * head_bytes * static_cast<std::size_t>(block); }
  const std::byte* values(int block) const { return keys(block) + head_bytes; }

  int group() const { return static_cast<int>(kv::kv_group_values(static_cast<std::uint32_t>(D))); }
  std::uint16_t at_plane(const std::byte* head, std::int64_t plane, int token, int d) const {
    std::uint16_t bits;
    std::memcpy(&bits, head + plane + 2 * (d / group() * kTokens + token), 2);
    return bits;
  }
  int code(const std::byte* head, bool is_keys, int token, int d) const {
    const int g = group();
    const int byte = dtype == KV_Q8 ? d : d / g * (g / 2) + d % g % (g / 2);
    const int per_token = dtype == KV_Q8 ? D : D / 2;
    const int at = is_keys ? (byte / 4 * kTokens + token) * 4 + byte % 4 : token * per_token + byte;
    const auto stored = static_cast<std::uint8_t>(head[at]);
    if (dtype == KV_Q8) return static_cast<std::int8_t>(stored);
    return d % g < g / 2 ? stored & 15 : stored >> 4;
  }
  // The stored value of slot `token`, the block counted in.
  double stored(bool is_keys, int token, int d) const {
    const kv::cpu::KvHeadLayout layout = kv::cpu::kv_head_layout(dtype, D, kTokens);
    const std::byte* head = is_keys ? keys(token / kTokens) : values(token / kTokens);
    const int slot = token % kTokens;
    const double scale = half_value(at_plane(head, layout.scales, slot, d));
    const double minimum = dtype == KV_Q4 ? half_value(at_plane(head, layout.minima, slot, d)) : 0.0;
    return minimum + scale * code(head, is_keys, slot, d);
  }

  kv_dtype dtype;
  int D;
  std::size_t head_bytes;
  std::vector<std::byte> bytes;
};

struct Group {
  std::uint16_t scale, minimum;
  std::vector<int> codes;
};

// The definition, with float32 arithmetic as stated.
Group expected_group(kv_dtype dtype, const float* x, int n) {
  const float most = *std::max_element(x, x + n), least = *std::min_element(x, x + n);
  const float magnitude = std::max(std::fabs(most), std::fabs(least));
  Group group{0, dtype == KV_Q4 ? half_bits(least) : std::uint16_t{0}, std::vector<int>(static_cast<std::size_t>(n), 0)};
  const auto minimum = static_cast<float>(half_value(group.minimum));
  group.scale = half_bits(dtype == KV_Q4 ? (most - minimum) / 15.0f : magnitude / 127.0f);
  const auto scale = static_cast<float>(half_value(group.scale));
  if (scale > 0) {
    for (int i = 0; i < n; ++i) {
      const float steps = std::nearbyint((x[i] - minimum) / scale);
      group.codes[static_cast<std::size_t>(i)] =
          static_cast<int>(dtype == KV_Q4 ? std::clamp(steps, 0.0f, 15.0f) : std::clamp(steps, -127.0f, 127.0f));
    }
  } else {
    group.scale = 0;
  }
  return group;
}

KV_TEST("kv_write stores codes, scales and minima as defined, at its slots only, with equal bytes on every path") {
  Random random(31);
  for (const kv_dtype dtype : kDtypes) {
    for (const int D : kHeadDims) {
      std::vector<float> k = random_floats(4 * D, random.next()), v = random_floats(4 * D, random.next());
      for (int d = 0; d < D; ++d) {
        k[static_cast<std::size_t>(d)] = 0.75f;                     // a constant group
        v[static_cast<std::size_t>(d)] = 0.0f;                      // zeros
        k[static_cast<std::size_t>(D + d)] *= 1e-6f;                // scales below f16's normal numbers
        v[static_cast<std::size_t>(D + d)] = static_cast<float>(d) * 500.0f;
      }
      const std::vector<std::int32_t> slots{256 + 17, 3, -1, 255};
      std::vector<std::byte> first;
      for (const auto* path : kernel_paths()) {
        Pool pool(dtype, D, 2);
        pool.write(*path, k, v, slots);
        if (first.empty()) first = pool.bytes;
        KV_CHECK_MSG(first == pool.bytes, "%s dtype %d D=%d", path->name, dtype, D);
        const kv::cpu::KvHeadLayout layout = kv::cpu::kv_head_layout(dtype, D, kTokens);
        KV_CHECK(static_cast<std::size_t>(layout.bytes) == pool.head_bytes);
        for (std::size_t t = 0; t < slots.size(); ++t) {
          if (slots[t] < 0) continue;
          for (const bool is_keys : {true, false}) {
            const std::byte* head = is_keys ? pool.keys(slots[t] / kTokens) : pool.values(slots[t] / kTokens);
            const int slot = slots[t] % kTokens;
            for (int begin = 0; begin < D; begin += layout.group) {
              const float* x = (is_keys ? k : v).data() + t * static_cast<std::size_t>(D) + begin;
              const Group expected = expected_group(dtype, x, layout.group);
              KV_CHECK(pool.at_plane(head, layout.scales, slot, begin) == expected.scale);
              if (dtype == KV_Q4) KV_CHECK(pool.at_plane(head, layout.minima, slot, begin) == expected.minimum);
              for (int i = 0; i < layout.group; ++i) {
                const int code = pool.code(head, is_keys, slot, begin + i);
                KV_CHECK_MSG(code == expected.codes[static_cast<std::size_t>(i)], "%s dtype %d D=%d token %zu d=%d: %d, not %d",
                             path->name, dtype, D, t, begin + i, code, expected.codes[static_cast<std::size_t>(i)]);
              }
            }
          }
        }
        const auto untouched = static_cast<std::size_t>(std::count(pool.bytes.begin(), pool.bytes.end(), std::byte{0xff}));
        KV_CHECK(untouched >= pool.bytes.size() - 2 * 3 * kv::kv_record_bytes(dtype, static_cast<std::uint32_t>(D)));
      }
    }
  }
}

KV_TEST("a group that holds a NaN, an infinity or more than f16 holds reads back as NaN, its neighbours as they are") {
  for (const kv_dtype dtype : kDtypes) {
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), 3e30f}) {
      for (const auto* path : kernel_paths()) {
        std::vector<float> k = random_floats(128, 5), v = random_floats(128, 6);
        k[70] = bad;
        v[3] = bad;
        Pool pool(dtype, 128, 1);
        pool.write(*path, k, v, {9});
        KV_CHECK(std::isnan(pool.stored(true, 9, 64)) && std::isnan(pool.stored(true, 9, 70)));
        KV_CHECK(std::isnan(pool.stored(false, 9, 3)) && std::isnan(pool.stored(false, 9, 0)));
        KV_CHECK(std::isfinite(pool.stored(true, 9, 3)) && std::isfinite(pool.stored(false, 9, 70)));
      }
    }
  }
}

struct Query {
  int begin, end;  // visible tokens
  std::vector<float> values;
};

// All queries over all blocks with `rows` rows a call, blocks merged in ascending order.
std::vector<float> attend(const KernelTable& kernels, const Pool& pool, const std::vector<Query>& queries, int rows,
                          bool fetch) {
  const auto stride = static_cast<std::size_t>(kv::cpu::attention_output_stride(pool.D));
  const auto D = static_cast<std::size_t>(pool.D);
  const int blocks = static_cast<int>(pool.bytes.size() / (2 * pool.head_bytes));
  std::vector<float> out(queries.size() * D, -1);
  std::vector<float> scores(kv::cpu::kAttentionScoreFloats, std::nanf(""));
  for (std::size_t first = 0; first < queries.size(); first += static_cast<std::size_t>(rows)) {
    const int count = std::min(rows, static_cast<int>(queries.size() - first));
    std::vector<float> m(6), l(6), o(6 * stride, std::nanf("")), running_m(6), running_l(6), running_o(6 * stride);
    std::vector<bool> started(6, false);
    for (int block = 0; block < blocks; ++block) {
      const float* pointers[6];
      std::int32_t begins[6], ends[6];
      for (int r = 0; r < count; ++r) {
        const Query& query = queries[first + static_cast<std::size_t>(r)];
        pointers[r] = query.values.data();
        begins[r] = std::max(0, query.begin - block * kTokens);
        ends[r] = std::min(kTokens, query.end - block * kTokens);
      }
      kernels.attention_block({pool.keys(block), pool.values(block), pointers, begins, ends, scores.data(),
                               {m.data(), l.data(), o.data()}, pool.dtype, pool.D, count, 0.25f, 0.0f,
                               fetch && block + 1 < blocks ? pool.keys(block + 1) : nullptr});
      for (int r = 0; r < count; ++r) {
        const auto at = static_cast<std::size_t>(r);
        if (begins[r] >= ends[r]) continue;
        if (!started[at]) {
          started[at] = true;
          running_m[at] = m[at];
          running_l[at] = l[at];
          std::copy_n(&o[at * stride], D, &running_o[at * stride]);
          continue;
        }
        kernels.attention_merge({&running_m[at], &running_l[at], &running_o[at * stride], m[at], l[at], &o[at * stride],
                                 pool.D});
      }
    }
    for (int r = 0; r < count; ++r) {
      const auto at = static_cast<std::size_t>(r);
      kernels.attention_finish(&running_o[at * stride], running_l[at], pool.D, &out[(first + at) * D]);
    }
  }
  return out;
}

std::vector<double> reference(const Pool& pool, const Query& query) {
  std::vector<double> scores, out(static_cast<std::size_t>(pool.D), 0.0);
  double most = -1e300, sum = 0;
  for (int t = query.begin; t < query.end; ++t) {
    double score = 0;
    for (int d = 0; d < pool.D; ++d) {
      score += static_cast<double>(query.values[static_cast<std::size_t>(d)]) * pool.stored(true, t, d);
    }
    scores.push_back(score * 0.25);
    most = std::max(most, scores.back());
  }
  for (double& score : scores) sum += score = std::exp(score - most);
  for (int t = query.begin; t < query.end; ++t) {
    for (int d = 0; d < pool.D; ++d) {
      out[static_cast<std::size_t>(d)] +=
          scores[static_cast<std::size_t>(t - query.begin)] / sum * pool.stored(false, t, d);
    }
  }
  return out;
}

KV_TEST("attention matches a float64 softmax over stored values, with equal bits for every path, tile and fetch") {
  Random random(21);
  double worst = 0;
  for (const kv_dtype dtype : kDtypes) {
    for (const int D : kHeadDims) {
      const int n = 600;
      const std::vector<float> k = random_floats(n * D, random.next()), v = random_floats(n * D, random.next());
      std::vector<Query> queries;
      for (int i = 0; i < 13; ++i) {
        Query query;
        query.end = 1 + static_cast<int>(random.below(n));
        query.begin = i % 3 == 0 ? static_cast<int>(random.below(static_cast<std::uint32_t>(query.end))) : 0;
        // Neighbours on a causal edge, as rows of a prefill tile are.
        if (i > 6) query = {0, 300 + i, {}};
        query.values = random_floats(D, random.next());
        if (i == 4) std::fill(query.values.begin(), query.values.end(), 0.0f);
        queries.push_back(query);
      }
      std::vector<float> first;
      std::vector<std::vector<double>> expected;
      for (const auto* path : kernel_paths()) {
        Pool pool(dtype, D, 3);
        pool.write_all(*path, k, v);
        for (int rows = 1; rows <= 6; ++rows) {
          const std::vector<float> out = attend(*path, pool, queries, rows, rows % 2 == 0);
          if (first.empty()) {
            first = out;
            for (const Query& query : queries) expected.push_back(reference(pool, query));
          }
          KV_CHECK_MSG(std::memcmp(first.data(), out.data(), out.size() * 4) == 0, "%s dtype %d D=%d rows=%d",
                       path->name, dtype, D, rows);
        }
      }
      for (std::size_t i = 0; i < queries.size(); ++i) {
        for (std::size_t d = 0; d < static_cast<std::size_t>(D); ++d) {
          const double error = std::fabs(first[i * static_cast<std::size_t>(D) + d] - expected[i][d]);
          worst = std::max(worst, error);
          // Rounding the query to 15 bits moves a score by at most max|q| / 32512 times the sum of |k|.
          KV_CHECK_MSG(error < 1e-4, "dtype %d D=%d query %zu d=%zu: off by %g", dtype, D, i, d, error);
        }
      }
    }
  }
  std::printf("largest difference from float64: %g\n", worst);
}

KV_TEST("a token outside the range never shows, one inside does (negative control)") {
  const int D = 64, n = 200;
  const KernelTable& kernels = *kernel_paths()[0];
  for (const kv_dtype dtype : kDtypes) {
    std::vector<float> k = random_floats(n * D, 1), v = random_floats(n * D, 2);
    const Query query{10, 150, random_floats(D, 3)};
    const auto run = [&] {
      Pool pool(dtype, D, 1);
      pool.write_all(kernels, k, v);
      return attend(kernels, pool, {query}, 1, false);
    };
    const std::vector<float> before = run();
    for (const int t : {9, 150, 199}) {
      k[static_cast<std::size_t>(t * D)] = v[static_cast<std::size_t>(t * D)] = std::numeric_limits<float>::infinity();
    }
    KV_CHECK(std::memcmp(before.data(), run().data(), before.size() * 4) == 0);
    v[static_cast<std::size_t>(149 * D)] += 1.0f;
    KV_CHECK(std::memcmp(before.data(), run().data(), before.size() * 4) != 0);
    k[static_cast<std::size_t>(149 * D)] = std::nanf("");
    const std::vector<float> bad = run();
    KV_CHECK(std::all_of(bad.begin(), bad.end(), [](float x) { return std::isnan(x); }));
  }
}

KV_TEST("rotating is the Walsh-Hadamard transform, equal bits on every path, and undone by its factors") {
  for (const std::uint32_t D : {8u, 24u, 64u, 128u, 192u}) {
    const kv::KvRotation rotation = kv::kv_rotation(KV_Q4, D);
    const auto block = static_cast<std::int32_t>(rotation.block);
    KV_CHECK(static_cast<float>(rotation.block) * rotation.key_factor * rotation.query_factor == 1.0f);
    KV_CHECK(kv::kv_group_values(D) % rotation.block == 0 && kv::kv_rotation(KV_F16, D).block == 0);
    const std::vector<float> x = random_floats(static_cast<int>(D), 9);
    std::vector<float> first;
    for (const auto* path : kernel_paths()) {
      std::vector<float> y = x;
      path->rotate(y.data(), static_cast<std::int64_t>(D), block, rotation.key_factor);
      if (first.empty()) first = y;
      KV_CHECK(first == y);
      for (std::uint32_t i = 0; i < D; ++i) {
        double sum = 0;
        for (std::uint32_t j = i / rotation.block * rotation.block; j < (i / rotation.block + 1) * rotation.block; ++j) {
          sum += (__builtin_popcount(i % rotation.block & j % rotation.block) % 2 == 0 ? 1.0 : -1.0) * static_cast<double>(x[j]);
        }
        KV_CHECK(std::fabs(sum * static_cast<double>(rotation.key_factor) - static_cast<double>(y[i])) < 1e-5);
      }
      path->rotate(y.data(), static_cast<std::int64_t>(D), block, rotation.query_factor);
      for (std::uint32_t i = 0; i < D; ++i) KV_CHECK(std::fabs(y[i] - x[i]) < 1e-5f);
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
