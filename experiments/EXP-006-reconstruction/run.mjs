// EXP-006: how fast an agent's KV is where attention needs it. See README.md.
// Usage, as root on Linux: node experiments/EXP-006-reconstruction/run.mjs [--rounds 9] [--repetitions 2000] [--record]
import { parseArgs } from 'node:util';
import { generatedModel, loadRunner } from '../support/engines.mjs';
import { circumstances, quantile, record, summary, table } from '../support/report.mjs';
import { measureHot } from './hot.mjs';
import { RestoreBench } from './restoring.mjs';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '9' },
    repetitions: { type: 'string', default: '2000' },
    only: { type: 'string', default: 'hot,warm,cold,scaling' },
    record: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
const wanted = new Set(values.only.split(','));
const result = {
  ...circumstances('EXP-006, reconstruction'),
  agent: { blocks: 32, layers: 48, kvHeads: 2, headDim: 64 },
};
const rate = (bytes) => (milliseconds) => bytes / 1e6 / milliseconds;

if (wanted.has('hot')) {
  const { runner } = await loadRunner(modelOf(48), 8);
  result.hot = {};
  for (const numBlocks of [1, 8, 32, 128]) {
    measureHot(runner, numBlocks, 300);
    const { lookup, row, both } = measureHot(runner, numBlocks, Number(values.repetitions));
    const figures = (samples) => ({
      p50: Number(quantile(samples, 0.5).toFixed(1)),
      p95: Number(quantile(samples, 0.95).toFixed(1)),
      p99: Number(quantile(samples, 0.99).toFixed(1)),
    });
    result.hot[numBlocks] = { lookup: figures(lookup), row: figures(row), both: figures(both) };
  }
  await runner.dispose();
  print(
    'Hot, microseconds',
    ['blocks', 'lookup p50', 'row p50', 'both p50', 'both p95', 'both p99'],
    Object.entries(result.hot).map(([numBlocks, { lookup, row, both }]) => [
      numBlocks,
      lookup.p50,
      row.p50,
      both.p50,
      both.p95,
      both.p99,
    ]),
  );
}
if (wanted.has('warm')) {
  result.warm = await measureWarm(32, 48, rounds);
  printRates('Warm → hot, GB/s', { 'plain copy': result.warm.plain, restore: result.warm.restore }, result.warm.ratio);
}
if (wanted.has('cold')) {
  result.cold = await measureCold(32, 48, rounds);
  const { plainCold, plainCached, cold, cached, ratio } = result.cold;
  printRates(
    'Cold → hot, GB/s',
    { 'plain read': plainCold, restore: cold, 'plain read, cached': plainCached, 'restore, cached': cached },
    ratio,
  );
}
if (wanted.has('scaling')) {
  result.scaling = [];
  for (const numLayers of [12, 48, 96]) {
    for (const numBlocks of [1, 8, 32, 128]) {
      const warm = await measureWarm(numBlocks, numLayers, 3);
      const cold = await measureCold(numBlocks, numLayers, 3);
      result.scaling.push({
        numLayers,
        numBlocks,
        megabytes: Number((warm.bytes / 1e6).toFixed(1)),
        warmMs: warm.restoreMs.median,
        warmRatio: warm.ratio.median,
        coldMs: cold.coldMs.median,
        coldRatio: cold.ratio.median,
      });
    }
  }
  print(
    'Scaling',
    ['layers', 'blocks', 'MB', 'warm → hot ms', 'of a copy', 'cold → hot ms', 'of a read'],
    result.scaling.map((line) => Object.values(line)),
  );
}
if (values.record) record(import.meta.dirname, 'result.json', result);

function modelOf(numLayers) {
  const shape = { family: 'qwen3', numLayers, hiddenSize: 128, numHeads: 2, numKvHeads: 2, headDim: 64 };
  return generatedModel({ ...shape, feedForwardSize: 128, contextLength: 33 * 256 });
}

async function measureWarm(numBlocks, numLayers, count) {
  const bench = await RestoreBench.open({ numBlocks, numLayers, tier: 'warm' });
  const plainMs = [];
  const restoreMs = [];
  for (let round = -2; round < count; round++) {
    const copied = bench.copyPlainly();
    const restored = await bench.restore();
    if (round < 0) continue;
    plainMs.push(copied);
    restoreMs.push(restored);
  }
  const { bytes } = bench;
  await bench.close();
  return {
    bytes,
    plain: summary(plainMs.map(rate(bytes))),
    restore: summary(restoreMs.map(rate(bytes))),
    restoreMs: summary(restoreMs),
    ratio: summary(plainMs.map((milliseconds, round) => milliseconds / restoreMs[round])),
  };
}

async function measureCold(numBlocks, numLayers, count) {
  const bench = await RestoreBench.open({ numBlocks, numLayers, tier: 'cold' });
  const samples = { plainCold: [], plainCached: [], cold: [], cached: [] };
  for (let round = -1; round < count; round++) {
    const times = await bench.coldRound();
    if (round < 0) continue;
    for (const [name, milliseconds] of Object.entries(times)) samples[name].push(milliseconds);
  }
  const { bytes } = bench;
  await bench.close();
  return {
    bytes,
    ...Object.fromEntries(Object.entries(samples).map(([name, times]) => [name, summary(times.map(rate(bytes)))])),
    coldMs: summary(samples.cold),
    ratio: summary(samples.cold.map((milliseconds, round) => samples.plainCold[round] / milliseconds)),
    cachedRatio: summary(samples.cached.map((milliseconds, round) => samples.plainCached[round] / milliseconds)),
  };
}

function print(title, header, rows) {
  console.log(`${title}\n\n${table(header, rows)}\n`);
}

function printRates(title, rates, ratio) {
  const rows = [...Object.entries(rates), ['ratio by round', ratio]].map(([name, { median, lowest, highest }]) => [
    name,
    median,
    lowest,
    highest,
  ]);
  print(title, ['', 'median', 'lowest', 'highest'], rows);
}
