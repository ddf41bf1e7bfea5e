// EXP-007: time to first token, by where the prompt's KV is found. See README.md.
// Usage, as root on Linux: node experiments/EXP-007-first-token/run.mjs [--rounds 7] [--peer <folder with llama-bench>] [--record]
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { BUNDLED } from '../support/engines.mjs';
import { circumstances, median, record, summary, table } from '../support/report.mjs';
import { plot } from './plot.mjs';
import { measureSources } from './sources.mjs';
import { measureThrottled } from './throttled.mjs';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '7' },
    only: { type: 'string', default: 'sources,throttled' },
    peer: { type: 'string' },
    record: { type: 'boolean', default: false },
  },
});
const LENGTHS = [256, 1024, 4096];
const SPEEDS = [5, 10, 20, 100, 500, Number.POSITIVE_INFINITY];
const rounds = Number(values.rounds);
const wanted = new Set(values.only.split(','));
const result = { ...circumstances('EXP-007, first token'), model: path.basename(BUNDLED), lengths: LENGTHS };
const ms = (value) => value.toFixed(1);

if (wanted.has('sources')) {
  const { samples, plainReadMs, openMs, decodeMs, kvBytes } = await measureSources(LENGTHS, rounds);
  const medians = Object.fromEntries(Object.entries(samples).map(([name, lists]) => [name, lists.map(median)]));
  const bytesPerMs = kvBytes.at(-1) / median(plainReadMs);
  const decode = decodeMs.map(median);
  // Per round against that round's own read: a disk is not the same from one minute to the next.
  const last = LENGTHS.length - 1;
  const bounds = plainReadMs.map((read) => read / 0.8 + 2 * decode[last] + 5);
  result.sources = Object.fromEntries(
    Object.entries(samples).map(([name, lists]) => [name, lists.map((list) => summary(list, 2))]),
  );
  result.restartOpenMs = summary(openMs, 2);
  result.decodeStepMs = decode.map((value) => Number(value.toFixed(3)));
  result.diskBound = {
    kvBytes: kvBytes[last],
    plainReadMs: summary(plainReadMs, 2),
    plainReadGBs: Number((bytesPerMs / 1e6).toFixed(3)),
    boundMs: Number(median(bounds).toFixed(1)),
    diskMs: Number(medians.disk[last].toFixed(1)),
    restartMs: Number(medians.restart[last].toFixed(1)),
    holds: medians.disk[last] <= median(bounds),
    roundsWithinBound: samples.disk[last].filter((value, round) => value <= bounds[round]).length,
    rounds,
  };
  const rows = Object.entries(medians).map(([name, list]) => [
    name,
    ...list.map(ms),
    `${(medians.fresh[last] / list[last]).toFixed(0)}×`,
  ]);
  console.log(`Time to first token, ms, medians of ${rounds}\n`);
  console.log(`${table(['from', ...LENGTHS.map((length) => `${length} tokens`), 'against fresh at 4K'], rows)}\n`);
  console.log('From disk at 4K:', JSON.stringify(result.diskBound), '\n');
  if (values.peer !== undefined) comparePrefill(medians.fresh);
  if (values.record) writeFileSync(path.join(import.meta.dirname, 'first-token.svg'), plot(LENGTHS, medians));
}
if (wanted.has('throttled')) {
  const measured = await measureThrottled({ speeds: SPEEDS, numTokens: 4096, rounds: 3, warmUps: 4 });
  result.throttled = measured.map(({ speed, samples, reused, planner }) => {
    const medians = Object.fromEntries(Object.entries(samples).map(([name, list]) => [name, median(list)]));
    const ratio = medians.auto / Math.min(medians.always, medians.never);
    return {
      megabytesPerSecond: Number.isFinite(speed) ? speed : 'unthrottled',
      always: summary(samples.always, 1),
      never: summary(samples.never, 1),
      auto: summary(samples.auto, 1),
      autoReused: reused,
      planner,
      autoToBetter: Number(ratio.toFixed(3)),
    };
  });
  const rows = result.throttled.map((line) => [
    line.megabytesPerSecond,
    line.always.median,
    line.never.median,
    line.auto.median,
    line.autoReused.join(' '),
    line.autoToBetter,
  ]);
  console.log('4,096 tokens from a throttled disk, ms\n');
  console.log(`${table(['MB/s', 'always', 'never', 'auto', 'tokens auto restored', 'auto / better'], rows)}\n`);
}
if (values.record) record(import.meta.dirname, 'result.json', result);

function comparePrefill(fresh) {
  const arguments_ = [
    '-m',
    BUNDLED,
    '-t',
    '2',
    '-p',
    LENGTHS.join(','),
    '-n',
    '0',
    '-r',
    '3',
    '-fa',
    '1',
    '-o',
    'json',
  ];
  const tests = JSON.parse(
    execFileSync(path.join(values.peer, 'llama-bench'), arguments_, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }),
  );
  result.prefill = LENGTHS.map((length, index) => {
    const peer = tests.find((test) => test.n_prompt === length).avg_ts;
    const ours = (length / fresh[index]) * 1000;
    return {
      tokens: length,
      kvasir: Math.round(ours),
      llamaCpp: Math.round(peer),
      ratio: Number((ours / peer).toFixed(2)),
    };
  });
  const rows = result.prefill.map((line) => Object.values(line));
  console.log(`Prefill, tokens/s\n\n${table(['tokens', 'Kvasir', 'llama.cpp', 'ratio'], rows)}\n`);
}
