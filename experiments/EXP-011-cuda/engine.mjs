// Rows of the speed table through the TypeScript engine, on one model and in one mode. See README.md.
//   node engine.mjs --model m.gguf [--backend cuda] [--activations quantized] [--what decode:1,decode:8,…] [--out r.json]
// What: decode:S  prefill:T[:runs]  deep:T (decoding at a context)  resume:T:fresh  restore:T  moving:S:T  blocks:N
import { appendFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { createCpuModelLoader } from '../../packages/adapter-cpu/dist/index.js';
import { createCudaModelLoader } from '../../packages/adapter-cuda/dist/index.js';
import { openModel } from '../../packages/models/dist/index.js';
import { makeEngine } from '../support/engines.mjs';
import { blocks, decode, moving, prefill, restore, resume } from './rows.mjs';

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    backend: { type: 'string', default: 'cuda' },
    activations: { type: 'string', default: 'quantized' },
    what: { type: 'string', default: 'decode:1,decode:8,decode:32,decode:64' },
    prompt: { type: 'string', default: '512' },
    gen: { type: 'string', default: '128' },
    runs: { type: 'string', default: '5' },
    'batch-tokens': { type: 'string', default: '2048' },
    'pool-tokens': { type: 'string', default: '131072' },
    commit: { type: 'string', default: 'unknown' },
    out: { type: 'string' },
  },
});
const number = (name) => Number(options[name]);
const BLOCK = 256;

const file = await openModel(options.model);
const descriptor = await file.descriptor();
const wishes = options.what.split(',').map((what) => what.split(':'));
// The stranger that comes beside those that decode takes a place too.
const places = { decode: (count) => Number(count), moving: (count) => Number(count) + 1 };
const sequences = Math.max(1, ...wishes.map(([kind, count]) => places[kind]?.(count) ?? 1));
const numBlocks = Math.ceil(number('pool-tokens') / BLOCK);
const loadOptions = {
  numBlocks: [numBlocks],
  kvDType: 'f16',
  activations: options.activations,
  maxBatchTokens: number('batch-tokens'),
  maxBatchSequences: sequences,
  maxBlocksPerSequence: Math.min(numBlocks, Math.ceil(descriptor.contextLength / BLOCK)),
  numThreads: 0,
  instructionPath: 'auto',
};
const loader = options.backend === 'cuda' ? createCudaModelLoader() : createCpuModelLoader();
const planned = await loader.planMemory(descriptor, loadOptions);
const loadBegin = performance.now();
const runner = await loader.load(descriptor, loadOptions);
const loadMs = performance.now() - loadBegin;
const freeBytes = async () => (await loader.planMemory(descriptor, loadOptions))?.freeBytes ?? null;
const loadedFree = await freeBytes();

const common = {
  model: path.basename(options.model),
  backend: runner.info.backend,
  device: runner.info.device,
  numericsId: runner.info.numericsId,
  batchTokens: loadOptions.maxBatchTokens,
  poolTokens: numBlocks * BLOCK,
  commit: options.commit,
  command: ['node', 'engine.mjs', ...process.argv.slice(2).map((argument) => path.basename(argument))].join(' '),
  date: new Date().toISOString(),
  host: `${os.cpus()[0]?.model}, ${os.cpus().length} cores, Node ${process.version}`,
};
function tell(what, row) {
  const line = JSON.stringify({ what, ...row, ...common });
  console.log(JSON.stringify({ what, ...row }));
  if (options.out !== undefined) appendFileSync(options.out, `${line}\n`);
}
tell('load', {
  loadMs: Math.round(loadMs),
  gigabytesPerSecond: descriptor.tensors.reduce((sum, { byteLength }) => sum + byteLength, 0) / loadMs / 1e6,
  memory: runner.memory(),
  planned,
  takenBytes: planned === null ? null : planned.freeBytes - loadedFree,
});

const vocabulary = descriptor.vocabularySize;
const warmBytes = options.backend === 'cuda' ? 8 * 2 ** 30 : 2 ** 30;
const engine = makeEngine(runner, descriptor.contextLength, { warmBytes });
const shared = { engine, vocabulary, runs: number('runs'), gen: number('gen'), prompt: number('prompt') };
for (const [kind, ...rest] of wishes) {
  const [first, second] = rest.map(Number);
  const begin = performance.now();
  const row = await {
    decode: () => decode({ ...shared, sequences: first }),
    prefill: () => prefill({ ...shared, tokens: first, runs: second ?? shared.runs }),
    deep: () => decode({ ...shared, sequences: 1, prompt: first, gen: second ?? 64 }),
    resume: () => resume({ ...shared, context: first, fresh: second ?? 1 }),
    restore: () => restore({ ...shared, context: first }),
    blocks: () => blocks({ runner, count: first, runs: shared.runs }),
    moving: () => moving({ ...shared, sequences: first, context: second }),
  }[kind]();
  tell(kind, { ...row, tookSeconds: Number(((performance.now() - begin) / 1000).toFixed(1)) });
}
const endFree = await freeBytes();
const memory = runner.memory();
tell('end', {
  memory,
  // Of the device, beside weights and pool: workspace, the context's and the library's own, graphs.
  beyondBytes: planned === null ? null : planned.freeBytes - endFree - memory.weightsRepackedBytes - memory.kvPoolBytes,
  grownBytes: planned === null ? null : loadedFree - endFree,
});
await engine.dispose();
await runner.dispose();
