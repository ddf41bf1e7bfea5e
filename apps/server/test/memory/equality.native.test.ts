// The promise of this project: what is brought back answers with the same bits as what is computed afresh.
// EXP-005 runs the whole table with KVASIR_EQUALITY=full and reads its report. KVASIR_TEST_BACKEND=cuda runs it on a GPU.
import { appendFileSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createCpuModelLoader } from '@kvasir/adapter-cpu';
import { createCudaModelLoader } from '@kvasir/adapter-cuda';
import type { KvDType, ModelRunner } from '@kvasir/domain';
import { openModel } from '@kvasir/models';
import { generateGguf, SMALL_SHAPE, sharedData } from '@kvasir/reference';
import { afterAll, describe, expect, it } from 'vitest';
import { Bench, GREEDY_SAMPLING, type Outcome, SCENARIOS, type Scenario, SEEDED_SAMPLING } from './scenarios.ts';

const createLoader = process.env['KVASIR_TEST_BACKEND'] === 'cuda' ? createCudaModelLoader : createCpuModelLoader;
const isFull = process.env['KVASIR_EQUALITY'] === 'full';
const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-equality-models-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const bundled = path.resolve(import.meta.dirname, '../../../../models/kvasir-saga-21m-Q5_K_M.gguf');
const generated = (family: 'llama' | 'qwen2' | 'qwen3', format: string): string => {
  const file = path.join(scratch, `${family}-${format}.gguf`);
  if (!existsSync(file)) writeFileSync(file, generateGguf({ ...SMALL_SHAPE, family }, format, 23));
  return file;
};
interface TestedModel {
  readonly name: string;
  readonly file: () => string;
  readonly kvDType?: KvDType;
}

const models: TestedModel[] = [
  { name: 'bundled', file: () => bundled },
  { name: 'generated qwen3 q8_0', file: () => generated('qwen3', 'q8_0') },
  { name: 'generated llama q4_k, q4 KV', file: () => generated('llama', 'q4_k'), kvDType: 'q4' },
  ...(isFull
    ? [
        { name: 'generated llama q4_k', file: () => generated('llama', 'q4_k') },
        { name: 'generated qwen3 q8_0, q8 KV', file: () => generated('qwen3', 'q8_0'), kvDType: 'q8' as const },
        { name: 'generated qwen2 f16', file: () => generated('qwen2', 'f16') },
      ]
    : []),
  ...(isFull ? published() : []),
];
/** Prompt lengths, and a pool of three times the longest one's blocks: two strangers beside it fill it. */
const pools = isFull
  ? [
      { numBlocks: 8, lengths: [20, 255, 256, 257, 500, 511, 512, 513] },
      { numBlocks: 26, lengths: [2000] },
    ]
  : [{ numBlocks: 8, lengths: [256, 513] }];
const samplings = [
  ['greedy', GREEDY_SAMPLING],
  ['seeded with penalties', SEEDED_SAMPLING],
] as const;

/** Tokens beside the prompt: outputs and what is added, or strangers that are long enough to preempt. */
function roomFor(scenario: Scenario, numBlocks: number): number {
  return scenario === 'preempted' ? numBlocks * 128 : 48;
}

/** Reference models, as far as their context reaches. */
function published(): TestedModel[] {
  const shared = sharedData();
  if (shared === null) return [];
  const folder = path.join(shared, 'models');
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.gguf'));
  const folders = ['llama', 'qwen2', 'qwen3'].map((family) => path.join('tiny-random', family));
  return [...files, ...folders].map((name) => ({ name, file: () => path.join(folder, name) }));
}

async function load(
  file: string,
  numBlocks: number,
  kvDType: KvDType = 'f16',
): Promise<ModelRunner & { readonly contextLength: number }> {
  const descriptor = await (await openModel(file)).descriptor();
  const runner = await createLoader().load(descriptor, {
    numBlocks: [numBlocks],
    maxBatchTokens: 512,
    maxBatchSequences: 8,
    maxBlocksPerSequence: numBlocks,
    numThreads: 2,
    instructionPath: 'auto',
    poisonPool: true,
    activations: 'quantized',
    kvDType,
  });
  return Object.assign(runner, { contextLength: descriptor.contextLength });
}

describe.each(models)('$name', ({ name, file, kvDType }) => {
  it.each(samplings)('answers with the same bits however it is brought back: %s', async (samplingName, sampling) => {
    for (const { numBlocks, lengths } of pools) {
      await using fresh = await load(file(), numBlocks, kvDType);
      await using resumed = await load(file(), numBlocks, kvDType);
      const contextLength = Math.min(fresh.contextLength, numBlocks * 256);
      const bench = new Bench(fresh, resumed, contextLength);
      for (const scenario of SCENARIOS) {
        const fitting = lengths.filter((length) => length + roomFor(scenario, numBlocks) <= contextLength);
        for (const promptTokens of fitting) {
          const outcome = await bench.run({ scenario, promptTokens, sampling });
          const label = `${scenario}, ${promptTokens} tokens`;
          expect(outcome.resumed, label).toEqual(outcome.fresh);
          checkTraffic(scenario, outcome, label);
          report({
            name,
            sampling: samplingName,
            scenario,
            promptTokens,
            ...outcome,
            fresh: outcome.fresh.length,
            resumed: undefined,
          });
        }
      }
    }
  });
});

/** What the device was given: the tail alone, and bytes where they must move. */
function checkTraffic(scenario: Scenario, outcome: Outcome, label: string): void {
  if (scenario === 'preempted' || scenario === 'in a batch of 8') return;
  expect(outcome.computedTokens, label).toBe(outcome.expectedTokens);
  const isRestored = scenario === 'warm' || scenario === 'cold' || scenario === 'restart';
  expect(outcome.restoredBytes > 0, label).toBe(isRestored);
  expect(outcome.writtenBytes > 0, label).toBe(isRestored);
}

describe('a mistake on the way', () => {
  it.each(['flip-bit', 'repeat-block', 'shift-positions'] as const)('is noticed: %s', async (sabotage) => {
    await using fresh = await load(generated('qwen3', 'q8_0'), 8);
    await using resumed = await load(generated('qwen3', 'q8_0'), 8);
    const bench = new Bench(fresh, resumed, 2048);
    bench.sabotage = sabotage;
    const outcome = await bench.run({ scenario: 'cold', promptTokens: 600, sampling: GREEDY_SAMPLING });
    expect(outcome.resumed.map(({ hash }) => hash)).not.toEqual(outcome.fresh.map(({ hash }) => hash));
  });
});

function report(line: Readonly<Record<string, unknown>>): void {
  const target = process.env['KVASIR_EQUALITY_REPORT'];
  if (target !== undefined) appendFileSync(target, `${JSON.stringify(line)}\n`);
}
