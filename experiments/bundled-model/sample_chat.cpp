// Sampled answers from llama.cpp (top-k 40, top-p 0.9), with their lengths; built like greedy_ids.cpp.
//   sample_chat MODEL.gguf SAMPLES TEMPERATURE < PROMPT
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "llama.h"

constexpr int LIMIT = 500;  // an answer this long did not end by itself

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  const std::string text((std::istreambuf_iterator<char>(std::cin)), {});
  llama_model* model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (model == nullptr) return 1;
  const llama_vocab* vocab = llama_model_get_vocab(model);
  std::vector<llama_token> ids(text.size() + 8);
  ids.resize(llama_tokenize(vocab, text.data(), int(text.size()), ids.data(), int(ids.size()), true, true));

  llama_context_params params = llama_context_default_params();
  params.n_ctx = params.n_batch = 2048;
  params.n_threads = params.n_threads_batch = 1;
  llama_context* context = llama_init_from_model(model, params);
  if (context == nullptr) return 1;

  for (int seed = 1; seed <= std::atoi(argv[2]); ++seed) {
    llama_sampler* sampler = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(sampler, llama_sampler_init_top_k(40));
    llama_sampler_chain_add(sampler, llama_sampler_init_top_p(0.9f, 1));
    llama_sampler_chain_add(sampler, llama_sampler_init_temp(float(std::atof(argv[3]))));
    llama_sampler_chain_add(sampler, llama_sampler_init_dist(seed));
    llama_memory_clear(llama_get_memory(context), true);
    llama_batch batch = llama_batch_get_one(ids.data(), int(ids.size()));
    std::string answer;
    llama_token token;
    int count = 0;
    for (; count < LIMIT; ++count) {
      if (llama_decode(context, batch) != 0) return 1;
      token = llama_sampler_sample(sampler, context, -1);
      if (llama_vocab_is_eog(vocab, token)) break;
      char piece[64];
      answer.append(piece, llama_token_to_piece(vocab, token, piece, sizeof piece, 0, false));
      batch = llama_batch_get_one(&token, 1);
    }
    std::printf("[seed %d, %d tokens%s]\n%s\n\n", seed, count, count == LIMIT ? ", no end" : "", answer.c_str());
    std::fflush(stdout);
    llama_sampler_free(sampler);
  }
  return 0;
}
