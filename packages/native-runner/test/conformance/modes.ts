import type { LoadOptions, ModelRunner } from '@kvasir/domain';

/** The engine the default way. */
export const DEFAULT_MODE = { activations: 'quantized', kvDType: 'f16' } as const;
/** Float activations and an f32 pool: what the oracle is compared with. */
export const ORACLE_MODE = { activations: 'float', kvDType: 'f32' } as const;

/** Large steps with 16-bit operands on matrix units, small ones as by default. */
export const FAST_MODE = { activations: 'fast', kvDType: 'f16' } as const;
/** More tokens than the largest step that a fast mode still computes as the default mode does. */
export const LARGE_STEP_TOKENS = 128;

/** A backend under test. */
export interface Backend {
  /** Loads a model file with a poisoned pool: whatever is read before it was written shows up as NaN. */
  load(path: string, options?: Partial<LoadOptions>): Promise<ModelRunner>;
  /** false: there is no device here, and the suite is skipped. */
  readonly isAvailable: boolean;
  readonly hasFastMode: boolean;
  /** What products of the default mode round, and how far whole models may then be from float64, relatively. */
  readonly rounding: {
    readonly label: string;
    readonly ofQuantized: number;
    readonly ofFloats: number;
  };
}

/** Limits the suites are written for. */
export const SUITE_LIMITS: Omit<LoadOptions, 'numThreads'> = {
  ...DEFAULT_MODE,
  numBlocks: [32],
  maxBatchTokens: 4096,
  maxBatchSequences: 16,
  maxBlocksPerSequence: 32,
  instructionPath: 'auto',
  poisonPool: true,
};
