// The face of every addon: native/napi compiled with one backend. Each entry stands under the C signature it calls.
// scripts/check-abi.ts compares signatures, struct fields and constants with native/abi/kvasir_abi.h.
//
// A call that the waist refuses throws an AddonError at once. A call that takes a ticket and returns settles exactly
// once, through onCompletion with that ticket, in the order of the calls. Typed arrays are copied before a call returns,
// except the data of readBlocks and writeBlocks, which must be left alone until its ticket settles.

/** What native code throws and reports: `status` is a kv_status. */
export interface AddonError extends Error {
  readonly status: number;
}

/** An opaque, type-tagged handle of one runner. */
export interface RunnerHandle {
  readonly __runner: never;
}

export type OnCompletion = (ticket: number, error: AddonError | null, result: AddonStepResult | null) => void;

/** Bytes done and bytes in all; reports that come faster than the event loop turns are merged. */
export type OnProgress = (bytesDone: number, bytesTotal: number) => void;

export interface KvasirAddon {
  // KV_ABI_VERSION
  readonly abiVersion: number;

  // kv_status kv_get_backend_info(kv_backend_info* info, kv_error* error);
  backendInfo(): AddonBackendInfo;

  // kv_status kv_plan_memory(const kv_model* model, const kv_runner_options* options, kv_memory_plan* plan,
  //                          kv_error* error);
  /** The first call of a process may take a second on a backend with a device. */
  planMemory(model: AddonModel, options: AddonRunnerOptions): AddonMemoryPlan;

  // kv_status kv_runner_create(const kv_model* model, const kv_runner_options* options, kv_progress_callback progress,
  //                            void* user, kv_runner** runner, kv_error* error);
  /** Loads on a thread of its own; the handle may be used once `ticket` has settled without an error. */
  openRunner(
    ticket: number,
    model: AddonModel,
    options: AddonRunnerOptions,
    onCompletion: OnCompletion,
    onProgress: OnProgress,
  ): RunnerHandle;
  /** Makes the progress callback return non-zero: the opening settles with KV_CANCELLED unless it was faster. */
  cancelOpening(runner: RunnerHandle): void;

  // void kv_runner_destroy(kv_runner* runner);
  /** Settles what is queued with KV_CANCELLED, then `ticket`. Every other call is refused from here on. */
  destroyRunner(runner: RunnerHandle, ticket: number): void;

  // kv_status kv_runner_numerics_id(kv_runner* runner, char* out, uint32_t capacity, kv_error* error);
  numericsId(runner: RunnerHandle): string;

  // kv_status kv_runner_instruction_path(kv_runner* runner, char* out, uint32_t capacity, kv_error* error);
  instructionPath(runner: RunnerHandle): string;

  // kv_status kv_runner_memory(kv_runner* runner, kv_memory* memory, kv_error* error);
  memory(runner: RunnerHandle): AddonMemory;

  // kv_status kv_runner_submit(kv_runner* runner, const kv_batch* batch, kv_step_callback callback, void* user,
  //                            kv_error* error);
  submit(runner: RunnerHandle, ticket: number, batch: AddonBatch): void;

  // kv_status kv_runner_block_bytes(kv_runner* runner, uint32_t group, uint64_t* bytes, kv_error* error);
  blockBytes(runner: RunnerHandle, group: number): number;

  // kv_status kv_runner_copy_blocks(kv_runner* runner, uint32_t group, const int32_t* sources,
  //                                 const int32_t* destinations, const int32_t* n_tokens, uint32_t count,
  //                                 kv_done_callback callback, void* user, kv_error* error);
  copyBlocks(
    runner: RunnerHandle,
    ticket: number,
    group: number,
    sources: Int32Array,
    destinations: Int32Array,
    nTokens: Int32Array,
  ): void;

  // kv_status kv_runner_read_blocks(kv_runner* runner, uint32_t group, const int32_t* blocks, uint32_t count,
  //                                 void* data, uint64_t bytes, kv_done_callback callback, void* user,
  //                                 kv_error* error);
  readBlocks(runner: RunnerHandle, ticket: number, group: number, blocks: Int32Array, data: Uint8Array): void;

  // kv_status kv_runner_write_blocks(kv_runner* runner, uint32_t group, const int32_t* blocks, uint32_t count,
  //                                  const void* data, uint64_t bytes, kv_done_callback callback, void* user,
  //                                  kv_error* error);
  writeBlocks(runner: RunnerHandle, ticket: number, group: number, blocks: Int32Array, data: Uint8Array): void;
}

/** kv_backend_info */
export interface AddonBackendInfo {
  readonly abiVersion: number;
  readonly name: string;
  readonly device: string;
  /** Comma separated, best first. */
  readonly instructionPaths: string;
}

