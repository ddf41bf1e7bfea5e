/*
 * kvasir_abi.h: the C waist. Every backend (CPU, CUDA, MLX) implements exactly these functions, and the one binding in
 * native/napi is compiled against them once per backend. Compiles as C99; includes nothing but fixed-width integers.
 *
 * Conventions
 *  - Structs that cross the waist begin with `size` = sizeof(the struct as the caller compiled it). A backend refuses a
 *    size it does not know with KV_INVALID_ARGUMENT, so a stale binding fails at the first call and not later.
 *  - Pointers in arguments are borrowed: a backend copies what it needs before the function returns. Pointers in
 *    results belong to the backend and are valid only during the callback that delivers them.
 *  - Nothing of a device shows here: no device pointers, streams or threads. The KV pool is opaque and its layout is the
 *    backend's business; blocks cross the waist only as the canonical payload described at kv_runner_read_blocks.
 *  - A runner owns one submission thread. kv_runner_submit and the block functions queue work in call order and return;
 *    their callbacks run on that thread, in the same order, exactly once each, also when the runner is destroyed first.
 *  - Symbols: T tokens and S sequences in a batch, M block-table width, N blocks in the pool, Bk tokens per block,
 *    Hq query heads, Hkv KV heads, D head dimension, V vocabulary size, G layer groups.
 */
#ifndef KVASIR_ABI_H
#define KVASIR_ABI_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define KV_API __declspec(dllexport)
#else
#define KV_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define KV_ABI_VERSION 2u
#define KV_ERROR_MESSAGE_BYTES 1024u
#define KV_MAX_RANK 4u
#define KV_MAX_GROUPS 4u

/* ------------------------------------------------------------------------------------------------ status and errors */

/* Stable: never renumbered; new codes are appended. */
typedef enum kv_status {
  KV_OK = 0,
  KV_INVALID_ARGUMENT = 1,    /* a descriptor, batch or option breaks the contract; nothing was done */
  KV_UNSUPPORTED = 2,         /* well formed, but this backend has no kernel for it */
  KV_OUT_OF_MEMORY = 3,       /* host or device memory ran out; what the call held was released */
  KV_FILE_UNREADABLE = 4,     /* a weight file cannot be opened or mapped */
  KV_FILE_TRUNCATED = 5,      /* a weight file is, or became while mapped, shorter than its tensors need */
  KV_DEVICE_UNAVAILABLE = 6,  /* no such device, or no driver */
  KV_DEVICE_LOST = 7,         /* sticky device error: every later call on this runner fails the same way */
  KV_CANCELLED = 8,           /* the progress callback asked to stop, or the runner was destroyed first */
  KV_INTERNAL = 9             /* a bug: an exception nobody classified */
} kv_status;

/* Filled on failure; untouched on success. `message` states what was expected, what was found and what to do. */
typedef struct kv_error {
  uint32_t size;
  int32_t status; /* kv_status */
  char message[KV_ERROR_MESSAGE_BYTES];
} kv_error;

/* -------------------------------------------------------------------------------------------------- model as data */

typedef enum kv_dtype {
  KV_F32 = 0,
  KV_F16 = 1,
  KV_BF16 = 2,
  KV_Q8_0 = 3,
  KV_Q4_0 = 4,
  KV_Q4_1 = 5,
  KV_Q5_0 = 6,
  KV_Q5_1 = 7,
  KV_Q4_K = 8,
  KV_Q5_K = 9,
  KV_Q6_K = 10,
  KV_MXFP4 = 11,
  KV_Q8 = 12, /* KV pool only: signed 8-bit, one f16 scale per min(64, D) values of one head and token */
  KV_Q4 = 13  /* KV pool only: 4-bit, f16 scale and minimum per min(64, D) values of one head and token */
} kv_dtype;

