// One KernelTable per instruction path: this file is compiled once for each.
#include "cpu/kernels/path_kernels.h"

#define KV_TEXT_OF(name) #name
#define KV_TEXT(name) KV_TEXT_OF(name)

namespace kv::cpu::KV_PATH {

extern const KernelTable kTable;
const KernelTable kTable = {
    .name = KV_TEXT(KV_PATH),
    .dequantize_row = dequantize_row,
    .quantize_activations = quantize_activations,
    .linear = linear,
};

}  // namespace kv::cpu::KV_PATH
