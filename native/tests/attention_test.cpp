// kv_write and attention over a paged pool against a float64 softmax. What only this file can catch: tile shapes that
// change bits, stale slots that reach an output, and a merge of blocks that depends on who did them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/kernels/kernels.h"
#include "tests/check.h"
#include "tests/half_float.h"
#include "tests/kernel_paths.h"
#include "tests/random_weights.h"

namespace {

using namespace kv::test;
using kv::cpu::KernelTable;

constexpr int kTokens = 256;

int value_bytes(kv_dtype dtype) { return dtype == KV_F32 ? 4 : 2; }

// A pool of `blocks` blocks with one KV head, poisoned, into which `n` tokens are written from slot 0 on.
struct Pool {
  Pool(const KernelTable& kernels, kv_dtype pool_dtype, int head_dim, int blocks, const std::vector<float>& k,
       const std::vector<float>& v)
      : dtype(pool_dtype), D(head_dim), head_bytes(std::size_t{256} * static_cast<std::size_t>(D * value_bytes(dtype))),
        bytes(2 * head_bytes * static_cast<std::size_t>(blocks), std::byte{0xff}) {
    const int n = static_cast<int>(k.size()) / D;
    std::vector<std::int32_t> slots;
    for (int t = 0; t < n; ++t) slots.push_back(t);
    kernels.kv_write({k.data(), v.data(), slots.data(), bytes.data(), static_cast<std::int64_t>(2 * head_bytes),
                      static_cast<std::int64_t>(head_bytes), 1, D, kTokens, dtype}, 0, n);
  }
  const std::byte* keys(int block) const { return bytes.data() + 2 * head_bytes * static_cast<std::size_t>(block); }
  const std::byte* values(int block) const { return keys(block) + head_bytes; }

