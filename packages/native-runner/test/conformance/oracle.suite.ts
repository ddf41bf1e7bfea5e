// Whole models against a float64 forward pass that shares no code with the engine, over several blocks of context, with
// permuted block tables and a poisoned pool. Published reference models are shorter than one block and cannot show this.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  compareLogits,
  forward,
  fromGguf,
  fromHalf,
  generateGguf,
  loadReferenceModel,
  Random,
  SMALL_SHAPE,
  toHalf,
  writeHuggingFaceModel,
  type ModelShape,
} from '@kvasir/reference';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fragmentedBlocks, logitsOf } from './drive-runner.ts';
import { type Backend, DEFAULT_MODE, FAST_MODE, ORACLE_MODE } from './modes.ts';
import { report } from './report.ts';

const TOKENS = 1536 + 37;
const tokens = (shape: ModelShape, count: number, seed: number) => {
  const random = new Random(seed);
  return Array.from({ length: count }, () => random.integer(0, shape.vocabularySize));
};

const SHAPES: Readonly<Record<string, ModelShape>> = {
  'llama, head 64, llama3 rope': { ...SMALL_SHAPE, ropeScaling: { type: 'llama3', factor: 8, originalContext: 1024 } },
  'qwen2, head 64, tied, 7 query heads a KV head': {
    ...SMALL_SHAPE,
    family: 'qwen2',
    hiddenSize: 512,
    numHeads: 7,
    numKvHeads: 1,
    headDim: 64,
    tiedEmbeddings: true,
    ropeBase: 1e6,
  },
  'qwen3, head 128, yarn': {
    ...SMALL_SHAPE,
    family: 'qwen3',
    headDim: 128,
    numHeads: 4,
    numKvHeads: 2,
    ropeScaling: { type: 'yarn', factor: 4, originalContext: 2048 },
  },
};

/** Whole models of every family, rope and format against the oracle. */
export function describeOracle(backend: Backend): void {
  const { rounding } = backend;
  const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-conformance-'));
  afterAll(() => rmSync(scratch, { recursive: true }));

  describe.runIf(backend.isAvailable).each(Object.entries(SHAPES))('%s', (name, shape) => {
    // 7 heads of 64 make rows of 448: no whole K-quant block, so that model is tried in 32-value formats only.
    const format = name.includes('7 query') ? 'q8_0' : 'q4_k';
    const file = path.join(scratch, `${shape.family}.gguf`);
    const ids = tokens(shape, TOKENS, 5);
    let expected: Float64Array;
    /** The oracle with K and V rounded as an f16 pool rounds them, for the first tokens. */
    let expectedHalfKv: Float64Array;
    beforeAll(() => {
      const bytes = generateGguf(shape, format, 42);
      writeFileSync(file, bytes);
      expected = forward(fromGguf(bytes), ids);
      const storeKv = (value: number) => fromHalf(toHalf(value));
      expectedHalfKv = forward(fromGguf(bytes), ids.slice(0, 700), { storeKv });
    });

    it.each([
      ['oracle mode, whole prompt', ORACLE_MODE, [4096], 1e-4],
      ['oracle mode, odd chunks', ORACLE_MODE, [1, 300, 7, 511, 256], 1e-4],
      ['float activations, f16 KV', { activations: 'float', kvDType: 'f16' } as const, [509], 1e-3],
      [`${rounding.label}, f16 KV`, DEFAULT_MODE, [257, 1, 640], rounding.ofQuantized],
      ...(backend.hasFastMode ? [['fast mode, f16 KV', FAST_MODE, [640, 1, 257], 3e-2] as const] : []),
    ] as const)('%s stays within its bound over 1,573 tokens', async (label, mode, chunks, bound) => {
      await using runner = await backend.load(file, mode);
      const blocks = fragmentedBlocks(runner.info.numBlocks[0] as number, 7, 99);
      const logits = await logitsOf(runner, ids, blocks, chunks);
      const halfKv = mode.kvDType === 'f16' && mode.activations === 'float';
      const reference = halfKv ? expectedHalfKv : expected;
      const comparison = compareLogits(logits.subarray(0, reference.length), reference, shape.vocabularySize);
      const { instructionPath } = runner.info;
      const against = halfKv ? 'float64 oracle, f16 KV' : 'float64 oracle';
      report({ model: name, format, mode: label, reference: against, instructionPath, bound }, comparison);
      expect(comparison.relativeError).toBeLessThan(bound);
      expect(comparison.decidedButDifferent).toBe(0);
    });
  });

  describe.runIf(backend.isAvailable)('formats', () => {
    const formats = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1', 'q5_0', 'q5_1', 'q4_k', 'q5_k', 'q6_k', 'mxfp4'];
    it.each(formats)('%s agrees with its dequantized weights', async (format) => {
      const file = path.join(scratch, `${format}.gguf`);
      const bytes = generateGguf(SMALL_SHAPE, format, 7);
      writeFileSync(file, bytes);
      const ids = tokens(SMALL_SHAPE, 300, 8);
      const expected = forward(fromGguf(bytes), ids);
      const isFloat = ['f32', 'f16', 'bf16'].includes(format);
      for (const [label, mode, bound] of [
        ['oracle mode', ORACLE_MODE, 1e-4],
        [`${rounding.label}, f16 KV`, DEFAULT_MODE, isFloat ? rounding.ofFloats : rounding.ofQuantized],
        ...(backend.hasFastMode ? [['fast mode, f16 KV', FAST_MODE, 3e-2] as const] : []),
      ] as const) {
        await using runner = await backend.load(file, mode);
        const logits = await logitsOf(runner, ids, fragmentedBlocks(32, 2, 3), [128, 1, 33]);
        const comparison = compareLogits(logits, expected, SMALL_SHAPE.vocabularySize);
        const { instructionPath } = runner.info;
        report(
          { model: 'llama, head 64', format, mode: label, reference: 'float64 oracle', instructionPath, bound },
          comparison,
        );
        expect(comparison.relativeError).toBeLessThan(bound);
        expect(comparison.decidedButDifferent).toBe(0);
      }
    });

    it.each(['f32', 'f16', 'bf16'] as const)('a sharded %s checkpoint agrees with the oracle', async (format) => {
      const directory = path.join(scratch, `hf-${format}`);
      const shape = { ...SMALL_SHAPE, family: 'qwen3', ropeScaling: { type: 'linear', factor: 2 } } as const;
      writeHuggingFaceModel(directory, shape, format, 3, 2);
      const ids = tokens(shape, 300, 9);
      await using runner = await backend.load(directory, ORACLE_MODE);
      const logits = await logitsOf(runner, ids, fragmentedBlocks(32, 2, 4), [300]);
      const comparison = compareLogits(logits, forward(loadReferenceModel(directory), ids), shape.vocabularySize);
      expect(comparison.relativeError).toBeLessThan(1e-4);
      expect(comparison.decidedButDifferent).toBe(0);
    });
  });
}
