// Whole models with q8 and q4 pools against the oracle: once with the codes the pool itself holds, so that only arithmetic
// differs, and once with codes of the oracle's own.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  compareLogits,
  forward,
  fromGguf,
  generateGguf,
  KV_ROUNDING,
  Random,
  SMALL_SHAPE,
  type LogitsComparison,
  type ModelShape,
} from '@kvasir/reference';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fragmentedBlocks, logitsOf } from './drive-runner.ts';
import type { Backend } from './modes.ts';
import { report } from './report.ts';
import { storedHeads } from './stored-heads.ts';

const tokens = (shape: ModelShape, count: number, seed: number) => {
  const random = new Random(seed);
  return Array.from({ length: count }, () => random.integer(0, shape.vocabularySize));
};

/** Heads of 128 are two groups each; a head of 24 is one group, turned in runs of 8. */
const KV_SHAPES: Readonly<Record<string, ModelShape>> = {
  'llama, head 64': SMALL_SHAPE,
  'qwen3, head 128': { ...SMALL_SHAPE, family: 'qwen3', headDim: 128, numHeads: 4, numKvHeads: 2 },
  'qwen2, head 24': { ...SMALL_SHAPE, family: 'qwen2', headDim: 24, numHeads: 4, numKvHeads: 2 },
};

/** Models of every head size that quantized pools take, in q8 and q4. */
export function describeQuantizedKv(backend: Backend): void {
  const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-quantized-kv-'));
  afterAll(() => rmSync(scratch, { recursive: true }));

  describe.runIf(backend.isAvailable).each(Object.entries(KV_SHAPES))('quantized KV: %s', (name, shape) => {
    const file = path.join(scratch, `kv-${shape.headDim}.gguf`);
    const ids = tokens(shape, 400, 6);
    const bytes = generateGguf(shape, 'q8_0', 43);
    writeFileSync(file, bytes);
    const model = fromGguf(bytes);
    let exact: Float64Array;
    beforeAll(() => {
      exact = forward(model, ids);
    });

    it.each([
      ['q8', 1e-3],
      ['q4', 1e-2],
    ] as const)(
      '%s: every stored value is the nearest code, and attention is that of the stored values',
      async (kvDType, flipsBound) => {
        const blocks = fragmentedBlocks(32, 2, 99);
        await using runner = await backend.load(file, { activations: 'float', kvDType });
        const logits = await logitsOf(runner, ids, blocks, [309, 1, 77]);
        const compare = (expected: Float64Array) => compareLogits(logits, expected, shape.vocabularySize);
        const judge = (reference: string, comparison: LogitsComparison, bound: number) => {
          const { instructionPath } = runner.info;
          report(
            {
              model: name,
              format: 'q8_0',
              mode: `float activations, ${kvDType} KV`,
              reference,
              instructionPath,
              bound,
            },
            comparison,
          );
          expect(comparison.relativeError).toBeLessThan(bound);
          expect(comparison.decidedButDifferent).toBe(0);
        };
        // The engine's own codes: what differs is arithmetic. Each must be the nearest to the oracle's value, or as good as.
        const { storeHead, largestSteps } = await storedHeads(runner, blocks);
        judge(`float64 oracle, the pool's own ${kvDType} codes`, compare(forward(model, ids, { storeHead })), 2e-4);
        expect(largestSteps()).toBeLessThan(0.52);
        // Codes of its own: a value midway between two falls to either side and moves what is midway in the next layer.
        const alike = forward(model, ids, { storeHead: KV_ROUNDING[kvDType] });
        judge(`float64 oracle, ${kvDType} codes of its own`, compare(alike), flipsBound);
        // Negative control: an oracle that does not round is further away than the first bound.
        expect(compare(exact).relativeError).toBeGreaterThan(1e-3);
      },
    );
  });
}
