import type { ModelCacheSpec } from '../model/model-cache-spec.ts';
import type { SamplingParams } from '../sequences/sampling-params.ts';

/**
 * One loaded model with its KV pool on one device. It executes; it decides nothing. Block ids mean the same to every
 * method; which of them are free is the BlockPool's knowledge.
 *
 * Symbols: T tokens and S sequences in a batch, M block-table width, V vocabulary size.
 */
export interface ModelRunner {
  readonly info: RunnerInfo;

  /**
   * Queues one ragged batch and returns at once; everything in `batch` is copied before it returns. Steps run in the
   * order of submission. At most `info.maxStepsInFlight` may be unsettled.
   * @throws KvasirError `invalid-argument` when the batch breaks the contract (nothing is done), `disposed`
   */
  submit(batch: StepBatch): StepHandle;

  /** Copies the first `numTokens` slots of each source block; ordered with submitted steps. */
  copyBlocks(group: number, copies: readonly BlockCopy[]): Promise<void>;

  /**
   * Payloads in the canonical layout (layer, K then V, head, token, dim), back to back, ordered with steps.
   * @param into memory for them, exactly as long, shared or not; it is this call's until the promise settles. Memory that
   *   was written to before is filled several times faster than what would be allocated here.
   * @returns `into`, or memory of its own
   */
  readBlocks(group: number, blockIds: Int32Array, into?: Uint8Array): Promise<Uint8Array>;

  /** Inverse of `readBlocks`. `payloads` must not change until the promise settles. */
  writeBlocks(group: number, blockIds: Int32Array, payloads: Uint8Array): Promise<void>;

  memory(): RunnerMemory;

  /** Waits for the running step, rejects queued ones with `disposed`, frees the pool. Idempotent. */
  dispose(): Promise<void>;

  /** `await using runner = …` disposes it at the end of the block. */
  [Symbol.asyncDispose](): Promise<void>;
}

export interface RunnerInfo {
  /** `cpu`, `cuda`, `mlx` or `fake`. */
  readonly backend: string;
  /** What a person calls the device. */
  readonly device: string;
  /** Changes whenever output bits can: backend, mode, kernel revision. Part of every cache identity. */
  readonly numericsId: string;
  readonly instructionPath: string;
  readonly vocabularySize: number;
  readonly cacheSpec: ModelCacheSpec;
  /** Blocks in the pool, per layer group. */
  readonly numBlocks: readonly number[];
  readonly maxBatchTokens: number;
  readonly maxBatchSequences: number;
  readonly maxBlocksPerSequence: number;
  readonly numSamplerSlots: number;
  /** 1 or 2: with 2 the next step may be submitted before the previous result is known. */
  readonly maxStepsInFlight: number;
  /** Context length at which attending costs a prompt token as much as the weights do; Infinity where it never does. */
  readonly attentionParityTokens: number;
}

export interface StepBatch {
  /** (T) */
  readonly tokenIds: Int32Array;
  /** (T) consecutive within a sequence. */
  readonly positions: Int32Array;
  /** (S+1) prefix sums of tokens per sequence. */
  readonly cuSeqlensQ: Int32Array;
  /** (S) last position + 1. */
  readonly contextLengths: Int32Array;
  /** One entry a layer group. */
  readonly groups: readonly StepGroup[];
  /** (S) row of the previously submitted batch whose sampled token is this sequence's first token; -1: as given. */
  readonly inputRows: Int32Array;
  /** (S) sampler slot, -1 where nothing is sampled. */
  readonly samplerSlots: Int32Array;
  /** (S) index of the output sampled: counter of the random stream. */
  readonly outputIndexes: Int32Array;
  /** (S) sums of ROW_FLAGS. */
  readonly rowFlags: Uint8Array;
  /** (T) token whose log-probability is wanted, -1 for none; present when a row has ROW_FLAGS.targets. */
  readonly targetIds?: Int32Array;
  /** Sampler state sent once per sequence, and again after preemption. */
  readonly admissions: readonly SamplerAdmission[];
}

export interface StepGroup {
  /** (S, M) row-major block ids in logical order, padded with -1. */
  readonly blockTables: Int32Array;
  readonly blockTableWidth: number;
  /** (T) blockId * blockTokens + offset; -1 does not write. */
  readonly slotMapping: Int32Array;
}

export const ROW_FLAGS = { sample: 1, logitsLast: 2, logitsAll: 4, hash: 8, targets: 16 } as const;

export interface SamplerAdmission {
  readonly slot: number;
  readonly params: SamplingParams;
  /** Prompt and output so far: what penalties count. */
  readonly history: Int32Array;
  /** The first `numPromptTokens` of `history` are prompt. */
  readonly numPromptTokens: number;
  /** Sampling one of these sets the row's stop to `token`. */
  readonly stopIds: Int32Array;
  /** The output with index `maxOutputs - 1` sets the row's stop to `length`. */
  readonly maxOutputs: number;
}

export interface StepHandle {
  /** Settles when the step has run. Rejects with a KvasirError; the pool then holds whatever was written. */
  readonly result: Promise<StepResult>;
}

export interface StepResult {
  /** (S) -1 where nothing was sampled. */
  readonly sampledIds: Int32Array;
  /** (S) STOP_REASONS index: 0 none, 1 token, 2 length. */
  readonly stops: Uint8Array;
  /** (S) natural log in the unmodified distribution; NaN where not asked for. */
  readonly sampledLogprobs: Float32Array;
  /** (S, maxLogprobs), -1 padded, likeliest first. */
  readonly topIds: Int32Array;
  readonly topLogprobs: Float32Array;
  readonly maxLogprobs: number;
  /** (rows, V) raw logits asked for, and the batch token each belongs to. */
  readonly logits: Float32Array;
  readonly logitsTokens: Uint32Array;
  /** (S) hash of the raw logits' bits of the last token; 0 where not asked for. */
  readonly hashes: BigUint64Array;
  /** (T) NaN where not asked for; empty when no row asked. */
  readonly targetLogprobs: Float32Array;
  /** Time on the device's thread. */
  readonly executeMs: number;
}

export interface BlockCopy {
  readonly source: number;
  readonly destination: number;
  readonly numTokens: number;
}

/** What a runner holds, by purpose; on a device with memory of its own, of that device unless said otherwise. */
export interface RunnerMemory {
  /** Mapped from files, shared with the page cache of the host. */
  readonly weightsMappedBytes: number;
  /** Private copies in the layout of the kernels. */
  readonly weightsRepackedBytes: number;
  readonly kvPoolBytes: number;
  readonly workspaceBytes: number;
  /** Page-locked host memory that steps and blocks pass through. */
  readonly pinnedBytes: number;
  /** Ordinary host memory beside those, where the workspace is on a device. */
  readonly hostBytes: number;
  /** Native allocations so far: flat while decoding. */
  readonly allocations: number;
  /** Times every allocation was asked where it lies; 0 where memory is the host's. */
  readonly residencyChecks: number;
  /** Of those, times one lay elsewhere: steps fail with `device-lost` until none does. */
  readonly residencyFailures: number;
}
