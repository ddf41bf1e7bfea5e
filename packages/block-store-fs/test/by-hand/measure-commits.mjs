// How long a turn waits for its flush: one agent alone, then many that end their turns together, then beside block writes.
// Usage, after `pnpm build`: node packages/block-store-fs/test/by-hand/measure-commits.mjs
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { openColdTier } from '../../dist/index.js';
import { median } from './drop-page-cache.mjs';

const directory = mkdtempSync(path.join(process.env.KVASIR_MEASURE ?? os.tmpdir(), 'kvasir-measure-'));
const tier = await openColdTier({ directory });
const identity = { modelFingerprint: 'm', kvDType: 'f16', layoutVersion: '1', numericsId: 'n' };
const agents = [];
for (let index = 0; index < 64; index++) {
  const { agentId } = await tier.agents.create({ tenant: 't', name: String(index), identity, atMs: 1 });
  agents.push({ agentId, numTokens: 0 });
}
const turn = async (agent) => {
  const startTokens = agent.numTokens;
  agent.numTokens += 200;
  const start = performance.now();
  await tier.agents.commit(agent.agentId, {
    kind: 'turn',
    startTokens,
    tokenIds: new Int32Array(200).fill(7),
    segments: 'x'.repeat(1000),
    atMs: 2,
  });
  return performance.now() - start;
};
const report = {};
const measure = async (name, count, rounds) => {
  const times = [];
  const before = (await tier.agents.usage()).flushes;
  for (let round = 0; round < rounds; round++) times.push(...(await Promise.all(agents.slice(0, count).map(turn))));
  const sorted = times.toSorted((a, b) => a - b);
  report[name] = {
    medianMs: Number(median(times).toFixed(2)),
    p95Ms: Number(sorted[Math.floor(sorted.length * 0.95)].toFixed(2)),
    turnsPerFlush: Number((times.length / ((await tier.agents.usage()).flushes - before)).toFixed(1)),
  };
};
await measure('warm up', 64, 3);
await measure('one agent', 1, 100);
await measure('16 together', 16, 40);
await measure('64 together', 64, 20);
const shape = { dtype: 'U8', layers: 1, components: 1, heads: 1, blockTokens: 256, dim: 1 << 15, isSliceable: false };
const stop = new AbortController();
const writing = (async () => {
  for (let index = 0; !stop.signal.aborted; index++) {
    const key = { hash: createHash('sha256').update(String(index)).digest('hex'), group: 0 };
    const payload = new Uint8Array(new SharedArrayBuffer(256 << 15)).fill(index);
    await tier.blocks.put([{ key, identity, predecessor: null, tokenIds: new Int32Array(256), shape, payload }]);
    await tier.blocks.delete([key]);
  }
})();
await measure('16 together while blocks are written', 16, 40);
stop.abort();
await writing;
console.log(
  JSON.stringify({
    hardware: `${os.cpus()[0]?.model}, load ${os.loadavg()[0]?.toFixed(1)}, Node ${process.version}`,
    ...report,
  }),
);
await tier.close();
rmSync(directory, { recursive: true });
