import { BLOCK_LAYOUTS, TENSOR_DTYPES, type BlockLayout, type TensorDType } from '@kvasir/domain';

/**
 * Storage formats that files may hold and no backend computes with. They are sized and listed, so that `inspect` and
 * the tokenizer work on such a file; building a descriptor from one is refused.
 *
 * Sources: ggml.h `enum ggml_type` and the block structs of ggml-common.h; the safetensors format's dtype list.
 */
const UNSUPPORTED_LAYOUTS = {
  q8_1: { elements: 32, bytes: 36 },
  q2_k: { elements: 256, bytes: 84 },
  q3_k: { elements: 256, bytes: 110 },
  q8_k: { elements: 256, bytes: 292 },
  iq2_xxs: { elements: 256, bytes: 66 },
  iq2_xs: { elements: 256, bytes: 74 },
  iq3_xxs: { elements: 256, bytes: 98 },
  iq1_s: { elements: 256, bytes: 50 },
  iq4_nl: { elements: 32, bytes: 18 },
  iq3_s: { elements: 256, bytes: 110 },
  iq2_s: { elements: 256, bytes: 82 },
  iq4_xs: { elements: 256, bytes: 136 },
  iq1_m: { elements: 256, bytes: 56 },
  tq1_0: { elements: 256, bytes: 54 },
  tq2_0: { elements: 256, bytes: 66 },
  nvfp4: { elements: 64, bytes: 36 },
  q1_0: { elements: 128, bytes: 18 },
  bool: { elements: 1, bytes: 1 },
  u8: { elements: 1, bytes: 1 },
  i8: { elements: 1, bytes: 1 },
  u16: { elements: 1, bytes: 2 },
  i16: { elements: 1, bytes: 2 },
  u32: { elements: 1, bytes: 4 },
  i32: { elements: 1, bytes: 4 },
  u64: { elements: 1, bytes: 8 },
  i64: { elements: 1, bytes: 8 },
  f64: { elements: 1, bytes: 8 },
  f8_e4m3: { elements: 1, bytes: 1 },
  f8_e5m2: { elements: 1, bytes: 1 },
  f8_e8m0: { elements: 1, bytes: 1 },
} as const satisfies Record<string, BlockLayout>;

export type UnsupportedDType = keyof typeof UNSUPPORTED_LAYOUTS;

/** Elements and bytes of one storage block of any dtype a file may hold. */
export const STORED_LAYOUTS: Readonly<Record<TensorDType | UnsupportedDType, BlockLayout>> = {
  ...UNSUPPORTED_LAYOUTS,
  ...BLOCK_LAYOUTS,
};

/** Whether backends compute with this dtype. */
export function isTensorDType(dtype: string): dtype is TensorDType {
  return (TENSOR_DTYPES as readonly string[]).includes(dtype);
}