/* What a tensor is for. (layer, role) is unique; layer is -1 for the model's own tensors. */
typedef enum kv_role {
  KV_ROLE_TOKEN_EMBEDDING = 0, /* (V, hidden) */
  KV_ROLE_OUTPUT_NORM = 1,     /* (hidden) */
  KV_ROLE_OUTPUT = 2,          /* (V, hidden); absent when embeddings are tied */
  KV_ROLE_ATTN_NORM = 16,      /* (hidden) */
  KV_ROLE_ATTN_Q = 17,         /* (Hq*D, hidden) */
  KV_ROLE_ATTN_K = 18,         /* (Hkv*D, hidden) */
  KV_ROLE_ATTN_V = 19,         /* (Hkv*D, hidden) */
  KV_ROLE_ATTN_Q_BIAS = 20,    /* (Hq*D) */
  KV_ROLE_ATTN_K_BIAS = 21,    /* (Hkv*D) */
  KV_ROLE_ATTN_V_BIAS = 22,    /* (Hkv*D) */
  KV_ROLE_ATTN_Q_NORM = 23,    /* (D): RMSNorm of each query head before RoPE */
  KV_ROLE_ATTN_K_NORM = 24,    /* (D) */
  KV_ROLE_ATTN_OUTPUT = 25,    /* (hidden, Hq*D) */
  KV_ROLE_ATTN_OUTPUT_BIAS = 26,
  KV_ROLE_ATTN_SINKS = 27,     /* (Hq): one extra logit a head in the softmax's denominator */
  KV_ROLE_ATTN_POST_NORM = 28, /* (hidden): norm of the attention output before the residual */
  KV_ROLE_FFN_NORM = 32,       /* (hidden) */
  KV_ROLE_FFN_GATE = 33,       /* (ffn, hidden); (experts, ffn, hidden) when routed */
  KV_ROLE_FFN_UP = 34,         /* as FFN_GATE */
  KV_ROLE_FFN_DOWN = 35,       /* (hidden, ffn); (experts, hidden, ffn) when routed */
  KV_ROLE_FFN_GATE_BIAS = 36,
  KV_ROLE_FFN_UP_BIAS = 37,
  KV_ROLE_FFN_DOWN_BIAS = 38,
  KV_ROLE_FFN_ROUTER = 39, /* (experts, hidden) */
  KV_ROLE_FFN_ROUTER_BIAS = 40,
  KV_ROLE_FFN_POST_NORM = 41 /* (hidden) */
} kv_role;

/* One tensor in a mapped file. `shape` is row-major, outermost first; the last extent is contiguous. */
typedef struct kv_tensor {
  uint32_t size;
  int32_t role;  /* kv_role */
  int32_t layer; /* -1, or 0 .. n_layers-1 */
  int32_t dtype; /* kv_dtype */
  uint32_t rank; /* 1 .. KV_MAX_RANK */
  uint32_t file; /* index into kv_model.files */
  uint64_t shape[KV_MAX_RANK];
  uint64_t offset; /* bytes from the file's start */
  uint64_t bytes;
} kv_tensor;

typedef enum kv_rope_style {
  KV_ROPE_HALVES = 0,     /* pairs (i, i + rotary_dim/2): Hugging Face checkpoints */
  KV_ROPE_INTERLEAVED = 1 /* pairs (2i, 2i + 1): GGUF files of the llama family */
} kv_rope_style;

/* Every scaling recipe (linear, llama3, YaRN, longrope) arrives already worked out as frequencies. */
typedef struct kv_rope {
  uint32_t size;
  int32_t style;                     /* kv_rope_style */
  uint32_t rotary_dim;               /* even, <= D; dimensions past it are passed through */
  const double* inverse_frequencies; /* (rotary_dim / 2), radians per position */
  double attention_factor;           /* multiplies cos and sin (YaRN's mscale); 1 otherwise */
} kv_rope;

typedef enum kv_activation {
  KV_ACT_SILU = 0,      /* silu(gate) * up */
  KV_ACT_GELU_TANH = 1, /* gelu_tanh(gate) * up */
  KV_ACT_SWIGLU_OAI = 2 /* gpt-oss: clamped, alpha 1.702, (up + 1) */
} kv_activation;

typedef struct kv_layer {
  uint32_t size;
  uint32_t group;         /* layer group: which block table and pool this layer's KV uses */
  uint32_t n_heads;       /* Hq */
  uint32_t n_kv_heads;    /* Hkv, divides Hq */
  uint32_t head_dim;      /* D */
  uint32_t window_tokens; /* 0: full attention; else a token sees itself and the window_tokens-1 before it */
  int32_t rope;           /* index into kv_model.ropes, -1: no position encoding */
  float softmax_scale;    /* multiplies q.k, usually 1/sqrt(D) */
  float logit_softcap;    /* 0: none */
  int32_t activation;     /* kv_activation */
  uint32_t ffn_dim;
  uint32_t n_experts;      /* 0: dense */
  uint32_t n_experts_used; /* routed: top-k, softmax over the chosen */
} kv_layer;

