// The promise: the same token ids give the same bits at every step, however they are batched, chunked and threaded, on
// every instruction path this machine can run.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { generateGguf, Random, SMALL_SHAPE } from '@kvasir/reference';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { cpuBackendInfo } from '../src/index.ts';
import {
  fragmentedBlocks,
  hashOf,
  logitsOf,
  step,
  type Row,
} from '../../native-runner/test/conformance/drive-runner.ts';
import { DEFAULT_MODE, loadOnCpu, ORACLE_MODE } from './support/load.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-determinism-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const FORMATS = ['q8_0', 'q4_k', 'q6_k', 'f16', 'mxfp4', 'q5_1'] as const;
const files = Object.fromEntries(
  FORMATS.map((format) => {
    const file = path.join(scratch, `${format}.gguf`);
    const family = format === 'q8_0' ? 'qwen3' : format === 'f16' ? 'qwen2' : 'llama';
    writeFileSync(file, generateGguf({ ...SMALL_SHAPE, family }, format, 17));
    return [format, file];
  }),
);
const idsOf = (seed: number, count: number) => {
  const random = new Random(seed);
  return Array.from({ length: count }, () => random.integer(0, SMALL_SHAPE.vocabularySize));
};

/** Seven sequences of other people, each at its own random length, in blocks the sequence under test does not use. */
function strangers(seed: number, blocks: Int32Array): (stepIndex: number) => readonly Row[] {
  const random = new Random(seed);
  const positions = new Int32Array(7);
  return () =>
    Array.from(positions, (position, i) => {
      const length = random.uniform() < 0.6 ? 1 : random.integer(2, 40);
      if (position + length > 512) positions[i] = 0;
      const start = positions[i] as number;
      positions[i] = start + length;
      return { ids: idsOf(random.next(), length), position: start, blocks: blocks.subarray(2 * i, 2 * i + 2) };
    });
}

describe.each(FORMATS)('a %s model', (format) => {
  const ids = idsOf(1, 530);
  const paths = cpuBackendInfo().instructionPaths;

  it(`gives the same bits in any chunks, alone or with seven strangers, on 1 and 2 threads, on ${paths.join(', ')}`, async () => {
    const hashes = new Map<string, string>();
    for (const instructionPath of paths) {
      // The plain C++ path emulates fused arithmetic where the processor has none: one pass is enough there.
      const slow = instructionPath === 'scalar';
      for (const numThreads of slow ? [2] : [1, 2]) {
        await using runner = await loadOnCpu(files[format] as string, { instructionPath, numThreads });
        const blocks = fragmentedBlocks(32, 32, 5);
        const own = blocks.subarray(0, 3);
        const chunkings: readonly (readonly number[])[] = slow ? [[256]] : [[1], [7], [256], [4096]];
        for (const chunks of chunkings) {
          const label = `${instructionPath}, ${numThreads} threads, chunks of ${chunks[0]}`;
          hashes.set(label, hashOf(await logitsOf(runner, ids, own, chunks)));
        }
        const crowd = strangers(numThreads, blocks.subarray(3));
        hashes.set(
          `${instructionPath}, ${numThreads} threads, in a batch of 8`,
          hashOf(await logitsOf(runner, ids, own, slow ? [400] : [1, 64, 7], crowd)),
        );
      }
    }
    const [first] = hashes.values();
    expect([...hashes].filter(([, hash]) => hash !== first)).toEqual([]);
  });
});

