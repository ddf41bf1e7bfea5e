// Speed on the CPU beside llama.cpp's own benchmarks, the two taking turns in one run on the same files. See README.md.
import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const { values: options, positionals: models } = parseArgs({
  allowPositionals: true,
  options: {
    peer: { type: 'string' }, // folder of llama-bench and llama-batched-bench
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    prompt: { type: 'string', default: '512' },
    gen: { type: 'string', default: '64' },
    depths: { type: 'string', default: '0,4096' },
    batches: { type: 'string', default: '' }, // '1,8': sequences that decode at once
    bandwidth: { type: 'string' }, // a program that prints this machine's read bandwidth
    out: { type: 'string' },
  },
});
if (options.peer === undefined || models.length === 0) {
  console.error(
    'usage: run.mjs --peer <folder with llama-bench> [--rounds 3] [--depths 0,4096] [--batches 1,8] [--out result.json] model.gguf …',
  );
  process.exit(2);
}

const rounds = Number(options.rounds);
const run = (command, args) => {
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 26 });
  if (result.status !== 0)
    throw new Error(`${command} ${args.join(' ')} ended with ${result.status}: ${result.stderr.slice(-2000)}`);
  return result.stdout;
};
const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/** Tokens a second by test name: pp512, tg64 @ d4096, tg64 x8. */
function peerRates(model) {
  const rates = {};
  const args = [
    '-m',
    model,
    '-t',
    options.threads,
    '-p',
    options.prompt,
    '-n',
    options.gen,
    '-d',
    options.depths,
    '-r',
    '1',
    '-fa',
    '1',
    '-o',
    'json',
  ];
  for (const test of JSON.parse(run(path.join(options.peer, 'llama-bench'), args))) {
    rates[testName(test.n_prompt > 0 ? 'pp' : 'tg', test.n_prompt || test.n_gen, test.n_depth)] = test.avg_ts;
  }
  if (options.batches !== '') {
    const batched = [
      '-m',
      model,
      '-t',
      options.threads,
      '-tb',
      options.threads,
      '-c',
      '8192',
      '-npp',
      '128',
      '-ntg',
      options.gen,
      '-npl',
      options.batches,
      '-fa',
      'on',
      '--output-format',
      'jsonl',
    ];
    for (const line of run(path.join(options.peer, 'llama-batched-bench'), batched).split('\n')) {
      if (!line.startsWith('{')) continue;
      const test = JSON.parse(line);
      rates[`tg${options.gen} x${test.pl}`] = test.speed_tg;
    }
  }
  return rates;
}

function kvasirRates(model) {
  const bench = (args) =>
    JSON.parse(
      run(process.execPath, [
        path.join(root, 'apps/server/dist/main.js'),
        'bench',
        '--model',
        model,
        '--threads',
        options.threads,
        '--json',
        '-r',
        '1',
        ...args,
      ]),
    );
  const rates = {};
  const report = bench(['-p', options.prompt, '-n', options.gen, '-d', options.depths]);
  for (const test of report.tests)
    rates[testName(test.kind === 'prefill' ? 'pp' : 'tg', test.tokens, test.depth)] = test.mean;
  if (options.batches !== '') {
    for (const test of bench(['-p', '0', '-n', options.gen, '-d', '128', '-b', options.batches]).tests)
      rates[`tg${test.tokens} x${test.batch}`] = test.mean;
  }
  return { rates, backend: report.backend };
}

const testName = (kind, tokens, depth) => `${kind}${tokens}${depth > 0 ? ` @ d${depth}` : ''}`;

const bandwidths = [];
const measureBandwidth = () => {
  if (options.bandwidth !== undefined) bandwidths.push(run(options.bandwidth, []).trim());
};

const results = [];
for (const model of models) {
  const samples = new Map();
  let backend;
  for (let round = 0; round < rounds; round++) {
    measureBandwidth();
    // Who goes first alternates, so that a drift of the machine favours neither.
    const turns = [
      () => ['peer', peerRates(model)],
      () => {
        const ours = kvasirRates(model);
        backend = ours.backend;
        return ['kvasir', ours.rates];
      },
    ];
    if (round % 2 === 1) turns.reverse();
    for (const turn of turns) {
      const [who, rates] = turn();
      for (const [test, rate] of Object.entries(rates)) {
        const entry = samples.get(test) ?? { peer: [], kvasir: [] };
        entry[who].push(rate);
        samples.set(test, entry);
      }
    }
  }
  for (const [test, { peer, kvasir }] of samples) {
    const ratio = median(kvasir.map((rate, i) => rate / peer[i]));
    results.push({
      model: path.basename(model),
      test,
      kvasir: median(kvasir),
      peer: median(peer),
      ratio,
      samples: { kvasir, peer },
    });
    console.error(
      `${path.basename(model)} ${test}: kvasir ${median(kvasir).toFixed(1)}, llama.cpp ${median(peer).toFixed(1)}, ratio ${ratio.toFixed(2)}`,
    );
  }
  results.push({ model: path.basename(model), test: 'backend', backend });
}

const git = (...args) => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
const report = {
  hardware: { processor: cpus()[0].model, cores: cpus().length, memoryBytes: totalmem(), kernel: release() },
  commit: git('rev-parse', '--short=12', 'HEAD') + (git('status', '--porcelain') === '' ? '' : ' with changes'),
  node: process.version,
  command: `node experiments/EXP-004-cpu-speed/run.mjs ${process.argv
    .slice(2)
    .map((arg) => path.basename(arg))
    .join(' ')}`,
  date: new Date().toISOString(),
  bandwidths,
  results,
};
if (options.out !== undefined) writeFileSync(options.out, `${JSON.stringify(report, null, 2)}\n`);

console.log(
  `\n${report.hardware.processor}, ${report.hardware.cores} cores; commit ${report.commit}; node ${report.node}; ${report.date}\n`,
);
console.log('| model | test | Kvasir t/s | llama.cpp t/s | ratio |\n|---|---|---:|---:|---:|');
for (const { model, test, kvasir, peer, ratio } of results.filter((result) => result.ratio !== undefined)) {
  console.log(`| ${model} | ${test} | ${kvasir.toFixed(1)} | ${peer.toFixed(1)} | ${ratio.toFixed(2)} |`);
}
