import type { KvasirError } from '../errors/kvasir-error.ts';
import type { BlockPoolStats } from '../blocks/block-pool.ts';
import type { SamplingParams } from '../sequences/sampling-params.ts';
import type { CancellationSignal } from './cancellation-signal.ts';

/** The driving port: what a server or a command line asks of the engine. */
export interface GenerationEngine {
  readonly limits: EngineLimits;

  /**
   * Queues one generation and returns at once; nothing is allocated before a step admits it.
   * @throws KvasirError `invalid-argument`, `context-length-exceeded`, `pool-too-small` (it could never run),
   *   `overloaded` (the queue is full), `disposed`, or the code that ended the engine (`device-lost`, `file-truncated`)
   */
  submit(request: GenerationRequest): Generation;

  /**
   * Log-probability of every token given those before it: element i belongs to `tokenIds[i]`, element 0 is NaN.
   * Batched with whatever else runs. Rejects as `submit` throws, with `aborted`, or with the step's error.
   */
  score(request: ScoreRequest): Promise<Float32Array>;

  /** Raw logits of every token, delivered chunk by chunk so that a long text never needs (T, V) floats at once. */
  logits(request: LogitsRequest): Promise<void>;

  /**
   * Submits what the pipeline has room for, waits for the oldest step and deals out its tokens. For tests and
   * benchmarks; not to be mixed with `start`.
   */
  step(): Promise<StepReport>;

  /** Steps whenever there is work, until `dispose`. Idempotent. */
  start(): void;

  stats(): EngineStats;

  /** Ends every generation with `disposed`, waits for steps in flight, gives all blocks back. The runner stays. */
  dispose(): Promise<void>;
}

/** What a caller may ask for: prompt + outputs - 1 tokens need a slot, and no more than these have one. */
export interface EngineLimits {
  /** Longest context a sequence may reach, in tokens. */
  readonly contextLength: number;
  /** Tokens the pool holds when nothing else runs. */
  readonly poolTokens: number;
  readonly maxBatchSequences: number;
  readonly vocabularySize: number;
}

export interface GenerationRequest {
  /** (T) at least one token; copied. */
  readonly promptIds: Int32Array;
  readonly sampling: SamplingParams;
  /** null: as many as the context and the pool can hold. */
  readonly maxTokens: number | null;
  /** Sampling one of these ends the generation; empty: only the length does. */
  readonly stopIds: readonly number[];
  /** Whose generation this is, for narration; default: its id. */
  readonly owner?: string;
  /** Whose cached prefixes it may use and adds to; default: `default`. Another tenant's do not exist for it. */
  readonly tenant?: string;
  /** Adds a hash of the raw logits' bits to every token event. */
  readonly reportHashes?: boolean;
  readonly signal?: CancellationSignal;
}

export interface ScoreRequest {
  /** (T) at least two tokens. */
  readonly tokenIds: Int32Array;
  readonly signal?: CancellationSignal;
}

export interface LogitsRequest {
  /** (T) at least one token. */
  readonly tokenIds: Int32Array;
  /** `rows` is (n, V) for tokens `firstToken` … `firstToken + n - 1`, in order; valid during the call only. */
  readonly onRows: (rows: Float32Array, firstToken: number) => void;
  readonly signal?: CancellationSignal;
}

/**
 * One generation. Iterating yields what has arrived since the last batch, as soon as there is something; the last batch
 * carries `finish`. Leaving the iteration early aborts. An unread generation holds at most `maxTokens` events.
 */
export interface Generation extends AsyncIterable<GenerationBatch> {
  readonly id: number;
  readonly stats: GenerationStats;
  /** What of the prompt was reused and why no more; null until it is admitted, which is before its first token. */
  readonly reuse: PrefixReuse | null;
  /** Settles with how it ended; never rejects. */
  readonly finished: Promise<GenerationFinish>;
  /** Ends it now with reason `abort`; tokens in flight are discarded. A no-op once finished. */
  abort(): void;
  /** Ends it now, successfully: a stop string was found in the text. Tokens in flight are discarded. */
  finish(): void;
  /** Reads it to the end. @throws the KvasirError it ended with; `aborted` when it was aborted */
  collect(): Promise<GenerationOutput>;
}

export interface GenerationBatch {
  readonly tokens: readonly TokenEvent[];
  readonly finish: GenerationFinish | null;
}

export interface TokenEvent {
  readonly tokenId: number;
  /** 0 is the first output. */
  readonly index: number;
  /** Natural log in the unmodified distribution; null unless `sampling.logprobs` asked. */
  readonly logprob: number | null;
  /** Likeliest first; null unless `sampling.logprobs` asked. */
  readonly topLogprobs: readonly TokenLogprob[] | null;
  readonly logitsHash: bigint | null;
}

export interface TokenLogprob {
  readonly tokenId: number;
  readonly logprob: number;
}

