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

/**
 * Formats a KV pool can be held in. `f32` is oracle mode, `f16` the default. `q8` and `q4` store the values of one head of
 * one token in groups of min(64, headDim), each with an f16 scale (q4: and an f16 minimum).
 */
export const KV_DTYPES = ['f32', 'f16', 'bf16', 'q8', 'q4'] as const;

export type KvDType = (typeof KV_DTYPES)[number];

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

/** Values of the largest group that `q8` and `q4` give one scale. */
export const KV_GROUP_VALUES = 64;
/** A head smaller than that is one group, of a multiple of so many values. */
const KV_GROUP_MULTIPLE = 8;

/**
 * What a KV format's bytes mean, by name and version: part of every identity that stored KV is compared by.
 * `q8-1`, `q4-1`: K is stored after a Walsh–Hadamard rotation within each group, V as it is (ADR-0013).
 */
export const KV_FORMATS: Readonly<Record<KvDType, string>> = {
  f32: 'f32',
  f16: 'f16',
  bf16: 'bf16',
  q8: 'q8-1',
  q4: 'q4-1',
};

/** Whether heads of `headDim` values can be held in a format: the groups of `q8` and `q4` must divide them. */
export function kvDTypeTakes(dtype: KvDType, headDim: number): boolean {
  if (dtype !== 'q8' && dtype !== 'q4') return true;
  return headDim % (headDim < KV_GROUP_VALUES ? KV_GROUP_MULTIPLE : KV_GROUP_VALUES) === 0;
}

/** Bytes of K, or of V, of one head of one token. */
export function kvRecordBytes(dtype: KvDType, headDim: number): number {
  const groups = Math.ceil(headDim / KV_GROUP_VALUES);
  switch (dtype) {
    case 'f32':
      return headDim * 4;
    case 'f16':
    case 'bf16':
      return headDim * 2;
    case 'q8':
      return headDim + groups * 2;
    case 'q4':
      return headDim / 2 + groups * 4;
  }
}
