import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describeModelRunner } from '@kvasir/port-contracts';
import { generateGguf, SMALL_SHAPE } from '@kvasir/reference';
import { afterAll } from 'vitest';
import { loadOnCpu } from './support/load.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-contract-'));
afterAll(() => rmSync(scratch, { recursive: true }));
const model = path.join(scratch, 'model.gguf');
writeFileSync(model, generateGguf({ ...SMALL_SHAPE, family: 'llama' }, 'q8_0', 5));

const limits = { numBlocks: [12], maxBatchTokens: 512, maxBatchSequences: 4, maxBlocksPerSequence: 8 };

describeModelRunner('The CPU adapter with quantized activations', { open: () => loadOnCpu(model, limits) });
describeModelRunner('The CPU adapter in oracle mode', {
  open: () => loadOnCpu(model, { ...limits, activations: 'float', kvDType: 'f32' }),
});
