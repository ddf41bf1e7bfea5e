import { KvasirError, type LoadOptions, type ModelDescriptor, type ModelLoader } from '@kvasir/domain';
import { FakeModelRunner } from './fake-model-runner.ts';

/** Loads nothing: gives a FakeModelRunner with the descriptor's vocabulary and the limits asked for. */
export class FakeModelLoader implements ModelLoader {
  readonly blockTokens: number;

  constructor(blockTokens = 4) {
    this.blockTokens = blockTokens;
  }

  /** Its memory is the host's. */
  async planMemory(): Promise<null> {
    return null;
  }

  async load(model: ModelDescriptor, options: LoadOptions): Promise<FakeModelRunner> {
    if (options.numBlocks.length === 0 || options.numBlocks.some((count) => !Number.isInteger(count) || count < 1)) {
      throw new KvasirError('invalid-argument', `numBlocks: expected positive integers, found ${options.numBlocks}`);
    }
    const bytesTotal = model.tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0);
    for (const part of [0, 0.5, 1]) {
      if (options.signal?.aborted === true) throw new KvasirError('aborted', 'loading was aborted');
      options.onProgress?.(Math.floor(bytesTotal * part), bytesTotal);
      await Promise.resolve();
    }
    return new FakeModelRunner({
      kvDType: options.kvDType,
      vocabularySize: model.vocabularySize,
      blockTokens: this.blockTokens,
      numBlocks: options.numBlocks,
      maxBatchTokens: options.maxBatchTokens,
      maxBatchSequences: options.maxBatchSequences,
      maxBlocksPerSequence: options.maxBlocksPerSequence,
    });
  }
}
