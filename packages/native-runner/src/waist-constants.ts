// Numbers of the C waist, under the header's own names. scripts/check-abi.ts compares them with native/abi/kvasir_abi.h.

/** KV_ABI_VERSION: an addon built against another one is refused. */
export const KV_ABI_VERSION = 2;

/** enum kv_status */
export const KV_STATUS = {
  KV_OK: 0,
  KV_INVALID_ARGUMENT: 1,
  KV_UNSUPPORTED: 2,
  KV_OUT_OF_MEMORY: 3,
  KV_FILE_UNREADABLE: 4,
  KV_FILE_TRUNCATED: 5,
  KV_DEVICE_UNAVAILABLE: 6,
  KV_DEVICE_LOST: 7,
  KV_CANCELLED: 8,
  KV_INTERNAL: 9,
} as const;

/** enum kv_dtype */
export const KV_DTYPE = {
  KV_F32: 0,
  KV_F16: 1,
  KV_BF16: 2,
  KV_Q8_0: 3,
  KV_Q4_0: 4,
  KV_Q4_1: 5,
  KV_Q5_0: 6,
  KV_Q5_1: 7,
  KV_Q4_K: 8,
  KV_Q5_K: 9,
  KV_Q6_K: 10,
  KV_MXFP4: 11,
  KV_Q8: 12,
  KV_Q4: 13,
} as const;

/** enum kv_role */
export const KV_ROLE = {
  KV_ROLE_TOKEN_EMBEDDING: 0,
  KV_ROLE_OUTPUT_NORM: 1,
  KV_ROLE_OUTPUT: 2,
  KV_ROLE_ATTN_NORM: 16,
  KV_ROLE_ATTN_Q: 17,
  KV_ROLE_ATTN_K: 18,
  KV_ROLE_ATTN_V: 19,
  KV_ROLE_ATTN_Q_BIAS: 20,
  KV_ROLE_ATTN_K_BIAS: 21,
  KV_ROLE_ATTN_V_BIAS: 22,
  KV_ROLE_ATTN_Q_NORM: 23,
  KV_ROLE_ATTN_K_NORM: 24,
  KV_ROLE_ATTN_OUTPUT: 25,
  KV_ROLE_ATTN_OUTPUT_BIAS: 26,
  KV_ROLE_ATTN_SINKS: 27,
  KV_ROLE_ATTN_POST_NORM: 28,
  KV_ROLE_FFN_NORM: 32,
  KV_ROLE_FFN_GATE: 33,
  KV_ROLE_FFN_UP: 34,
  KV_ROLE_FFN_DOWN: 35,
  KV_ROLE_FFN_GATE_BIAS: 36,
  KV_ROLE_FFN_UP_BIAS: 37,
  KV_ROLE_FFN_DOWN_BIAS: 38,
  KV_ROLE_FFN_ROUTER: 39,
  KV_ROLE_FFN_ROUTER_BIAS: 40,
  KV_ROLE_FFN_POST_NORM: 41,
} as const;

/** enum kv_rope_style */
export const KV_ROPE_STYLE = { KV_ROPE_HALVES: 0, KV_ROPE_INTERLEAVED: 1 } as const;

/** enum kv_activation */
export const KV_ACTIVATION = { KV_ACT_SILU: 0, KV_ACT_GELU_TANH: 1, KV_ACT_SWIGLU_OAI: 2 } as const;

/** enum kv_activation_mode */
export const KV_ACTIVATION_MODE = {
  KV_ACTIVATIONS_QUANTIZED: 0,
  KV_ACTIVATIONS_FLOAT: 1,
  KV_ACTIVATIONS_FAST: 2,
} as const;

/** The flags of one row of a batch; the domain's ROW_FLAGS under the header's names. */
export const KV_ROW = {
  KV_ROW_SAMPLE: 1,
  KV_ROW_LOGITS_LAST: 2,
  KV_ROW_LOGITS_ALL: 4,
  KV_ROW_HASH: 8,
  KV_ROW_TARGETS: 16,
} as const;

/** Why a row's sequence ends with the token just sampled. */
export const KV_STOP = { KV_STOP_NONE: 0, KV_STOP_TOKEN: 1, KV_STOP_LENGTH: 2 } as const;
