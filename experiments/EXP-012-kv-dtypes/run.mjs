// What KV dtypes cost in quality, beside llama.cpp's on the same file, and what they give in speed. See README.md.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openModel } from '../../packages/models/dist/index.js';
import { createTokenizer } from '../../packages/tokenizer/dist/index.js';
import { openRunners, scoreWindow, summarize } from './divergence.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, '../..');
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    text: { type: 'string' }, // held-out text: what held_out.py wrote
    peer: { type: 'string' }, // folder with llama-perplexity
    'peer-dtypes': { type: 'string', default: 'bf16,q8_0,q4_0' },
    contexts: { type: 'string', default: '2048,4096,8192' },
    scored: { type: 'string', default: '0' }, // about so many tokens a context; 0: the whole text
    dtypes: { type: 'string', default: 'bf16,q8,q4' },
    threads: { type: 'string', default: '2' },
    bench: { type: 'string', default: '0' }, // rounds of decoding at 4,096 tokens of context
    note: { type: 'string', default: '' },
    out: { type: 'string' },
  },
});
const model = positionals[0] ?? path.join(root, 'models/kvasir-saga-21m-Q5_K_M.gguf');
if (options.text === undefined) {
  console.error(
    'usage: run.mjs --text test.txt [--peer <folder>] [--contexts 2048,…] [--bench 5] [--out FILE] [model]',
  );
  process.exit(2);
}
const threads = Number(options.threads);
const dtypes = options.dtypes.split(',').filter(Boolean);

/** The second half of each window is scored. */
const numWindows = (context) =>
  Number(options.scored) === 0 ? Number.POSITIVE_INFINITY : Math.ceil((2 * Number(options.scored)) / context);

/** Every dtype against f16 over whole windows of the text. */
async function measure(ids, context) {
  const runners = await openRunners(model, ['f16', ...dtypes], context, threads);
  const scores = runners.map(() => ({ nll: [], divergence: [], same: [] }));
  for (let start = 0; start + context <= ids.length && start < numWindows(context) * context; start += context) {
    const window = await scoreWindow(runners, ids.slice(start, start + context));
    for (const [index, more] of window.entries()) {
      for (const key of Object.keys(more)) for (const value of more[key]) scores[index][key].push(value);
    }
  }
  const rows = ['f16', ...dtypes].map((dtype, index) => ({
    engine: 'kvasir',
    context,
    dtype,
    bytesPerToken: runners[index].info.cacheSpec.bytesPerBlock() / 256,
    numericsId: runners[index].info.numericsId,
    ...summarize(scores[index], scores[0]),
  }));
  for (const runner of runners) await runner.dispose();
  return rows;
}

/** llama-perplexity's own figures: its f16 run's logits are the base of the others. */
function measurePeer(context) {
  const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-exp-012-'));
  const base = path.join(scratch, 'base.dat');
  const common = ['-m', model, '-f', options.text, '-c', String(context), '-b', String(context), '-t', options.threads];
  const perplexity = (isComplete, ...more) => {
    const command = path.join(options.peer, 'llama-perplexity');
    if (Number.isFinite(numWindows(context))) more.push('--chunks', String(numWindows(context)));
    // Its last lines are sometimes lost when it ends: once more then.
    for (let attempt = 0; attempt < 5; attempt++) {
      const result = spawnSync(command, [...common, '-fa', 'on', ...more], { encoding: 'utf8', maxBuffer: 1 << 28 });
      if (result.status !== 0)
        throw new Error(`llama-perplexity: status ${result.status}: ${result.stderr.slice(-2000)}`);
      const text = result.stdout + result.stderr;
      if (isComplete.test(text)) return text;
    }
    throw new Error(`llama-perplexity ${more.join(' ')}: no final figures in five runs`);
  };
  const number = (text, pattern) => Number(pattern.exec(text)?.[1] ?? Number.NaN);
  const f16 = perplexity(/Final estimate: PPL/, '--kl-divergence-base', base);
  const rows = [
    { engine: 'llama.cpp', context, dtype: 'f16', perplexity: number(f16, /Final estimate: PPL = ([\d.]+)/), ratio: 1 },
  ];
  for (const dtype of options['peer-dtypes'].split(',')) {
    const text = perplexity(
      /Same top p: /,
      '--kl-divergence-base',
      base,
      '--kl-divergence',
      '-ctk',
      dtype,
      '-ctv',
      dtype,
    );
    rows.push({
      engine: 'llama.cpp',
      context,
      dtype,
      perplexity: number(text, /Mean PPL\(Q\)\s*:\s*([\d.]+)/),
      ratio: number(text, /Mean PPL\(Q\)\/PPL\(base\)\s*:\s*([\d.]+)/),
      ratioStandardError: number(text, /Mean PPL\(Q\)\/PPL\(base\)\s*:\s*[\d.]+ ±\s*([\d.]+)/),
      meanDivergence: number(text, /Mean\s+KLD:\s*(-?[\d.]+)/),
      medianDivergence: number(text, /Median\s+KLD:\s*(-?[\d.]+)/),
      divergence99: number(text, /99\.0%\s+KLD:\s*(-?[\d.]+)/),
      maxDivergence: number(text, /Maximum KLD:\s*(-?[\d.]+)/),
      sameTopToken: number(text, /Same top p:\s*([\d.]+)/) / 100,
    });
  }
  rmSync(scratch, { recursive: true });
  return rows;
}