  kv_dtype dtype;
  int D;
  std::size_t head_bytes;
  std::vector<std::byte> bytes;
};

struct Query {
  int begin, end;  // visible tokens
  std::vector<float> values;
};

// All queries over all blocks with `rows` rows a call, blocks merged in ascending order.
std::vector<float> attend(const KernelTable& kernels, const Pool& pool, const std::vector<Query>& queries, int rows,
                          bool fetch) {
  const std::size_t stride = static_cast<std::size_t>(kv::cpu::attention_output_stride(pool.D));
  const std::size_t D = static_cast<std::size_t>(pool.D);
  std::vector<float> out(queries.size() * D, -1);
  std::vector<float> scores(kv::cpu::kAttentionScoreFloats, std::nanf("")), outputs(6 * stride, std::nanf(""));
  for (std::size_t first = 0; first < queries.size(); first += static_cast<std::size_t>(rows)) {
    const int count = std::min(rows, static_cast<int>(queries.size() - first));
    std::vector<float> m(6), l(6), o(6 * stride), running_m(6), running_l(6), running_o(6 * stride);
    std::vector<bool> started(6, false);
    const int blocks = static_cast<int>(pool.bytes.size() / (2 * pool.head_bytes));
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
          std::copy_n(o.begin() + static_cast<std::ptrdiff_t>(at * stride), D,
                      running_o.begin() + static_cast<std::ptrdiff_t>(at * stride));
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

float round_to(kv_dtype dtype, float x) {
  if (dtype == KV_F32) return x;
  if (dtype == KV_F16) return static_cast<float>(static_cast<Half>(x));
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
  std::memcpy(&x, &bits, 4);
  return x;
}

std::vector<double> reference(const std::vector<float>& k, const std::vector<float>& v, kv_dtype dtype, int D,
                              const Query& query) {
  std::vector<double> scores, out(static_cast<std::size_t>(D), 0.0);
  double most = -1e300, sum = 0;
  for (int t = query.begin; t < query.end; ++t) {
    double score = 0;
    for (int d = 0; d < D; ++d) {
      score += static_cast<double>(query.values[static_cast<std::size_t>(d)]) *
               round_to(dtype, k[static_cast<std::size_t>(t * D + d)]);
    }
    scores.push_back(score * 0.25);
    most = std::max(most, scores.back());
  }
  for (double& score : scores) sum += score = std::exp(score - most);
  for (int t = query.begin; t < query.end; ++t) {
    for (int d = 0; d < D; ++d) {
      out[static_cast<std::size_t>(d)] += scores[static_cast<std::size_t>(t - query.begin)] / sum *
                                          round_to(dtype, v[static_cast<std::size_t>(t * D + d)]);
    }
  }
  return out;
}

KV_TEST("attention matches a float64 softmax over stored values, with equal bits for every path, tile and fetch") {
  Random random(21);
  for (const kv_dtype dtype : {KV_F16, KV_F32, KV_BF16}) {
    for (const int D : {8, 16, 24, 64, 80, 100, 128}) {
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
        queries.push_back(query);
      }
      std::vector<float> first;
      for (const auto* path : kernel_paths()) {
        const Pool pool(*path, dtype, D, 3, k, v);
        for (int rows = 1; rows <= 6; ++rows) {
          const std::vector<float> out = attend(*path, pool, queries, rows, rows % 2 == 0);
          if (first.empty()) first = out;
          KV_CHECK_MSG(std::memcmp(first.data(), out.data(), out.size() * 4) == 0, "%s dtype %d D=%d rows=%d",
                       path->name, dtype, D, rows);
        }
      }
      for (std::size_t i = 0; i < queries.size(); ++i) {
        const std::vector<double> expected = reference(k, v, dtype, D, queries[i]);
        for (std::size_t d = 0; d < static_cast<std::size_t>(D); ++d) {
          const double got = first[i * static_cast<std::size_t>(D) + d];
          KV_CHECK_MSG(std::fabs(got - expected[d]) < 3e-6, "dtype %d D=%d query %zu d=%zu: %g, not %g", dtype, D, i, d,
                       got, expected[d]);
        }
      }
    }
  }
}

KV_TEST("a token outside the range never shows, one inside does (negative control)") {
  const int D = 64, n = 200;
  std::vector<float> k = random_floats(n * D, 1), v = random_floats(n * D, 2);
  const Query query{10, 150, random_floats(D, 3)};
  const KernelTable& kernels = *kernel_paths()[0];
  const auto run = [&] { return attend(kernels, Pool(kernels, KV_F32, D, 1, k, v), {query}, 1, false); };
  const std::vector<float> before = run();
  for (const int t : {9, 150, 199}) {
    k[static_cast<std::size_t>(t * D)] = v[static_cast<std::size_t>(t * D)] = std::numeric_limits<float>::infinity();
  }
  KV_CHECK(std::memcmp(before.data(), run().data(), before.size() * 4) == 0);
  v[static_cast<std::size_t>(149 * D)] += 1.0f;
  KV_CHECK(std::memcmp(before.data(), run().data(), before.size() * 4) != 0);
}

KV_TEST("kv_write rounds half to even at its slots, skips slot -1 and touches nothing else") {
  for (const auto* path : kernel_paths()) {
    for (const kv_dtype dtype : {KV_F16, KV_F32, KV_BF16}) {
      const int D = 40, heads = 3, blocks = 2;
      const std::size_t head_bytes = static_cast<std::size_t>(256 * D * value_bytes(dtype));
      std::vector<std::byte> pool(2 * head_bytes * heads * blocks, std::byte{0xff});
      const std::vector<float> k = random_floats(3 * heads * D, 5), v = random_floats(3 * heads * D, 6);
      const std::int32_t slots[] = {256 + 17, -1, 3};
      path->kv_write({k.data(), v.data(), slots, pool.data(), static_cast<std::int64_t>(2 * head_bytes * heads),
                      static_cast<std::int64_t>(head_bytes), heads, D, 256, dtype}, 0, 3);
      const auto at = [&](std::size_t byte) {
        float value = 0;
        if (dtype == KV_F32) std::memcpy(&value, &pool[byte], 4);
        if (dtype == KV_BF16) std::memcpy(reinterpret_cast<char*>(&value) + 2, &pool[byte], 2);
        if (dtype == KV_F16) {
          Half half;
          std::memcpy(&half, &pool[byte], 2);
          value = static_cast<float>(half);
        }
        return value;
      };
      std::size_t written = 0;
      for (const int token : {0, 2}) {
        const auto slot = static_cast<std::size_t>(slots[token]);
        for (std::size_t h = 0; h < heads; ++h) {
          for (std::size_t d = 0; d < D; ++d) {
            const std::size_t block = slot / 256 * 2 * head_bytes * heads;
            const std::size_t source = (static_cast<std::size_t>(token) * heads + h) * D + d;
            const auto bytes = static_cast<std::size_t>(value_bytes(dtype));
            KV_CHECK(at(block + h * head_bytes + (d * 256 + slot % 256) * bytes) == round_to(dtype, k[source]));
            KV_CHECK(at(block + (heads + h) * head_bytes + (slot % 256 * D + d) * bytes) == round_to(dtype, v[source]));
            written += 2 * bytes;
          }
        }
      }
      std::size_t untouched = 0;
      for (const std::byte byte : pool) untouched += byte == std::byte{0xff};
      KV_CHECK_MSG(untouched >= pool.size() - written, "%s: %zu bytes of %zu changed, %zu written", path->name,
                   pool.size() - untouched, pool.size(), written);
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
