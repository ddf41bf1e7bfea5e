// Greedy token ids from llama.cpp, for agree_with_llamacpp.py.
//   greedy_ids MODEL.gguf COUNT < PROMPT
// Prints the prompt's ids on one line and the generated ids on the next, and their logits' margins
// (best minus second best) on a third. Keys and values are kept in float32.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "llama.h"

static void print(const std::vector<llama_token>& ids) {
  for (llama_token id : ids) std::printf("%d ", id);
  std::printf("\n");
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int count = std::atoi(argv[2]);
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  const std::string text((std::istreambuf_iterator<char>(std::cin)), {});

  llama_model* model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (model == nullptr) return 1;
  const llama_vocab* vocab = llama_model_get_vocab(model);
  std::vector<llama_token> ids(text.size() + 8);
  const int read = llama_tokenize(vocab, text.data(), int(text.size()), ids.data(), int(ids.size()), true, true);
  if (read <= 0) return 1;
  ids.resize(read);
  print(ids);

  llama_context_params params = llama_context_default_params();
  params.n_ctx = 8192;
  params.n_batch = 8192;
  params.n_threads = params.n_threads_batch = 1;  // threads waiting for each other cost more than they give here
  params.type_k = GGML_TYPE_F32;
  params.type_v = GGML_TYPE_F32;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  llama_context* context = llama_init_from_model(model, params);
  if (context == nullptr) return 1;

  const int size = llama_vocab_n_tokens(vocab);
  std::vector<llama_token> made;
  std::vector<float> margins;
  llama_batch batch = llama_batch_get_one(ids.data(), int(ids.size()));
  for (int i = 0; i < count; ++i) {
    if (llama_decode(context, batch) != 0) return 1;
    const float* logits = llama_get_logits_ith(context, -1);
    llama_token best = llama_token(std::max_element(logits, logits + size) - logits);
    float second = -1e30f;
    for (int t = 0; t < size; ++t)
      if (t != best) second = std::max(second, logits[t]);
    margins.push_back(logits[best] - second);
    made.push_back(best);
    batch = llama_batch_get_one(&made.back(), 1);
  }
  print(made);
  for (float m : margins) std::printf("%.5f ", m);
  std::printf("\n");
  return 0;
}
