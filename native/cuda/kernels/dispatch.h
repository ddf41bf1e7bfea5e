// Calls f.template operator()<X>() for the type that belongs to a dtype.
#pragma once

#include "cuda/kernels/operand_formats.cuh"
#include "cuda/kernels/weight_formats.cuh"

namespace kv::cuda {

// Operands of the matrix units; F32 has none.
template <typename Function>
void with_operand(int dtype, Function f) {
  switch (dtype) {
    case KV_F16: return f.template operator()<FloatOperand<false>>();
    case KV_BF16: return f.template operator()<FloatOperand<true>>();
    case KV_Q8_0: return f.template operator()<OperandQ8_0>();
    case KV_Q4_0: return f.template operator()<OperandQ4_0>();
    case KV_Q4_1: return f.template operator()<OperandQ4_1>();
    case KV_Q5_0: return f.template operator()<OperandQ5_0>();
    case KV_Q5_1: return f.template operator()<OperandQ5_1>();
    case KV_Q4_K: return f.template operator()<OperandQ4_K>();
    case KV_Q5_K: return f.template operator()<OperandQ5_K>();
    case KV_Q6_K: return f.template operator()<OperandQ6_K>();
    case KV_MXFP4: return f.template operator()<OperandMxfp4>();
    default: return;
  }
}

template <typename Function>
void with_quantized_format(int dtype, Function f) {
  switch (dtype) {
    case KV_Q8_0: return f.template operator()<FormatQ8_0>();
    case KV_Q4_0: return f.template operator()<FormatQ4_0>();
    case KV_Q4_1: return f.template operator()<FormatQ4_1>();
    case KV_Q5_0: return f.template operator()<FormatQ5_0>();
    case KV_Q5_1: return f.template operator()<FormatQ5_1>();
    case KV_Q4_K: return f.template operator()<FormatQ4_K>();
    case KV_Q5_K: return f.template operator()<FormatQ5_K>();
    case KV_Q6_K: return f.template operator()<FormatQ6_K>();
    case KV_MXFP4: return f.template operator()<FormatMxfp4>();
    default: return;
  }
}

template <typename Function>
void with_float_loader(int dtype, Function f) {
  switch (dtype) {
    case KV_F32: return f.template operator()<LoadF32>();
    case KV_F16: return f.template operator()<LoadF16>();
    case KV_BF16: return f.template operator()<LoadBf16>();
    default:
      return with_quantized_format(dtype, [&]<typename Format>() { f.template operator()<LoadQuantized<Format>>(); });
  }
}

}  // namespace kv::cuda
