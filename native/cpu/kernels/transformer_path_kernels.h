// Declarations of the kernels of transformer_kernels.h for one instruction path. Included only by sources compiled with
// KV_PATH.
#pragma once

#include "cpu/kernels/transformer_kernels.h"

namespace kv::cpu::KV_PATH {

void rms_norm(const RmsNormArgs& args);
void rope(const RopeArgs& args);
void rotate(float* values, std::int64_t n, std::int32_t block, float factor);
void kv_write(const KvWriteArgs& args, std::int64_t token_begin, std::int64_t token_end);
void kv_write_quantized(const KvWriteArgs& args, std::int64_t token_begin, std::int64_t token_end);
void attention_block(const AttentionBlockArgs& args);
void attention_block_quantized(const AttentionBlockArgs& args);
void attention_merge(const AttentionMergeArgs& args);
void attention_finish(const float* output, float sum, std::int32_t head_dim, float* out);
void activation(const ActivationArgs& args);
void add_to(float* x, const float* y, std::int64_t n);
void scale_logits(float* logits, std::int64_t n, float scale, float softcap);
void chunk_maxima(const float* logits, std::int64_t n, float* maxima);
void chunk_exp_sums(const float* logits, std::int64_t n, float maximum, float scale, float* sums);

}  // namespace kv::cpu::KV_PATH
