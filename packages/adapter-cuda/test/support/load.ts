import type { LoadOptions, ModelRunner } from '@kvasir/domain';
import { openModel } from '@kvasir/models';
import { createCudaModelLoader } from '../../src/index.ts';

/** Loads a model file on the device with a poisoned pool: whatever is read before it was written shows up as NaN. */
export async function loadOnCuda(path: string, options: Partial<LoadOptions> = {}): Promise<ModelRunner> {
  const file = await openModel(path);
  return createCudaModelLoader().load(await file.descriptor(), {
    numBlocks: [32],
    maxBatchTokens: 4096,
    maxBatchSequences: 16,
    maxBlocksPerSequence: 32,
    numThreads: 0,
    instructionPath: 'auto',
    poisonPool: true,
    activations: 'quantized',
    kvDType: 'f16',
    ...options,
  });
}

/** The engine the default way. */
export const DEFAULT_MODE = { activations: 'quantized', kvDType: 'f16' } as const;
/** Float activations and an f32 pool: what the oracle is compared with. */
export const ORACLE_MODE = { activations: 'float', kvDType: 'f32' } as const;
