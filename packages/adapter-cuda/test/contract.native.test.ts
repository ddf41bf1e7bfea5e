import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { FakeClock, RecordingNarrator } from '@kvasir/adapter-fake';
import { BatchEngine } from '@kvasir/engine';
import { openModel } from '@kvasir/models';
import { describeGenerationEngine, describeModelLoader, describeModelRunner } from '@kvasir/port-contracts';
import { generateGguf, SMALL_SHAPE } from '@kvasir/reference';
import { afterAll, describe, expect, it } from 'vitest';
import { createCudaModelLoader, isCudaAvailable } from '../src/index.ts';
import { loadOnCuda } from './support/load.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-contract-'));
afterAll(() => rmSync(scratch, { recursive: true }));
const model = path.join(scratch, 'model.gguf');
writeFileSync(model, generateGguf({ ...SMALL_SHAPE, family: 'llama' }, 'q8_0', 5));

const limits = { numBlocks: [12], maxBatchTokens: 512, maxBatchSequences: 4, maxBlocksPerSequence: 8 };

// CONTRIBUTING.md says how these are run where there is a device.
const hasDevice = isCudaAvailable();
describe.runIf(hasDevice)('on a device', () => {
  describeModelLoader('The CUDA adapter', {
    open: async () => createCudaModelLoader(),
    describeModel: async () => (await openModel(model)).descriptor(),
  });
  describeModelRunner('The CUDA adapter with quantized activations', { open: () => loadOnCuda(model, limits) });
  describeModelRunner('The CUDA adapter in oracle mode', {
    open: () => loadOnCuda(model, { ...limits, activations: 'float', kvDType: 'f32' }),
  });
  for (const kvDType of ['q8', 'q4'] as const) {
    describeModelRunner(`The CUDA adapter with a ${kvDType} pool`, {
      open: () => loadOnCuda(model, { ...limits, kvDType }),
    });
  }
  describeGenerationEngine('BatchEngine over the CUDA adapter', {
    open: async ({ numBlocks = 16, ...options }) => {
      const runner = await loadOnCuda(model, { ...limits, numBlocks: [numBlocks] });
      const ports = { runner, clock: new FakeClock(), narrator: new RecordingNarrator() };
      const engine = new BatchEngine(ports, { contextLength: 2048, ...options });
      return {
        engine,
        blockTokens: runner.info.cacheSpec.blockTokens,
        close: async () => {
          await engine.dispose();
          await runner.dispose();
        },
      };
    },
  });
});

it('says loudly where its contract was not run', () => {
  const skipped = hasDevice ? 0 : 1;
  console.warn(['the contract ran on a device', 'SKIPPED: no CUDA addon or device here'][skipped]);
  expect(hasDevice).toBe(isCudaAvailable());
});
