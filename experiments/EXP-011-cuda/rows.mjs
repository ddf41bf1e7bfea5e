// The measured rows: each drives one engine and returns plain figures. Greedy, end of text ignored, sampling included.
import { GREEDY, tokensOf } from '../support/engines.mjs';
import { median, quantile, summary } from '../support/report.mjs';

const WARM_STEPS = 4;

async function stepOnce(engine) {
  const report = await engine.step();
  if (report.kind === 'failed') throw report.error;
  // Nothing to run while KV is on its way: the event loop has to turn for it to arrive.
  if (report.kind === 'idle') await new Promise((resolve) => setImmediate(resolve));
  return report;
}

const request = (promptIds, maxTokens) => ({ promptIds, sampling: GREEDY, maxTokens, stopIds: [] });

async function drain(engine) {
  while ((await engine.step()).kind !== 'idle');
}

/** Waits for the first token of one generation. @returns milliseconds from its submission, as the engine and as we see it */
async function firstToken(engine, promptIds) {
  const begin = performance.now();
  const generation = engine.submit(request(promptIds, 1));
  while (generation.stats.firstTokenMs === null) await stepOnce(engine);
  const ms = performance.now() - begin;
  await drain(engine);
  return { ms, engineMs: generation.stats.firstTokenMs, reuse: generation.reuse };
}

/**
 * Decode phase alone: `gen` steps in which every one of the sequences decodes. The first run computes the prompts and is
 * not counted; the later ones find them in the pool.
 */
export async function decode({ engine, vocabulary, sequences, prompt, gen, runs, seed = 1 }) {
  const rates = [];
  const steps = [];
  const device = [];
  const script = [];
  for (let run = 0; run <= runs; run += 1) {
    const generations = Array.from({ length: sequences }, (_, i) =>
      engine.submit(request(tokensOf(prompt, seed + i, vocabulary), null)),
    );
    for (let warm = 0; warm < WARM_STEPS; ) {
      const report = await stepOnce(engine);
      warm = report.numPrefillTokens === 0 && report.numSequences === sequences ? warm + 1 : 0;
    }
    let executeMs = 0;
    const before = performance.eventLoopUtilization();
    const begin = performance.now();
    for (let step = 0; step < gen; step += 1) {
      const report = await stepOnce(engine);
      if (report.numDecodeTokens !== sequences)
        throw new Error(`expected ${sequences} tokens, found ${report.numDecodeTokens}`);
      executeMs += report.executeMs;
    }
    const ms = performance.now() - begin;
    const { active } = performance.eventLoopUtilization(before);
    for (const generation of generations) generation.abort();
    await drain(engine);
    if (run === 0) continue;
    rates.push((sequences * gen * 1000) / ms);
    steps.push(ms / gen);
    device.push(executeMs / gen);
    script.push(active / gen);
  }
  return {
    sequences,
    prompt,
    gen,
    tokensPerSecond: summary(rates, 1),
    stepMs: summary(steps, 4),
    deviceMs: summary(device, 4),
    // Time JavaScript's thread was not asleep, of which all but `exposedMs` passes while the device works.
    scriptMs: summary(script, 4),
    exposedMs: summary(
      steps.map((step, i) => step - device[i]),
      4,
    ),
  };
}

/** Whole prompts that nobody has seen, up to their first token. The first is not counted. */
export async function prefill({ engine, vocabulary, tokens, runs, seed = 1000 }) {
  const rates = [];
  for (let run = 0; run <= runs; run += 1) {
    const { ms } = await firstToken(engine, tokensOf(tokens, seed + run, vocabulary));
    if (run > 0 || runs === 0) rates.push((tokens * 1000) / ms);
  }
  return { tokens, tokensPerSecond: summary(rates, 1) };
}

/** A prompt of which all but the last few tokens are in the pool. */
export async function resume({ engine, vocabulary, context, fresh, runs, seed = 1 }) {
  const history = tokensOf(context, seed, vocabulary);
  const times = [];
  const engineTimes = [];
  let reused = 0;
  for (let run = 0; run <= runs; run += 1) {
    const prompt = Int32Array.from([...history, ...tokensOf(fresh, 5000 + 97 * fresh + run, vocabulary)]);
    const { ms, engineMs, reuse } = await firstToken(engine, prompt);
    if (run === 0) continue; // computes the history where it is not there
    times.push(ms);
    engineTimes.push(engineMs);
    reused = reuse.fromTier.hot;
  }
  return { context, fresh, reusedTokens: reused, firstTokenMs: summary(times, 2), engineMs: summary(engineTimes, 2) };
}