/** A stop token is named here and has no event. */
export type GenerationFinish =
  | { readonly reason: 'stop'; readonly stopTokenId: number | null }
  | { readonly reason: 'length' }
  | { readonly reason: 'abort' }
  | { readonly reason: 'error'; readonly error: KvasirError };

export interface GenerationOutput {
  readonly tokens: readonly TokenEvent[];
  readonly tokenIds: Int32Array;
  readonly finish: GenerationFinish;
}

/** What a prompt found of its prefix when it was admitted. All counts are tokens from the prompt's start. */
export interface PrefixReuse {
  /** Tokens the cache knew, whether or not their KV was still there. */
  readonly matchedTokens: number;
  /** Tokens whose KV was used: never computed again. At most `matchedTokens`. */
  readonly reusedTokens: number;
  /** Of the reused ones, by where they came from; a token whose block was in the pool is hot. */
  readonly fromTier: { readonly hot: number; readonly warm: number; readonly cold: number };
  /** What restoring moved. */
  readonly restoredBytes: { readonly warm: number; readonly cold: number };
  readonly restoreMs: number;
  /** Why no more was reused. `complete`: all of the prompt was. */
  readonly cause: ReuseLimit;
}

/**
 * `never-seen`: nothing of this tenant continues so. `evicted`: known, and its KV is gone. `damaged`: its stored block
 * failed verification. `other-identity`: stored by another model, dtype or numerics. `recompute-faster`: the planner's
 * choice. `cache-off`: the engine keeps no prefixes.
 */
export type ReuseLimit =
  | 'complete'
  | 'never-seen'
  | 'evicted'
  | 'damaged'
  | 'other-identity'
  | 'recompute-faster'
  | 'cache-off';

/** Live figures; durations in milliseconds since `submit`, null until known. */
export interface GenerationStats {
  readonly promptTokens: number;
  /** Prompt tokens whose KV was already there. */
  readonly cachedTokens: number;
  /** Tokens sampled and accepted, a final stop token included. */
  readonly outputTokens: number;
  readonly preemptions: number;
  readonly queuedMs: number | null;
  readonly firstTokenMs: number | null;
  readonly totalMs: number | null;
}

/** What one call of `step` settled. */
export type StepReport =
  /** Nothing to do. */
  | { readonly kind: 'idle' }
  | {
      readonly kind: 'ran';
      readonly stepId: number;
      readonly numSequences: number;
      readonly numPrefillTokens: number;
      readonly numDecodeTokens: number;
      /** Tokens accepted by generations; fewer than rows where an output was discarded or a prefill goes on. */
      readonly numOutputTokens: number;
      readonly executeMs: number;
    }
  | { readonly kind: 'failed'; readonly stepId: number; readonly error: KvasirError };

export interface EngineStats {
  readonly steps: number;
  readonly failedSteps: number;
  readonly stepsInFlight: number;
  readonly running: number;
  readonly waiting: number;
  readonly prefillTokens: number;
  /** Tokens accepted by generations. */
  readonly outputTokens: number;
  /** Tokens sampled past a stop, an abort or a preemption. */
  readonly discardedTokens: number;
  readonly preemptions: number;
  /** Time spent by the device, summed. */
  readonly executeMs: number;
  /** Element n: steps that carried n sequences; length maxBatchSequences + 1. */
  readonly batchSizes: readonly number[];
  /** One a layer group. */
  readonly blocks: readonly BlockPoolStats[];
  /** null: the engine keeps nothing. */
  readonly cache: CacheStats | null;
  /** What ended the engine for good; null while it works. */
  readonly failure: KvasirError | null;
}

/** The KV cache's figures: what there is now, and what was counted since the start. */
export interface CacheStats {
  /** Blocks of tokens it knows, with or without their KV. */
  readonly nodes: number;
  readonly hotBlocks: number;
  /** Of these, the ones that go when somebody needs their blocks. */
  readonly evictableBlocks: number;
  readonly warmBlocks: number;
  readonly warmBytes: number;
  /** Sequences that wait for KV on its way. */
  readonly loading: number;
  readonly lookups: number;
  /** Tokens of the prompts looked up, of these known, and of these reused, by where they were. */
  readonly promptTokens: number;
  readonly matchedTokens: number;
  readonly reusedTokens: { readonly hot: number; readonly warm: number; readonly cold: number };
  /** Copies of the leading slots of a block. */
  readonly slotCopies: number;
  /** Blocks that left the pool for others, and of these the ones no other tier had. */
  readonly evictions: number;
  readonly losses: number;
  readonly movedBytes: {
    readonly hotToWarm: number;
    readonly hotToCold: number;
    readonly warmToHot: number;
    readonly coldToHot: number;
  };
  readonly saves: number;
  readonly savesRefused: number;
  readonly saveFailures: number;
  readonly loads: number;
  readonly loadFailures: number;
  /** By reason. */
  readonly loadMisses: Readonly<Record<string, number>>;
  /** Speeds the restore planner goes by. */
  readonly bytesPerMs: { readonly warm: number; readonly cold: number };
  readonly prefillMsPerToken: number | null;
}
