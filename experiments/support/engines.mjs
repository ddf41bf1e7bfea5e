// Models, runners and engines as the server makes them, without the server.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createCpuModelLoader } from '../../packages/adapter-cpu/dist/index.js';
import { BatchEngine } from '../../packages/engine/dist/index.js';
import { openModel } from '../../packages/models/dist/index.js';
import { generateGguf, SMALL_SHAPE } from '../../packages/reference/dist/index.js';

export const BUNDLED = path.resolve(import.meta.dirname, '../../models/kvasir-saga-21m-Q5_K_M.gguf');
export const silent = { narrate: () => {} };
export const clock = {
  now: () => performance.now(),
  turn: () => new Promise((resolve) => setImmediate(resolve)),
};
export const GREEDY = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  logitBias: new Map(),
  logprobs: null,
  seed: 0n,
};

/** A random model's file, made once per machine and kept among temporary files. */
export function generatedModel(changes, format = 'q8_0') {
  const shape = { ...SMALL_SHAPE, ...changes };
  const name = createHash('sha256')
    .update(JSON.stringify([shape, format]))
    .digest('hex')
    .slice(0, 16);
  const folder = path.join(os.tmpdir(), 'kvasir-experiment-models');
  const file = path.join(folder, `${name}.gguf`);
  if (!existsSync(file)) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(file, generateGguf(shape, format, 1));
  }
  return file;
}

export async function loadRunner(file, numBlocks, options = {}) {
  const descriptor = await (await openModel(file)).descriptor();
  const runner = await createCpuModelLoader().load(descriptor, {
    numBlocks: [numBlocks],
    maxBatchTokens: 512,
    maxBatchSequences: 8,
    maxBlocksPerSequence: numBlocks,
    numThreads: 2,
    instructionPath: 'auto',
    activations: 'quantized',
    kvDType: 'f16',
    ...options,
  });
  return { runner, contextLength: descriptor.contextLength };
}

export function identityOf(runner) {
  const { numericsId, cacheSpec } = runner.info;
  return { modelFingerprint: 'experiment', kvDType: cacheSpec.kvDType, layoutVersion: '1', numericsId };
}

export const sha256 = (text, bytes) => createHash('sha256').update(text).update(bytes).digest('hex');

/** @param cache null: an engine that keeps nothing */
export function makeEngine(runner, contextLength, cache, options = {}) {
  return new BatchEngine(
    { runner, clock, narrator: options.narrator ?? silent },
    {
      contextLength,
      ...options.engine,
      ...(cache === null ? {} : { cache: { identity: identityOf(runner), sha256, restore: 'always', ...cache } }),
    },
  );
}

/** Token ids that no other seed shares a block of. */
export function tokensOf(count, seed, vocabularySize) {
  let state = (seed * 2_654_435_761) >>> 0;
  return Int32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return 3 + ((state >>> 8) % (vocabularySize - 3));
  });
}

export function joined(...parts) {
  return Int32Array.from(parts.flatMap((part) => [...part]));
}