typedef struct kv_model {
  uint32_t size;
  uint32_t n_layers;
  uint32_t hidden;
  uint32_t vocab; /* V */
  uint32_t context_length;
  uint32_t n_groups; /* G, 1 .. KV_MAX_GROUPS */
  uint32_t n_ropes;
  uint32_t n_tensors;
  uint32_t n_files;
  float norm_epsilon;
  float embedding_scale;     /* multiplies the embedding; 1 otherwise */
  float logit_scale;         /* multiplies the logits; 1 otherwise */
  float final_logit_softcap; /* 0: none */
  const kv_layer* layers;    /* (n_layers) */
  const kv_rope* ropes;      /* (n_ropes) */
  const kv_tensor* tensors;  /* (n_tensors) */
  const char* const* files;  /* (n_files) UTF-8 paths */
} kv_model;

/* ------------------------------------------------------------------------------------------------ runner and memory */

typedef struct kv_runner kv_runner;

typedef enum kv_activation_mode {
  KV_ACTIVATIONS_QUANTIZED = 0, /* CPU: integer products for block-quantized weights, activations rounded to 8 bits a block;
                                   CUDA: f16 operands for all but F32 weights */
  KV_ACTIVATIONS_FLOAT = 1,     /* float32 activations everywhere: oracle mode */
  KV_ACTIVATIONS_FAST = 2       /* as QUANTIZED in small steps; in large ones 16-bit operands on matrix units, whose bits
                                   depend on what else is in the step; KV_UNSUPPORTED where a backend has none */
} kv_activation_mode;

typedef struct kv_runner_options {
  uint32_t size;
  uint32_t block_tokens;             /* Bk: 256 */
  uint32_t n_blocks[KV_MAX_GROUPS];  /* N per group */
  int32_t kv_dtype;                  /* KV_F32, KV_F16, KV_BF16; KV_Q8 and KV_Q4 where the backend holds them */
  int32_t activation_mode;           /* kv_activation_mode */
  uint32_t max_batch_tokens;         /* limit of T */
  uint32_t max_batch_sequences;      /* limit of S */
  uint32_t max_blocks_per_sequence;  /* limit of M */
  uint32_t n_sampler_slots;
  uint32_t n_threads;                /* 0: the backend chooses */
  uint32_t poison_pool;              /* tests: fill the pool and fresh workspace with NaN patterns */
  const char* instruction_path;      /* NULL or "auto"; else one of kv_backend_info.instruction_paths */
} kv_runner_options;

typedef struct kv_backend_info {
  uint32_t size;
  uint32_t abi_version;
  char name[32];                /* "cpu", "cuda", "mlx" */
  char device[128];             /* what a person would call it */
  char instruction_paths[128];  /* comma separated, best first: those this machine can run */
} kv_backend_info;

typedef struct kv_memory {
  uint32_t size;
  uint32_t reserved;
  uint64_t weights_mapped_bytes;   /* mapped from files, shared with the page cache */
  uint64_t weights_repacked_bytes; /* private copies in another layout */
  uint64_t kv_pool_bytes;
  uint64_t workspace_bytes;        /* of steps, on the device where it has memory of its own */
  uint64_t pinned_bytes;           /* page-locked host memory that steps and blocks pass through */
  uint64_t host_bytes;             /* ordinary host memory beside those, where the workspace is on a device */
  uint64_t allocations;            /* count so far: flat while decoding */
  uint64_t residency_checks;       /* times every allocation was asked where it lies; 0: memory is the host's */
  uint64_t residency_failures;     /* of those, times one lay elsewhere: steps fail with KV_DEVICE_LOST until none does */
} kv_memory;

/* What a runner would take of a device with memory of its own. */
typedef struct kv_memory_plan {
  uint32_t size;
  uint32_t reserved;
  uint64_t total_bytes;     /* of the device; 0: memory is the host's, and nothing else here is worked out */
  uint64_t free_bytes;      /* of it, now */
  uint64_t weights_bytes;
  uint64_t kv_pool_bytes;   /* of the options' n_blocks */
  uint64_t workspace_bytes; /* the most beside those two, also while loading */
  uint64_t pinned_bytes;    /* host memory, page-locked */
} kv_memory_plan;

/* Reports load progress; return non-zero to cancel. Called on the loading thread. */
typedef int32_t (*kv_progress_callback)(void* user, uint64_t bytes_done, uint64_t bytes_total);

/* ------------------------------------------------------------------------------------------------ steps */

