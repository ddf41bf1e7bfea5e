import { type Clock, KvasirError, type ModelRunner, type Narrator, type RunnerInfo } from '@kvasir/domain';
import type { CacheOptions } from './cache/cache-options.ts';

/** The driven ports the engine works through. It disposes none of them. */
export interface BatchEnginePorts {
  readonly runner: ModelRunner;
  readonly clock: Clock;
  readonly narrator: Narrator;
}

export interface BatchEngineOptions {
  /** Keeps the KV of what was computed, for later prompts and for agents; default: nothing outlives its sequence. */
  readonly cache?: CacheOptions;
  /** Longest context of a sequence in tokens; lowered to what the runner's block tables can name. */
  readonly contextLength: number;
  /** Tokens a step may carry; default and upper limit: what the runner was loaded for. */
  readonly maxBatchTokens?: number;
  /** Sequences that may run at once; default and upper limit: what the runner was loaded for. */
  readonly maxBatchSequences?: number;
  /**
   * Prompt tokens a step may carry while other sequences decode, fewer deep in a prompt, where attention makes each
   * dearer: what bounds the gap between two of their tokens. Default 128.
   */
  readonly prefillChunkTokens?: number;
  /** Generations that may wait for admission before `submit` says `overloaded`; default 256. */
  readonly maxQueue?: number;
  /** 1: a step is submitted when the one before has been dealt out. 2 (default, if the runner can): one step earlier. */
  readonly maxStepsInFlight?: number;
}

/** The options with every default filled in and every limit applied. */
export interface EngineSettings {
  readonly contextLength: number;
  readonly maxBatchTokens: number;
  readonly maxBatchSequences: number;
  readonly prefillChunkTokens: number;
  readonly maxQueue: number;
  readonly maxStepsInFlight: number;
  /** The runner's. */
  readonly attentionParityTokens: number;
}

const DEFAULT_PREFILL_CHUNK_TOKENS = 128;
const DEFAULT_MAX_QUEUE = 256;
/** A row's unknown input token comes from the batch before; more than two steps in flight would need older ones. */
const DEEPEST_PIPELINE = 2;

/** @throws KvasirError `invalid-argument` naming the option */
export function resolveSettings(options: BatchEngineOptions, info: RunnerInfo): EngineSettings {
  const maxBatchTokens = positive('maxBatchTokens', options.maxBatchTokens, info.maxBatchTokens, info.maxBatchTokens);
  const rowLimit = Math.min(info.maxBatchSequences, info.numSamplerSlots);
  return {
    contextLength: Math.min(
      positive('contextLength', options.contextLength, 1, Number.MAX_SAFE_INTEGER),
      info.maxBlocksPerSequence * info.cacheSpec.blockTokens,
    ),
    maxBatchTokens,
    // A decoding sequence gets a token in every step, so there can be no more of them than a step has tokens.
    maxBatchSequences: Math.min(
      maxBatchTokens,
      positive('maxBatchSequences', options.maxBatchSequences, rowLimit, rowLimit),
    ),
    prefillChunkTokens: Math.min(
      maxBatchTokens,
      positive('prefillChunkTokens', options.prefillChunkTokens, DEFAULT_PREFILL_CHUNK_TOKENS, Number.MAX_SAFE_INTEGER),
    ),
    maxQueue: positive('maxQueue', options.maxQueue, DEFAULT_MAX_QUEUE, Number.MAX_SAFE_INTEGER),
    maxStepsInFlight: Math.min(
      info.maxStepsInFlight,
      positive('maxStepsInFlight', options.maxStepsInFlight, DEEPEST_PIPELINE, DEEPEST_PIPELINE),
    ),
    attentionParityTokens: info.attentionParityTokens,
  };
}

function positive(name: keyof BatchEngineOptions, value: number | undefined, fallback: number, limit: number): number {
  const chosen = value ?? fallback;
  if (!Number.isSafeInteger(chosen) || chosen < 1 || chosen > limit) {
    throw new KvasirError('invalid-argument', `${name}: expected an integer from 1 to ${limit}, found ${chosen}`, {
      facts: { [name]: chosen, limit },
    });
  }
  return chosen;
}
