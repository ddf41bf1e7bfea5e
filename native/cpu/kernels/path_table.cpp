// One KernelTable per instruction path: this file is compiled once for each.
#include "cpu/kernels/path_kernels.h"
#include "cpu/kernels/transformer_path_kernels.h"

#define KV_TEXT_OF(name) #name
#define KV_TEXT(name) KV_TEXT_OF(name)

namespace kv::cpu::KV_PATH {

extern const KernelTable kTable;
const KernelTable kTable = {
    .name = KV_TEXT(KV_PATH),
    .dequantize_row = dequantize_row,
    .quantize_activations = quantize_activations,
    .linear = linear,
    .rms_norm = rms_norm,
    .rope = rope,
    .rotate = rotate,
    .kv_write = kv_write,
    .attention_block = attention_block,
    .attention_merge = attention_merge,
    .attention_finish = attention_finish,
    .activation = activation,
    .add_to = add_to,
    .scale_logits = scale_logits,
    .chunk_maxima = chunk_maxima,
    .chunk_exp_sums = chunk_exp_sums,
};

}  // namespace kv::cpu::KV_PATH