/* Sampling state of one sequence, sent once when it is admitted to a slot, again after preemption. */
typedef struct kv_sampler {
  uint32_t size;
  uint32_t slot;            /* 0 .. n_sampler_slots-1; a later admission replaces it */
  uint64_t seed;            /* random stream: (seed, output index) */
  float temperature;        /* 0: greedy */
  uint32_t top_k;           /* 0: off */
  float top_p;              /* 1: off */
  float min_p;              /* 0: off */
  float repetition_penalty; /* 1: off; over prompt and output */
  float frequency_penalty;  /* 0: off; over output */
  float presence_penalty;   /* 0: off; over output */
  uint32_t n_logprobs;      /* alternatives to report; the sampled token's own logprob is reported when >= 1 */
  uint32_t report_logprob;  /* 1: report the sampled token's logprob (also with n_logprobs 0) */
  uint32_t max_outputs;     /* the output with index max_outputs-1 is flagged KV_STOP_LENGTH; 0: no limit */
  int32_t adapter;          /* -1: none */
  uint32_t n_history;
  uint32_t n_prompt;        /* the first n_prompt tokens of history are prompt, the rest output */
  const int32_t* history;   /* (n_history) */
  uint32_t n_bias;
  uint32_t n_stop;
  const int32_t* bias_ids;  /* (n_bias) */
  const float* bias_values; /* (n_bias), added to the logits before penalties */
  const int32_t* stop_ids;  /* (n_stop) */
} kv_sampler;

enum {
  KV_ROW_SAMPLE = 1,       /* sample after the sequence's last token; needs a sampler slot */
  KV_ROW_LOGITS_LAST = 2,  /* return logits of the sequence's last token */
  KV_ROW_LOGITS_ALL = 4,   /* return logits of each of the sequence's tokens */
  KV_ROW_HASH = 8,         /* return a 64-bit hash of the raw logits of the last token */
  KV_ROW_TARGETS = 16      /* return the log-probability of target_ids at each of the sequence's tokens */
};

enum { KV_STOP_NONE = 0, KV_STOP_TOKEN = 1, KV_STOP_LENGTH = 2 };

/* A ragged batch: S sequences with T tokens in all, prefill chunks and decoding sequences alike. */
typedef struct kv_batch {
  uint32_t size;
  uint32_t n_tokens;               /* T, 1 .. max_batch_tokens */
  uint32_t n_sequences;            /* S, 1 .. max_batch_sequences */
  uint32_t n_groups;               /* G of the model */
  const int32_t* token_ids;        /* (T) */
  const int32_t* positions;        /* (T), consecutive within a sequence */
  const int32_t* cu_seqlens_q;     /* (S+1) prefix sums of tokens per sequence; every sequence has at least one */
  const int32_t* context_lengths;  /* (S) tokens attended to by the last token, itself included = last position + 1 */
  uint32_t block_table_width[KV_MAX_GROUPS];      /* M per group */
  const int32_t* block_tables[KV_MAX_GROUPS];     /* (S, M) block ids in logical order, padded with -1 */
  const int32_t* slot_mapping[KV_MAX_GROUPS];     /* (T) block_id*Bk + offset to write, -1: do not write */
  const int32_t* input_rows;       /* (S) or NULL. r >= 0: the sequence's first token is what row r of the previous
                                      submitted batch sampled (token_ids holds any value there); -1: as given */
  const int32_t* sampler_slots;    /* (S) slot, or -1 without KV_ROW_SAMPLE */
  const int32_t* output_indexes;   /* (S) index of the output to sample: the random stream's counter */
  const uint8_t* row_flags;        /* (S) KV_ROW_* */
  const int32_t* target_ids;       /* (T) or NULL; read where KV_ROW_TARGETS is set; -1: none */
  const uint32_t* const* masks;    /* NULL, or (S) of NULL or ceil(V/32) words: bit set = token allowed */
  uint32_t n_samplers;             /* admissions carried by this batch */
  const kv_sampler* samplers;      /* (n_samplers) */
} kv_batch;