/** Tokens a second of one sequence at 4,096 tokens of context, dtypes taking turns. */
function benchDecode(rounds) {
  const rates = Object.fromEntries(['f16', ...dtypes].map((dtype) => [dtype, []]));
  for (let round = 0; round < rounds; round++) {
    for (const dtype of Object.keys(rates)) {
      const args = ['bench', '--model', model, '--kv-dtype', dtype, '--threads', options.threads];
      const measured = execFileSync(
        process.execPath,
        [
          path.join(root, 'apps/server/dist/main.js'),
          ...args,
          '-p',
          '0',
          '-n',
          '64',
          '-d',
          '4096',
          '-r',
          '3',
          '--json',
        ],
        { encoding: 'utf8' },
      );
      rates[dtype].push(...JSON.parse(measured).tests[0].tokensPerSecond);
    }
  }
  const at = (values, share) => [...values].sort((a, b) => a - b)[Math.floor(share * (values.length - 1))];
  return Object.entries(rates).map(([dtype, values]) => ({
    test: 'tg64 @ d4096',
    dtype,
    tokensPerSecond: values,
    median: at(values, 0.5),
    best: at(values, 1),
  }));
}

const git = (...args) => execFileSync('git', ['-C', root, ...args], { encoding: 'utf8' }).trim();
const tokenizer = await createTokenizer((await openModel(model)).tokenizerSource);
const ids = await tokenizer.encode(readFileSync(options.text, 'utf8'), { special: false, addBosEos: true });
await tokenizer.dispose();

const report = {
  experiment: 'EXP-012',
  date: new Date().toISOString(),
  commit: git('rev-parse', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') === '' ? '' : '+'),
  command: `node ${path.relative(root, fileURLToPath(import.meta.url))} ${process.argv
    .slice(2)
    .map((argument) => (path.isAbsolute(argument) ? path.basename(argument) : argument))
    .join(' ')}`,
  hardware: {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryBytes: totalmem(),
    system: `${process.platform} ${release()} ${process.arch}`,
    node: process.version,
  },
  note: options.note,
  model: path.basename(model),
  text: { tokens: ids.length, bytes: readFileSync(options.text).length },
  quality: [],
  speed: [],
};
const { quality } = report;
/** After each part, so that a run that is cut short has recorded what it measured. */
const record = () => {
  if (options.out !== undefined) writeFileSync(options.out, `${JSON.stringify(report, null, 2)}\n`);
};

for (const context of options.contexts.split(',').filter(Boolean).map(Number)) {
  quality.push(...(await measure(Int32Array.from(ids), context)));
  record();
  if (options.peer !== undefined) quality.push(...measurePeer(context));
  record();
  console.error(`context ${context} done`);
}
report.speed = benchDecode(Number(options.bench));
record();
console.log(JSON.stringify({ ...report, quality: undefined, speed: undefined }));
console.table(
  quality.map(({ engine, context, dtype, perplexity, ratio, meanDivergence, divergence99, sameTopToken }) => ({
    engine,
    context,
    dtype,
    perplexity,
    ratio,
    meanDivergence,
    divergence99,
    sameTopToken,
  })),
);
console.table(report.speed.map(({ test, dtype, median, best }) => ({ test, dtype, median, best })));
