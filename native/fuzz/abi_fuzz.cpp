// Random mutations of valid descriptors, options, batches and block calls, thrown at the C waist. Meant to run under
// AddressSanitizer and UndefinedBehaviorSanitizer; anything but a status is a failure. Counts are only ever lowered or
// raised past every limit: how long a caller's array really is cannot be checked from inside.
//   abi_fuzz [cases] [seed]
#include <chrono>
#include <cstdlib>

#include "tests/test_runner.h"

namespace {

using namespace kv::test;

constexpr std::uint32_t kPastEveryLimit = 0x7fffffffu;

std::uint32_t hostile_u32(Random& random) {
  const std::uint32_t interesting[] = {0, 1, 2, 3, 15, 16, 17, 255, 256, 257, 0x7fffffff, 0x80000000, 0xffffffff};
  return random.below(3) == 0 ? static_cast<std::uint32_t>(random.next()) : interesting[random.below(13)];
}

// Overwrites a few bytes, or one aligned word, of a plain struct between two of its fields.
void mutate_bytes(Random& random, void* data, std::size_t begin, std::size_t end) {
  auto* bytes = static_cast<unsigned char*>(data);
  if (random.below(4) == 0) {
    bytes[begin + random.below(static_cast<std::uint32_t>(end - begin))] ^= static_cast<unsigned char>(1u << random.below(8));
    return;
  }
  const std::size_t at = begin + random.below(static_cast<std::uint32_t>((end - begin) / 4)) * 4;
  const std::uint32_t value = hostile_u32(random);
  std::memcpy(bytes + at, &value, 4);
}

std::uint32_t lowered_or_huge(Random& random, std::uint32_t count) {
  if (count >= kPastEveryLimit) return count;  // a second mutation of the same count
  return random.below(4) == 0 ? kPastEveryLimit + random.below(2) * 0x80000000u : random.below(count + 1);
}

struct Tally {
  long refused = 0;
  long accepted = 0;
  long failed_later = 0;
};

void mutate_model(Random& random, TinyModel& m) {
  switch (random.below(9)) {
    case 0:
      m.model.n_layers = lowered_or_huge(random, m.model.n_layers);
      break;
    case 1:
      m.model.n_tensors = lowered_or_huge(random, m.model.n_tensors);
      break;
    case 2:
      m.model.n_ropes = lowered_or_huge(random, 1);
      break;
    case 3:
      m.model.n_files = lowered_or_huge(random, 1);
      break;
    case 4: {
      std::uint32_t* fields[] = {&m.model.hidden, &m.model.vocab, &m.model.context_length, &m.model.n_groups};
      *fields[random.below(4)] = hostile_u32(random);
      break;
    }
    case 5:
      mutate_bytes(random, &m.model.norm_epsilon, 0, 16);
      break;
    case 6:
      mutate_bytes(random, &m.layers[random.below(static_cast<std::uint32_t>(m.layers.size()))], 0, sizeof(kv_layer));
      break;
    case 7: {
      // A longer rotary_dim would promise frequencies that are not there.
      kv_rope& rope = m.ropes[0];
      const std::uint32_t rotary = rope.rotary_dim;
      mutate_bytes(random, &rope, 0, 12);
      if (rope.rotary_dim > rotary && rope.rotary_dim <= 512) rope.rotary_dim = rotary - 2;
      break;
    }
    default:
      mutate_bytes(random, &m.tensors[random.below(static_cast<std::uint32_t>(m.tensors.size()))], 0,
                   sizeof(kv_tensor));
  }
}

TinyShape random_shape(Random& random) {
  TinyShape shape;
  shape.n_layers = 1 + random.below(2);
  shape.hidden = 32;
  shape.ffn = 32;
  shape.vocab = 40 + random.below(200);
  shape.n_kv_heads = 1 + random.below(2);
  shape.n_heads = shape.n_kv_heads * (1 + random.below(3));
  shape.head_dim = 8;
  shape.rotary_dim = 8;
  if (random.below(2) == 0 && shape.n_layers > 1) shape.window_of_odd_layers = 5;
  shape.biases = random.below(2) == 0;
  shape.sinks = random.below(2) == 0;
  return shape;
}

kv_runner_options small_options(Random& random) {
  kv_runner_options options = default_options();
  for (std::uint32_t& n : options.n_blocks) n = 4;
  options.max_batch_tokens = 64;
  options.max_batch_sequences = 4;
  options.max_blocks_per_sequence = 3;
  options.n_sampler_slots = 3;
  options.n_threads = 1 + random.below(2);
  const kv_dtype dtypes[] = {KV_F16, KV_F32, KV_BF16, KV_Q8, KV_Q4};
  options.kv_dtype = dtypes[random.below(5)];
  return options;
}

void mutate_batch(Random& random, BatchSpec& spec) {
  std::vector<std::int32_t>* arrays[] = {&spec.token_ids,     &spec.positions,      &spec.cu_seqlens,
                                         &spec.context_lengths, &spec.input_rows,   &spec.sampler_slots,
                                         &spec.output_indexes, &spec.target_ids,    &spec.tables[0],
                                         &spec.slots[0]};
  switch (random.below(8)) {
    case 0:
      spec.batch.n_tokens = lowered_or_huge(random, spec.batch.n_tokens);
      break;
    case 1:
      spec.batch.n_sequences = lowered_or_huge(random, spec.batch.n_sequences);
      break;
    case 2:
      spec.row_flags[random.below(static_cast<std::uint32_t>(spec.row_flags.size()))] =
          static_cast<std::uint8_t>(random.next());
      break;
    case 3:
      spec.batch.block_table_width[0] = lowered_or_huge(random, spec.batch.block_table_width[0]);
      break;
    case 4:
      if (!spec.samplers.empty()) {
        kv_sampler& sampler = spec.samplers[0];
        mutate_bytes(random, &sampler, 0, offsetof(kv_sampler, n_history));
        break;
      }
      [[fallthrough]];
    default: {
      std::vector<std::int32_t>& array = *arrays[random.below(10)];
      std::int32_t& value = array[random.below(static_cast<std::uint32_t>(array.size()))];
      value = random.below(2) == 0 ? static_cast<std::int32_t>(hostile_u32(random))
                                   : value + static_cast<std::int32_t>(random.below(5)) - 2;
    }
  }
}

void fuzz_batches(Random& random, TestRunner& runner, const TinyShape& shape, std::uint32_t n_groups, int count,
                  Tally& tally) {
  for (int i = 0; i < count; ++i) {
    std::vector<RowSpec> rows;
    const std::uint32_t S = 1 + random.below(3);
    for (std::uint32_t s = 0; s < S; ++s) {
      RowSpec row;
      row.start = static_cast<std::int32_t>(random.below(300));
      for (std::uint32_t t = 0; t < 1 + random.below(12); ++t) {
        row.tokens.push_back(static_cast<std::int32_t>(random.below(shape.vocab)));
      }
      // Blocks may be shared: slots written twice are part of the game.
      for (std::uint32_t g = 0; g < n_groups; ++g) {
        row.tables.push_back({static_cast<std::int32_t>(random.below(4)), static_cast<std::int32_t>(random.below(4))});
      }
      row.flags = static_cast<std::uint8_t>(random.below(32));
      row.slot = static_cast<std::int32_t>(s);
      row.input_row = random.below(6) == 0 ? static_cast<std::int32_t>(random.below(3)) : -1;
      rows.push_back(row);
    }
    std::vector<kv_sampler> samplers;
    for (std::uint32_t s = 0; s < S; ++s) {
      kv_sampler sampler = default_sampler(s);
      sampler.temperature = random.below(2) == 0 ? 0.0f : 1.0f;
      sampler.top_k = random.below(4);
      sampler.repetition_penalty = random.below(2) == 0 ? 1.0f : 1.2f;
      sampler.n_logprobs = random.below(4);
      samplers.push_back(sampler);
    }
    BatchSpec spec(rows, n_groups, samplers);
    for (std::uint32_t m = random.below(3); m > 0; --m) mutate_batch(random, spec);
    spec.batch.n_samplers = static_cast<std::uint32_t>(spec.samplers.size());
    Outcome outcome;
    if (runner.submit(spec.batch, outcome) != KV_OK) {
      ++tally.refused;
      continue;
    }
    runner.wait(outcome);
    outcome.status == KV_OK ? ++tally.accepted : ++tally.failed_later;
    for (const std::int32_t id : outcome.sampled) {
      if (id < -1 || id >= static_cast<std::int32_t>(shape.vocab)) std::abort();
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const long cases = argc > 1 ? std::atol(argv[1]) : 2000;
  const std::uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  std::printf("abi_fuzz: %ld cases, seed %llu\n", cases, static_cast<unsigned long long>(seed));
  Random random(seed);
  const auto begin = std::chrono::steady_clock::now();
  Tally models, batches;
  for (long done = 0; done < cases;) {
    const TinyShape shape = random_shape(random);
    // Several hostile descriptors of one file, then a valid runner with many batches.
    for (int i = 0; i < 10; ++i, ++done) {
      TinyModel model(shape, random.next());
      kv_runner_options options = small_options(random);
      for (std::uint32_t m = 1 + random.below(3); m > 0; --m) mutate_model(random, model);
      if (random.below(4) == 0) mutate_bytes(random, &options, 0, offsetof(kv_runner_options, instruction_path));
      // Not hostile, only slow: poisoning gigabytes, or starting hundreds of threads.
      options.poison_pool = 0;
      if (options.n_threads > 4 && options.n_threads <= 256) options.n_threads = 2;
      const TestRunner runner(model, options);
      runner.status == KV_OK ? ++models.accepted : ++models.refused;
    }
    const TinyModel model(shape, random.next());
    TestRunner runner(model, small_options(random));
    if (runner.status != KV_OK) std::abort();
    fuzz_batches(random, runner, shape, model.model.n_groups, 90, batches);
    done += 90;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("descriptors: %ld refused, %ld accepted; batches: %ld refused, %ld ran, %ld failed later; %.1f s\n",
              models.refused, models.accepted, batches.refused, batches.accepted, batches.failed_later, seconds);
  return 0;
}