typedef struct kv_step_result {
  uint32_t size;
  uint32_t n_sequences;            /* S */
  uint32_t n_logits_rows;
  uint32_t max_logprobs;           /* K: largest n_logprobs in the batch */
  const int32_t* sampled_ids;      /* (S) -1 where nothing was sampled */
  const float* sampled_logprobs;   /* (S) natural log of the unmodified distribution; NaN where not asked for */
  const uint8_t* stops;            /* (S) KV_STOP_* */
  const int32_t* top_ids;          /* (S, K) -1 padded */
  const float* top_logprobs;       /* (S, K) */
  const float* logits;             /* (n_logits_rows, V) raw, before bias, penalties and temperature */
  const uint32_t* logits_tokens;   /* (n_logits_rows) index into the batch's T tokens */
  const uint64_t* hashes;          /* (S) 0 where not asked for */
  const float* target_logprobs;    /* (T) NaN where not asked for; NULL when no row asked */
  uint64_t execute_ns;             /* time on the submission thread */
} kv_step_result;

/* Exactly one of result and error is non-NULL. */
typedef void (*kv_step_callback)(void* user, const kv_step_result* result, const kv_error* error);
/* error is NULL on success. */
typedef void (*kv_done_callback)(void* user, const kv_error* error);

/* ------------------------------------------------------------------------------------------------ functions */

KV_API kv_status kv_get_backend_info(kv_backend_info* info, kv_error* error);

/* What kv_runner_create would take with these arguments. Opens no file and allocates nothing that stays; the first call of
 * a process may take a second, for the device's context. */
KV_API kv_status kv_plan_memory(const kv_model* model, const kv_runner_options* options, kv_memory_plan* plan,
                                kv_error* error);

/* Checks the whole descriptor and every tensor's extent against its file before anything is mapped, maps the files,
 * allocates the pool and all workspace for the declared limits. Blocking; call it off the JavaScript thread. */
KV_API kv_status kv_runner_create(const kv_model* model, const kv_runner_options* options,
                                  kv_progress_callback progress, void* user, kv_runner** runner, kv_error* error);

/* Waits for the running step, fails queued work with KV_CANCELLED, frees everything. NULL is allowed. Never from a
 * callback: those run on the runner's own thread, which this waits for. */
KV_API void kv_runner_destroy(kv_runner* runner);

/* Identity of the output bits: changes whenever they can (backend, mode, kernel revision). NUL-terminated, <= capacity. */
KV_API kv_status kv_runner_numerics_id(kv_runner* runner, char* out, uint32_t capacity, kv_error* error);
KV_API kv_status kv_runner_instruction_path(kv_runner* runner, char* out, uint32_t capacity, kv_error* error);
KV_API kv_status kv_runner_memory(kv_runner* runner, kv_memory* memory, kv_error* error);

/* Validates and copies the batch, queues it and returns. A refused batch calls nothing back. */
KV_API kv_status kv_runner_submit(kv_runner* runner, const kv_batch* batch, kv_step_callback callback, void* user,
                                  kv_error* error);

/* Canonical payload of one block: for each layer of the group in order, K then V, each (Hkv, tokens) records of one head
 * of one token, contiguous. A record is D values in the pool's dtype; of a KV_Q8 or KV_Q4 pool, with groups of
 * g = min(64, D) values:
 *   KV_Q8  D signed 8-bit codes, D/g f16 scales: value = scale * code
 *   KV_Q4  D/2 bytes, D/g f16 scales, D/g f16 minima: value = minimum + scale * code; byte i of a group holds code i in
 *          its low four bits and code i + g/2 in the high ones
 * K of both is stored after each run of b values, b the largest power of two that divides g, was multiplied by the
 * Walsh-Hadamard matrix and by 2^-floor(log2(b)/2). Its size: */
KV_API kv_status kv_runner_block_bytes(kv_runner* runner, uint32_t group, uint64_t* bytes, kv_error* error);

/* Copies the first n_tokens[i] slots of block sources[i] to destinations[i]. */
KV_API kv_status kv_runner_copy_blocks(kv_runner* runner, uint32_t group, const int32_t* sources,
                                       const int32_t* destinations, const int32_t* n_tokens, uint32_t count,
                                       kv_done_callback callback, void* user, kv_error* error);

/* `data` holds count payloads back to back and must stay valid until the callback. */
KV_API kv_status kv_runner_read_blocks(kv_runner* runner, uint32_t group, const int32_t* blocks, uint32_t count,
                                       void* data, uint64_t bytes, kv_done_callback callback, void* user,
                                       kv_error* error);
KV_API kv_status kv_runner_write_blocks(kv_runner* runner, uint32_t group, const int32_t* blocks, uint32_t count,
                                        const void* data, uint64_t bytes, kv_done_callback callback, void* user,
                                        kv_error* error);

#ifdef __cplusplus
}
#endif
#endif