/** Two histories in a pool for one: each resumption brings its own back from host memory. */
export async function restore({ engine, vocabulary, context, runs }) {
  const histories = [1, 2].map((seed) => tokensOf(context, 70 + seed, vocabulary));
  for (const history of histories) await firstToken(engine, history);
  const rates = [];
  const restoreMs = [];
  const firstMs = [];
  let bytes = 0;
  for (let run = 0; run <= runs; run += 1) {
    const prompt = Int32Array.from([...histories[run % 2], ...tokensOf(8, 9000 + run, vocabulary)]);
    const { ms, reuse } = await firstToken(engine, prompt);
    if (run === 0) continue;
    if (reuse.restoredBytes.warm === 0) throw new Error(`expected a warm restore, found ${JSON.stringify(reuse)}`);
    bytes = reuse.restoredBytes.warm;
    rates.push(bytes / reuse.restoreMs / 1e6);
    restoreMs.push(reuse.restoreMs);
    firstMs.push(ms);
  }
  return {
    context,
    bytes,
    gigabytesPerSecond: summary(rates, 2),
    restoreMs: summary(restoreMs, 2),
    firstTokenMs: summary(firstMs, 2),
  };
}

const spread = (values) => ({
  median: Number(median(values).toFixed(3)),
  p90: Number(quantile(values, 0.9).toFixed(3)),
  highest: Number(Math.max(...values).toFixed(3)),
  steps: values.length,
});

/**
 * Steps of sequences that decode while the KV of a stranger is brought back from host memory, beside steps without one. The
 * pool has to hold one history and all that the others decode meanwhile, and not both histories.
 */
export async function moving({ engine, vocabulary, sequences, context, prompt, gen, runs }) {
  const histories = [1, 2].map((seed) => tokensOf(context, 80 + seed, vocabulary));
  for (const history of histories) await firstToken(engine, history);
  const decoding = Array.from({ length: sequences }, (_, i) =>
    engine.submit(request(tokensOf(prompt, 900 + i, vocabulary), null)),
  );
  const timed = async () => {
    const begin = performance.now();
    const report = await stepOnce(engine);
    if (engine.stats().preemptions > 0) throw new Error('expected a pool for all that run, found a preemption');
    const isPlain = report.numPrefillTokens === 0 && report.numDecodeTokens === sequences;
    return { ms: performance.now() - begin, isPlain };
  };
  for (let warm = 0; warm < WARM_STEPS; ) warm = (await timed()).isPlain ? warm + 1 : 0;
  const still = [];
  while (still.length < gen) still.push((await timed()).ms);
  const whileMoving = [];
  const rates = [];
  for (let run = 0; run <= runs; run += 1) {
    const stranger = engine.submit(
      request(Int32Array.from([...histories[run % 2], ...tokensOf(8, 9500 + run, vocabulary)]), 1),
    );
    while (stranger.stats.firstTokenMs === null) {
      const { ms, isPlain } = await timed();
      if (run > 0 && isPlain) whileMoving.push(ms);
    }
    if (stranger.reuse.restoredBytes.warm === 0 && run > 0)
      throw new Error('expected a pool for one history, found both');
    if (run > 0) rates.push(stranger.reuse.restoredBytes.warm / stranger.reuse.restoreMs / 1e6);
  }
  for (const generation of decoding) generation.abort();
  await drain(engine);
  return {
    sequences,
    context,
    stillStepMs: spread(still),
    movingStepMs: spread(whileMoving),
    gigabytesPerSecond: summary(rates, 2),
  };
}

/** Blocks between pool and host memory with nothing beside it, straight through the runner. GB/s. */
export async function blocks({ runner, count, runs }) {
  const ids = Array.from({ length: count }, (_, id) => Int32Array.of(id));
  const bytes = runner.info.cacheSpec.bytesPerBlock(0) * count;
  const timed = async (move) => {
    const begin = performance.now();
    await move();
    return bytes / (performance.now() - begin) / 1e6;
  };
  let payloads = [];
  const readFresh = async () => {
    payloads = [];
    for (const id of ids) payloads.push(await runner.readBlocks(0, id));
  };
  const readUsed = async () => {
    for (const id of ids) await runner.readBlocks(0, id, payloads[id[0]]);
  };
  const write = (depth) => async () => {
    const flying = [];
    for (const id of ids) {
      flying.push(runner.writeBlocks(0, id, payloads[id[0]]));
      if (flying.length >= depth) await flying.shift();
    }
    await Promise.all(flying);
  };
  const figures = { readFresh: [], readUsed: [], write1: [], write2: [], write4: [] };
  for (let run = 0; run < runs; run += 1) {
    figures.readFresh.push(await timed(readFresh));
    figures.readUsed.push(await timed(readUsed));
    for (const depth of [1, 2, 4]) figures[`write${depth}`].push(await timed(write(depth)));
  }
  const summaries = Object.entries(figures).map(([name, values]) => [name, summary(values, 1)]);
  return { count, bytes, gigabytesPerSecond: Object.fromEntries(summaries) };
}
