/** Storage formats of tensors. Block-quantized ones follow GGML's layouts; rows are whole blocks. */
export const TENSOR_DTYPES = [
  'f32',
  'f16',
  'bf16',
  'q8_0',
  'q4_0',
  'q4_1',
  'q5_0',
  'q5_1',
  'q4_k',
  'q5_k',
  'q6_k',
  'mxfp4',
] as const;

export type TensorDType = (typeof TENSOR_DTYPES)[number];

/** Formats a KV pool can be held in. `f32` is oracle mode, `f16` the default. */
export type KvDType = 'f32' | 'f16' | 'bf16';

/** Elements and bytes of one storage block; a row's length must be a multiple of `elements`. */
export interface BlockLayout {
  readonly elements: number;
  readonly bytes: number;
}

/** Source: the GGML block structs (ggml-common.h); MXFP4: OCP Microscaling Formats specification 1.0. */
export const BLOCK_LAYOUTS: Readonly<Record<TensorDType, BlockLayout>> = {
  f32: { elements: 1, bytes: 4 },
  f16: { elements: 1, bytes: 2 },
  bf16: { elements: 1, bytes: 2 },
  q8_0: { elements: 32, bytes: 34 },
  q4_0: { elements: 32, bytes: 18 },
  q4_1: { elements: 32, bytes: 20 },
  q5_0: { elements: 32, bytes: 22 },
  q5_1: { elements: 32, bytes: 24 },
  q4_k: { elements: 256, bytes: 144 },
  q5_k: { elements: 256, bytes: 176 },
  q6_k: { elements: 256, bytes: 210 },
  mxfp4: { elements: 32, bytes: 17 },
};

export const KV_DTYPE_BYTES: Readonly<Record<KvDType, number>> = { f32: 4, f16: 2, bf16: 2 };
