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
