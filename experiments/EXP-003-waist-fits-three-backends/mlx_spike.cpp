// Does the C waist fit MLX, whose arrays are immutable values evaluated lazily? The pool is one array; a step writes new
// K/V through slot_mapping by a scatter whose result replaces the pool. The question is whether MLX then writes in
// place (the old pool's buffer is donated) or copies the pool, and what a step costs as the pool grows. Everything runs on
// one thread that is not the process's first, as the runner's submission thread would. Build: see README.md.
#include <mlx/mlx.h>

#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

namespace mx = mlx::core;

static double milliseconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - since).count();
}

static void measure(int n_blocks) {
  constexpr int block = 256, heads = 8, dim = 64, tokens = 8;
  mx::array pool = mx::zeros({n_blocks * block, heads, dim}, mx::float16);
  mx::eval(pool);
  const void* before = pool.data<void>();

  // Eight sequences, each writing one slot of its own block: what a decode step's slot_mapping looks like.
  int moved = 0;
  double total = 0;
  constexpr int steps = 50;
  for (int step = 0; step < steps; ++step) {
    std::vector<int32_t> slots(tokens);
    for (int t = 0; t < tokens; ++t) slots[t] = ((t * 7919) % n_blocks) * block + step;
    mx::array slot_mapping(slots.data(), {tokens}, mx::int32);  // copied: the waist's arrays are borrowed
    mx::array fresh = mx::full({tokens, 1, heads, dim}, static_cast<float>(step + 1), mx::float16);
    mx::eval(slot_mapping, fresh);
    const auto start = std::chrono::steady_clock::now();
    pool = mx::scatter(std::move(pool), slot_mapping, fresh, 0);
    mx::eval(pool);
    total += milliseconds(start);
    moved += pool.data<void>() != before;
    before = pool.data<void>();
  }

  // Read back through a permuted block table, as attention would.
  const std::vector<int32_t> table = {0, 7919 % n_blocks, (2 * 7919) % n_blocks};
  mx::array blocks = mx::take(mx::reshape(pool, {n_blocks, block, heads, dim}), mx::array(table.data(), {3}, mx::int32), 0);
  mx::array written = mx::astype(mx::slice(blocks, {0, 0, 0, 0}, {3, steps, 1, 1}), mx::float32);
  written = mx::reshape(mx::contiguous(written), {3 * steps});
  mx::eval(written);
  int wrong = 0;
  for (int i = 0; i < 3 * steps; ++i) wrong += written.data<float>()[i] != static_cast<float>(i % steps + 1);
  std::printf("%6d blocks (%7.1f MiB): %.4f ms a step, the buffer moved in %d of %d steps, %d of %d values wrong\n", n_blocks,
              static_cast<double>(pool.nbytes()) / (1 << 20), total / steps, moved, steps, wrong, 3 * steps);
}

int main() {
  std::thread submission([] {
    for (const int n_blocks : {64, 256, 1024, 4096}) measure(n_blocks);
  });
  submission.join();
  return 0;
}
