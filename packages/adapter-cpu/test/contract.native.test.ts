import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { FakeClock, RecordingNarrator } from '@kvasir/adapter-fake';
import { BatchEngine } from '@kvasir/engine';
import { openModel } from '@kvasir/models';
import { describeGenerationEngine, describeModelLoader, describeModelRunner } from '@kvasir/port-contracts';
import { generateGguf, SMALL_SHAPE } from '@kvasir/reference';
import { afterAll } from 'vitest';
import { createCpuModelLoader } from '../src/index.ts';
import { loadOnCpu } from './support/load.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-contract-'));
afterAll(() => rmSync(scratch, { recursive: true }));
const model = path.join(scratch, 'model.gguf');
writeFileSync(model, generateGguf({ ...SMALL_SHAPE, family: 'llama' }, 'q8_0', 5));

const limits = { numBlocks: [12], maxBatchTokens: 512, maxBatchSequences: 4, maxBlocksPerSequence: 8 };

describeModelLoader('The CPU adapter', {
  open: async () => createCpuModelLoader(),
  describeModel: async () => (await openModel(model)).descriptor(),
});
describeModelRunner('The CPU adapter with quantized activations', { open: () => loadOnCpu(model, limits) });
describeModelRunner('The CPU adapter in oracle mode', {
  open: () => loadOnCpu(model, { ...limits, activations: 'float', kvDType: 'f32' }),
});
for (const kvDType of ['q8', 'q4'] as const) {
  describeModelRunner(`The CPU adapter with a ${kvDType} pool`, {
    open: () => loadOnCpu(model, { ...limits, kvDType }),
  });
}
describeGenerationEngine('BatchEngine over the CPU adapter', {
  open: async ({ numBlocks = 16, ...options }) => {
    const runner = await loadOnCpu(model, { ...limits, numBlocks: [numBlocks] });
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
