// Loads an agent of 32 blocks × 48 layers through the store, against a plain sequential read of the same bytes.
// Usage, after `pnpm build`: node packages/block-store-fs/test/by-hand/measure-reads.mjs [readers] [blocks] [tokens]
import { createHash, randomFillSync } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { openColdTier } from '../../dist/index.js';
import { dropPageCache, median } from './drop-page-cache.mjs';

const [readers = 2, numBlocks = 32, numTokens = 256] = process.argv.slice(2).map(Number);
const ROUNDS = 5;
const shape = { dtype: 'F16', layers: 48, components: 2, heads: 4, blockTokens: 256, dim: 128, isSliceable: true };
const payloadBytes = 48 * 2 * 4 * 256 * 128 * 2;
const identity = { modelFingerprint: 'm', kvDType: 'f16', layoutVersion: '1', numericsId: 'n' };

const directory = mkdtempSync(path.join(process.env.KVASIR_MEASURE ?? os.tmpdir(), 'kvasir-measure-'));
const tier = await openColdTier({ directory, readers });
const payload = new Uint8Array(new SharedArrayBuffer(payloadBytes));
randomFillSync(Buffer.from(payload.buffer, 0, payloadBytes));
const blocks = Array.from({ length: numBlocks }, (_, index) => ({
  key: { hash: createHash('sha256').update(String(index)).digest('hex'), group: 0 },
  identity,
  predecessor: null,
  tokenIds: Int32Array.from({ length: numTokens }, (__, token) => index * 256 + token),
  shape,
  payload,
}));
let longestGap = 0;
let last = performance.now();
const ticking = setInterval(() => {
  longestGap = Math.max(longestGap, performance.now() - last);
  last = performance.now();
}, 1);
const writing = performance.now();
for (const block of blocks) await tier.blocks.put([block]);
const writeSeconds = (performance.now() - writing) / 1000;
const { bytes } = await tier.blocks.usage();
const plain = path.join(directory, 'plain');
writeFileSync(plain, '');
const out = openSync(plain, 'a');
for (let left = bytes; left > 0; left -= payloadBytes)
  writeSync(out, Buffer.from(payload.buffer, 0, Math.min(left, payloadBytes)));
closeSync(out);

// The pages of the destination exist beforehand, as a warm tier's would.
const requests = blocks.map(({ key, tokenIds }) => ({
  key,
  identity,
  tokenIds,
  shape,
  into: new Uint8Array(new SharedArrayBuffer(payloadBytes)).fill(1),
}));
const plainBuffer = Buffer.alloc(4 << 20, 1);
const readPlain = () => {
  const file = openSync(plain);
  while (readSync(file, plainBuffer, 0, plainBuffer.length, null) > 0);
  closeSync(file);
};
const loadAll = async () => {
  const loads = await tier.blocks.get(requests);
  if (!loads.every(({ isHit }) => isHit)) throw new Error(JSON.stringify(loads));
};
const timed = async (work) => {
  const start = performance.now();
  await work();
  return bytes / 1e6 / (performance.now() - start);
};
const figures = { plainCold: [], storeCold: [], plainCached: [], storeCached: [] };
let gap = 0;
// Time the main thread spent on anything, the ticking included: what a load costs it.
let mainThreadMs = 0;
for (let round = 0; round < ROUNDS; round++) {
  dropPageCache();
  figures.plainCold.push(await timed(readPlain));
  figures.plainCached.push(await timed(readPlain));
  dropPageCache();
  await new Promise((resolve) => setTimeout(resolve, 20));
  longestGap = 0;
  last = performance.now();
  const before = performance.eventLoopUtilization();
  figures.storeCold.push(await timed(loadAll));
  mainThreadMs += performance.eventLoopUtilization(before).active / ROUNDS;
  gap = Math.max(gap, longestGap);
  figures.storeCached.push(await timed(loadAll));
}
clearInterval(ticking);
const medians = Object.fromEntries(
  Object.entries(figures).map(([name, values]) => [name, Number(median(values).toFixed(3))]),
);
console.log(
  JSON.stringify({
    hardware: `${os.cpus()[0]?.model}, ${os.cpus().length} cores, load ${os.loadavg()[0]?.toFixed(1)}, Node ${process.version}`,
    readers,
    numBlocks,
    numTokens,
    megabytes: bytes / 1e6,
    unit: 'GB/s, median',
    ...medians,
    coldRatio: Number((medians.storeCold / medians.plainCold).toFixed(3)),
    bestToBest: Number((Math.max(...figures.storeCold) / Math.max(...figures.plainCold)).toFixed(3)),
    writeGBs: Number((bytes / 1e9 / writeSeconds).toFixed(3)),
    mainThreadMsPerLoad: Number(mainThreadMs.toFixed(1)),
    longestMainThreadGapMs: Number(gap.toFixed(1)),
    figures: Object.fromEntries(
      Object.entries(figures).map(([name, values]) => [name, values.map((value) => Number(value.toFixed(3)))]),
    ),
  }),
);
await tier.close();
rmSync(directory, { recursive: true });
