// What a step costs in JavaScript, with a runner that costs nothing: scheduling, building the batch, dealing tokens out
// and waking one reader a sequence. Usage, from the repository root:
//   node --conditions=kvasir-source --import tsx packages/engine/bench/step-overhead.mjs
import os from 'node:os';
import { GREEDY, ModelCacheSpec } from '@kvasir/domain';
import { BatchEngine } from '../src/index.ts';

const PROMPT_TOKENS = 1024;
const STEPS = 3000;
const ROUNDS = 5;

/** Answers every batch at once with token 7 for every row. */
function nullRunner(maxBatchSequences) {
  const layer = { layer: 0, numKvHeads: 1, headDim: 64 };
  const info = {
    backend: 'none',
    device: 'none',
    numericsId: 'none',
    instructionPath: 'none',
    vocabularySize: 32_000,
    cacheSpec: new ModelCacheSpec([{ group: 0, windowTokens: null, layers: [layer] }], 'f16'),
    numBlocks: [64 * 32],
    maxBatchTokens: 2048,
    maxBatchSequences,
    maxBlocksPerSequence: 32,
    numSamplerSlots: maxBatchSequences,
    maxStepsInFlight: 2,
  };
  const results = Array.from({ length: maxBatchSequences + 1 }, (_, numSequences) => ({
    sampledIds: new Int32Array(numSequences).fill(7),
    stops: new Uint8Array(numSequences),
    sampledLogprobs: new Float32Array(numSequences),
    topIds: new Int32Array(0),
    topLogprobs: new Float32Array(0),
    maxLogprobs: 0,
    logits: new Float32Array(0),
    logitsTokens: new Uint32Array(0),
    hashes: new BigUint64Array(numSequences),
    targetLogprobs: new Float32Array(0),
    executeMs: 0,
  }));
  return { info, submit: (batch) => ({ result: Promise.resolve(results[batch.rowFlags.length]) }) };
}

async function microsecondsPerStep(numSequences) {
  const clock = { now: () => performance.now(), turn: () => new Promise((resolve) => setImmediate(resolve)) };
  const engine = new BatchEngine(
    { runner: nullRunner(64), clock, narrator: { narrate: () => {} } },
    { contextLength: 8192 },
  );
  const read = async (generation) => {
    let count = 0;
    for await (const batch of generation) count += batch.tokens.length;
    return count;
  };
  const readers = Array.from({ length: numSequences }, () =>
    read(
      engine.submit({
        promptIds: new Int32Array(PROMPT_TOKENS).fill(5),
        sampling: GREEDY,
        maxTokens: STEPS + 700,
        stopIds: [],
      }),
    ),
  );
  for (let step = 0; step < 600; step++) await engine.step();
  // The process's own time: on a shared machine the wall clock also counts the neighbours.
  const start = process.cpuUsage();
  for (let step = 0; step < STEPS; step++) await engine.step();
  const { user, system } = process.cpuUsage(start);
  const { batchSizes } = engine.stats();
  if ((batchSizes[numSequences] ?? 0) < STEPS) throw new Error(`expected ${STEPS} full batches, found ${batchSizes}`);
  await engine.dispose();
  await Promise.all(readers);
  return (user + system) / STEPS;
}

console.log(`${os.cpus()[0]?.model}, node ${process.version}, load ${os.loadavg()[0]?.toFixed(1)}`);
for (const numSequences of [1, 8, 64]) {
  const rounds = [];
  for (let round = 0; round < ROUNDS; round++) rounds.push(await microsecondsPerStep(numSequences));
  rounds.sort((a, b) => a - b);
  const [least, median] = [rounds[0], rounds[Math.floor(ROUNDS / 2)]];
  console.log(
    `S=${numSequences}: ${median.toFixed(1)} µs a step (best ${least.toFixed(1)}), ${(median / numSequences).toFixed(2)} µs a token`,
  );
}