/** kv_model; its counts are the lengths of its arrays. */
export interface AddonModel {
  readonly hidden: number;
  readonly vocab: number;
  readonly contextLength: number;
  readonly nGroups: number;
  readonly normEpsilon: number;
  readonly embeddingScale: number;
  readonly logitScale: number;
  /** 0: none */
  readonly finalLogitSoftcap: number;
  readonly layers: readonly AddonLayer[];
  readonly ropes: readonly AddonRope[];
  readonly tensors: readonly AddonTensor[];
  readonly files: readonly string[];
}

/** kv_layer */
export interface AddonLayer {
  readonly group: number;
  readonly nHeads: number;
  readonly nKvHeads: number;
  readonly headDim: number;
  /** 0: full attention */
  readonly windowTokens: number;
  /** -1: no position encoding */
  readonly rope: number;
  readonly softmaxScale: number;
  /** 0: none */
  readonly logitSoftcap: number;
  readonly activation: number;
  readonly ffnDim: number;
  /** 0: dense */
  readonly nExperts: number;
  readonly nExpertsUsed: number;
}

/** kv_rope */
export interface AddonRope {
  readonly style: number;
  readonly rotaryDim: number;
  /** (rotaryDim / 2) */
  readonly inverseFrequencies: Float64Array;
  readonly attentionFactor: number;
}

/** kv_tensor; its rank is the length of its shape. */
export interface AddonTensor {
  readonly role: number;
  /** -1: the model's own */
  readonly layer: number;
  readonly dtype: number;
  readonly file: number;
  readonly shape: Float64Array;
  readonly offset: number;
  readonly bytes: number;
}

/** kv_runner_options */
export interface AddonRunnerOptions {
  readonly blockTokens: number;
  /** One entry a layer group. */
  readonly nBlocks: Uint32Array;
  readonly kvDtype: number;
  readonly activationMode: number;
  readonly maxBatchTokens: number;
  readonly maxBatchSequences: number;
  readonly maxBlocksPerSequence: number;
  readonly nSamplerSlots: number;
  readonly nThreads: number;
  /** 1: fill the pool with NaN patterns */
  readonly poisonPool: number;
  readonly instructionPath: string;
}

/** kv_memory */
export interface AddonMemory {
  readonly weightsMappedBytes: number;
  readonly weightsRepackedBytes: number;
  readonly kvPoolBytes: number;
  readonly workspaceBytes: number;
  readonly pinnedBytes: number;
  readonly hostBytes: number;
  readonly allocations: number;
  readonly residencyChecks: number;
  readonly residencyFailures: number;
}

/** kv_memory_plan */
export interface AddonMemoryPlan {
  /** 0: memory is the host's, and the rest is not worked out */
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly weightsBytes: number;
  readonly kvPoolBytes: number;
  readonly workspaceBytes: number;
  readonly pinnedBytes: number;
}

/** kv_sampler; its counts are the lengths of its arrays. */
export interface AddonSampler {
  readonly slot: number;
  readonly seed: bigint;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly frequencyPenalty: number;
  readonly presencePenalty: number;
  readonly nLogprobs: number;
  readonly reportLogprob: number;
  readonly maxOutputs: number;
  /** -1: none */
  readonly adapter: number;
  readonly nPrompt: number;
  readonly history: Int32Array;
  readonly biasIds: Int32Array;
  readonly biasValues: Float32Array;
  readonly stopIds: Int32Array;
}

/** kv_batch; T is tokenIds.length, S is contextLengths.length. */
export interface AddonBatch {
  /** (T) */
  readonly tokenIds: Int32Array;
  /** (T) */
  readonly positions: Int32Array;
  /** (S+1) */
  readonly cuSeqlensQ: Int32Array;
  /** (S) */
  readonly contextLengths: Int32Array;
  /** (G) */
  readonly blockTableWidth: Uint32Array;
  /** (G) of (S, M) */
  readonly blockTables: readonly Int32Array[];
  /** (G) of (T) */
  readonly slotMapping: readonly Int32Array[];
  /** (S) */
  readonly inputRows?: Int32Array;
  /** (S) */
  readonly samplerSlots: Int32Array;
  /** (S) */
  readonly outputIndexes: Int32Array;
  /** (S) */
  readonly rowFlags: Uint8Array;
  /** (T) */
  readonly targetIds?: Int32Array | undefined;
  /** (S) of null or ceil(V / 32) words */
  readonly masks?: readonly (Uint32Array | null)[];
  readonly samplers: readonly AddonSampler[];
}

/** kv_step_result: views of one fresh ArrayBuffer. */
export interface AddonStepResult {
  /** (S) */
  readonly sampledIds: Int32Array;
  /** (S) */
  readonly sampledLogprobs: Float32Array;
  /** (S) */
  readonly stops: Uint8Array;
  /** (S, K) */
  readonly topIds: Int32Array;
  /** (S, K) */
  readonly topLogprobs: Float32Array;
  readonly maxLogprobs: number;
  /** (rows, V) */
  readonly logits: Float32Array;
  /** (rows) */
  readonly logitsTokens: Uint32Array;
  /** (S) */
  readonly hashes: BigUint64Array;
  /** (T) or empty */
  readonly targetLogprobs: Float32Array;
  readonly executeNs: number;
}
