// oxlint-disable unicorn/require-post-message-target-origin -- a rule for windows; ports of worker_threads have no origin
// Terminates workers while the real backend loads, computes and is being destroyed in them. The main thread opens the
// addon only afterwards: until then the last worker to end closes it.
//   node worker-teardown.mjs <file>     a v8-serialised { addonFile, model, options, batch }; prints the hash of a step
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { deserialize } from 'node:v8';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';

const ROUNDS = 9;
const { file, stage } = isMainThread ? { file: process.argv[2], stage: 'main' } : workerData;
const { addonFile, model, options, batch } = deserialize(readFileSync(file));

if (isMainThread) {
  for (let round = 0; round < ROUNDS; round += 1) {
    await terminateDuring(['loading', 'computing', 'destroying'][round % 3]);
  }
  // The backend's signal handler outlives every worker: its code must too.
  const maps = '/proc/self/maps';
  if (existsSync(maps) && !readFileSync(maps, 'utf8').includes(addonFile)) throw new Error('the addon was unmapped');
  console.log(`hash ${await computeHash()}`);
} else {
  await work(stage);
}

async function terminateDuring(what) {
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { file, stage: what } });
  await new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  await worker.terminate();
}

async function work(what) {
  const addon = createRequire(import.meta.url)(addonFile);
  const opening = open(addon);
  if (what !== 'loading') {
    const { handle } = await opening;
    for (let ticket = 2; ticket < 12; ticket += 1) addon.submit(handle, ticket, batch);
    if (what === 'destroying') addon.destroyRunner(handle, 99);
  }
  parentPort.postMessage(what);
  setInterval(() => {}, 1000);
}

async function computeHash() {
  const addon = createRequire(import.meta.url)(addonFile);
  const { handle, settled } = await open(addon);
  addon.submit(handle, 2, batch);
  const { hashes } = await settled(2);
  return hashes[0];
}

async function open(addon) {
  const waiting = new Map();
  const settled = (ticket) =>
    new Promise((resolve, reject) => {
      waiting.set(ticket, (error, step) => (error === null ? resolve(step) : reject(error)));
    });
  const opened = settled(1);
  const onCompletion = (ticket, error, step) => waiting.get(ticket)?.(error, step);
  const handle = addon.openRunner(1, model, options, onCompletion, () => {});
  await opened;
  return { handle, settled };
}
