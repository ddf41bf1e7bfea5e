import { isKvasirError } from '@kvasir/domain';
import type { KvDType, LoadOptions, ModelDescriptor, ModelLoader } from '@kvasir/domain';
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

    it("plans beforehand what loading takes of a device, or nothing where memory is the host's", async () => {
      const loader = await harness.open();
      const model = await harness.describeModel();
      const plan = await loader.planMemory(model, OPTIONS);
      const runner = await loader.load(model, OPTIONS);
      const held = runner.memory();
      await runner.dispose();
      expect(plan !== null).toBe(held.residencyChecks > 0);
      // Where there is nothing to plan, what is held stands in for it.
      const { weightsBytes, kvPoolBytes, workspaceBytes, freeBytes, totalBytes } = plan ?? {
        weightsBytes: held.weightsRepackedBytes,
        kvPoolBytes: held.kvPoolBytes,
        workspaceBytes: held.workspaceBytes,
        freeBytes: 0,
        totalBytes: 0,
      };
      expect([weightsBytes, kvPoolBytes]).toEqual([held.weightsRepackedBytes, held.kvPoolBytes]);
      expect(workspaceBytes).toBeGreaterThanOrEqual(held.workspaceBytes);
      expect(freeBytes).toBeLessThanOrEqual(totalBytes);
    });

    it('loads one model twice, with one numericsId', async () => {
      const loader = await harness.open();
      const model = await harness.describeModel();
      const runners = await Promise.all([loader.load(model, OPTIONS), loader.load(model, OPTIONS)]);
      expect(runners[1].info.numericsId).toBe(runners[0].info.numericsId);
      for (const runner of runners) await runner.dispose();
    });

    it('names every KV dtype in its numericsId, or refuses the quantized ones as unsupported', async () => {
      const loader = await harness.open();
      const model = await harness.describeModel();
      const identityOf = async (kvDType: KvDType) => {
        const runner = await loader.load(model, { ...OPTIONS, kvDType });
        await runner.dispose();
        return runner.info.numericsId;
      };
      const floats = await Promise.all((['f32', 'f16', 'bf16'] as const).map(identityOf));
      const quantized = await Promise.all(
        (['q8', 'q4'] as const).map((kvDType) =>
          identityOf(kvDType).catch((error: unknown) => (isKvasirError(error) ? error.code : String(error))),
        ),
      );
      const held = [...floats, ...quantized].filter((identity) => identity !== 'unsupported-model');
      expect(held.length).toBeGreaterThanOrEqual(3);
      expect(new Set(held).size).toBe(held.length);
      // Whatever else a refusal might be is no identity.
      expect(held.filter((identity) => !identity.includes('/kv-'))).toEqual([]);
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