describe.each(['q8', 'q4'] as const)('a %s pool', (kvDType) => {
  const ids = idsOf(3, 530);

  it('gives the same bits in any chunks, alone or with seven strangers, on 1 and 2 threads, on every path', async () => {
    const hashes = new Map<string, string>();
    for (const instructionPath of cpuBackendInfo().instructionPaths) {
      const slow = instructionPath === 'scalar';
      for (const numThreads of slow ? [2] : [1, 2]) {
        await using runner = await loadOnCpu(files.q4_k as string, { instructionPath, numThreads, kvDType });
        const blocks = fragmentedBlocks(32, 32, 5);
        const own = blocks.subarray(0, 3);
        for (const chunks of slow ? [[256]] : [[1], [7], [256], [4096]]) {
          const label = `${instructionPath}, ${numThreads} threads, chunks of ${chunks[0]}`;
          hashes.set(label, hashOf(await logitsOf(runner, ids, own, chunks)));
        }
        const crowd = strangers(numThreads, blocks.subarray(3));
        const label = `${instructionPath}, ${numThreads} threads, in a batch of 8`;
        hashes.set(label, hashOf(await logitsOf(runner, ids, own, slow ? [400] : [1, 64, 7], crowd)));
      }
    }
    const [first] = hashes.values();
    expect([...hashes].filter(([, hash]) => hash !== first)).toEqual([]);
  });

  it('goes on with the same bits from a payload written elsewhere and from copied leading slots', async () => {
    await using runner = await loadOnCpu(files.q8_0 as string, { kvDType });
    const next = async (blocks: readonly number[]) =>
      hashOf((await step(runner, [{ ids: ids.slice(300, 301), position: 300, blocks, flags: 2 }])).logits);
    await logitsOf(runner, ids.slice(0, 300), [4, 9], [4096]);
    const right = await next([4, 9]);
    const payload = await runner.readBlocks(0, Int32Array.of(4, 9));
    expect(payload.length).toBe(2 * runner.info.cacheSpec.bytesPerBlock());
    await runner.writeBlocks(0, Int32Array.of(20, 21), payload);
    expect(await next([20, 21])).toBe(right);
    await runner.copyBlocks(0, [
      { source: 4, destination: 11, numTokens: 256 },
      { source: 9, destination: 12, numTokens: 44 },
    ]);
    expect(await next([11, 12])).toBe(right);
    // Negative control: the lowest bit of one key's code.
    payload[100] = (payload[100] as number) ^ 1;
    await runner.writeBlocks(0, Int32Array.of(20), payload.subarray(0, payload.length / 2));
    expect(await next([20, 21])).not.toBe(right);
  });

  it('has an identity and a size of its own', async () => {
    await using runner = await loadOnCpu(files.q8_0 as string, { kvDType });
    await using halves = await loadOnCpu(files.q8_0 as string);
    expect(runner.info.numericsId).not.toBe(halves.info.numericsId);
    expect(runner.info.numericsId).toContain(`/kv-${kvDType}-1`);
    // Heads of 64: 64 codes and a scale, or 32 bytes, a scale and a minimum, where f16 takes 128 bytes.
    const share = { q8: 66 / 128, q4: 36 / 128 }[kvDType];
    expect(runner.info.cacheSpec.bytesPerBlock()).toBe(halves.info.cacheSpec.bytesPerBlock() * share);
    expect(runner.memory().kvPoolBytes).toBe(halves.memory().kvPoolBytes * share);
  });
});

describe('random batches', () => {
  const modes = [
    DEFAULT_MODE,
    ORACLE_MODE,
    { ...DEFAULT_MODE, kvDType: 'q8' },
    { ...DEFAULT_MODE, kvDType: 'q4' },
  ] as const;
  it.each(modes)('never change an answer: %o', async (mode) => {
    await using one = await loadOnCpu(files.q4_k as string, { ...mode, numThreads: 1 });
    await using two = await loadOnCpu(files.q4_k as string, { ...mode, numThreads: 2 });
    const scenario = fc.record({
      seed: fc.integer({ min: 0, max: 2 ** 31 }),
      length: fc.integer({ min: 1, max: 300 }),
      chunks: fc.array(fc.integer({ min: 1, max: 120 }), { minLength: 1, maxLength: 5 }),
    });
    await fc.assert(
      fc.asyncProperty(scenario, async ({ seed, length, chunks }) => {
        const ids = idsOf(seed, length);
        const alone = await logitsOf(one, ids, [30, 31], [4096]);
        const blocks = fragmentedBlocks(32, 32, seed);
        const crowded = await logitsOf(two, ids, blocks.subarray(0, 2), chunks, strangers(seed, blocks.subarray(2)));
        expect(hashOf(crowded)).toBe(hashOf(alone));
      }),
      { numRuns: 20 },
    );
  });
});

describe('negative controls: what must change the bits does', () => {
  const ids = idsOf(2, 300);

  it('one other token at the start', async () => {
    await using runner = await loadOnCpu(files.q8_0 as string);
    const logits = await logitsOf(runner, ids, [0, 1], [4096]);
    const changed = await logitsOf(runner, [((ids[0] as number) + 1) % 256, ...ids.slice(1)], [0, 1], [4096]);
    const last = (all: Float32Array) => all.slice(-SMALL_SHAPE.vocabularySize);
    expect(hashOf(last(changed))).not.toBe(hashOf(last(logits)));
  });

  it('two block ids swapped, one flipped bit in a block, positions shifted by one', async () => {
    await using runner = await loadOnCpu(files.q8_0 as string);
    const prompt = ids.slice(0, 299);
    const next = ids.slice(299);
    const continued = async (row: Partial<Row> = {}) => {
      const result = await step(runner, [{ ids: next, position: 299, blocks: [4, 9], flags: 2, ...row }]);
      return hashOf(result.logits);
    };
    await logitsOf(runner, prompt, [4, 9], [4096]);
    const right = await continued();
    expect(await continued()).toBe(right);

    await runner.copyBlocks(0, [{ source: 9, destination: 5, numTokens: 256 }]);
    expect(await continued({ blocks: [9, 4] })).not.toBe(right);
    expect(await continued({ position: 298 })).not.toBe(right);

    await logitsOf(runner, prompt, [4, 9], [4096]);
    expect(await continued()).toBe(right);
    const payload = await runner.readBlocks(0, Int32Array.of(4));
    // The highest mantissa bit of one f16 value of a key in the middle of the block.
    payload[(100 * 64 + 3) * 2 + 1] = (payload[(100 * 64 + 3) * 2 + 1] as number) ^ 2;
    await runner.writeBlocks(0, Int32Array.of(4), payload);
    expect(await continued()).not.toBe(right);
  });
});
