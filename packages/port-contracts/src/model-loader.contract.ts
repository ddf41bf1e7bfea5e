import type { LoadOptions, ModelDescriptor, ModelLoader } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { prefill, tokensOf } from './step-bench.ts';

export interface ModelLoaderHarness {
  open(): Promise<ModelLoader>;
  /** A model the loader can load, one layer group. */
  describeModel(): Promise<ModelDescriptor>;
}

const OPTIONS: LoadOptions = {
  numBlocks: [6],
  kvDType: 'f16',
  activations: 'quantized',
  maxBatchTokens: 64,
  maxBatchSequences: 3,
  maxBlocksPerSequence: 4,
  numThreads: 1,
  instructionPath: 'auto',
  poisonPool: true,
};

/** What every ModelLoader owes the composition root. */
export function describeModelLoader(name: string, harness: ModelLoaderHarness): void {
  describe(`${name} as a ModelLoader`, () => {
    it('gives a runner with the limits asked for, and reports progress up to the end', async () => {
      const progress: (readonly [number, number])[] = [];
      const loader = await harness.open();
      const model = await harness.describeModel();
      const runner = await loader.load(model, {
        ...OPTIONS,
        onProgress: (bytesDone, bytesTotal) => progress.push([bytesDone, bytesTotal]),
      });
      expect(runner.info).toMatchObject({
        vocabularySize: model.vocabularySize,
        numBlocks: [6],
        maxBatchTokens: 64,
        maxBatchSequences: 3,
        maxBlocksPerSequence: 4,
      });
      expect(progress.length).toBeGreaterThan(0);
      const [bytesDone, bytesTotal] = progress.at(-1) as readonly [number, number];
      expect(bytesDone).toBe(bytesTotal);
      expect(progress.map(([done]) => done)).toEqual(progress.map(([done]) => done).sort((a, b) => a - b));
      const { hashes } = await prefill(runner, tokensOf(runner, 5, 1), [0, 1]);
      expect(hashes[0]).not.toBe(0n);
      await runner.dispose();
    });

    it('loads one model twice, with one numericsId', async () => {
      const loader = await harness.open();
      const model = await harness.describeModel();
      const runners = await Promise.all([loader.load(model, OPTIONS), loader.load(model, OPTIONS)]);
      expect(runners[1].info.numericsId).toBe(runners[0].info.numericsId);
      for (const runner of runners) await runner.dispose();
    });

    it('stops when aborted', async () => {
      const loader = await harness.open();
      const model = await harness.describeModel();
      const loading = loader.load(model, { ...OPTIONS, signal: AbortSignal.abort() });
      await expect(loading).rejects.toMatchObject({ code: 'aborted' });
    });

    it('refuses limits that are none', async () => {
      const loader = await harness.open();
      const model = await harness.describeModel();
      for (const bad of [{ numBlocks: [] }, { numBlocks: [0] }, { numBlocks: [-1] }]) {
        await expect(loader.load(model, { ...OPTIONS, ...bad })).rejects.toMatchObject({ code: 'invalid-argument' });
      }
    });
  });
}
