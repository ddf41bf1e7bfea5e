// Anonymous memory of a serving process beyond the KV pool and declared copies of weights, and its growth over requests.
// See README.md.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, '../..');
const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    requests: { type: 'string', default: '1200' },
    warm: { type: 'string', default: '200' },
  },
});
const requests = Number(options.requests);
const warm = Number(options.warm);
const args = [
  '--expose-gc',
  '--import',
  path.join(here, 'collect-on-signal.mjs'),
  path.join(root, 'apps/server/dist/main.js'),
  'serve',
  '--port',
  '0',
  '--log-level',
  'warn',
];
if (options.model !== undefined) args.push('--model', options.model);
const server = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });

let announced = '';
let port;
for await (const chunk of server.stdout) {
  announced += chunk;
  port = /127\.0\.0\.1:(\d+)/.exec(announced)?.[1];
  if (port !== undefined) break;
}
server.stdout.resume();

const MiB = 2 ** 20;
const anonymous = () => {
  const rollup = readFileSync(`/proc/${server.pid}/smaps_rollup`, 'utf8');
  return Number(/^Anonymous:\s+(\d+) kB/m.exec(rollup)[1]) * 1024;
};
/** Asks the process to collect garbage and waits until its answer on the metrics shows that it goes on. */
async function collected() {
  for (let i = 0; i < 3; i++) {
    server.kill('SIGUSR2');
    await new Promise((resolve) => setTimeout(resolve, 300));
    await fetch(`http://127.0.0.1:${port}/health`);
  }
  return anonymous();
}
const metric = async (name) => {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const line = text.split('\n').find((candidate) => candidate.startsWith(name));
  return line === undefined ? NaN : Number(line.split(' ').at(-1));
};

async function one(i) {
  const body = {
    model: 'default',
    messages: [{ role: 'user', content: `Tell me about the prince, number ${i}.` }],
    max_tokens: 16 + (i % 5),
    stream: i % 2 === 0,
    seed: i,
  };
  const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${response.status}: ${text}`);
}

const points = [];
const start = await collected();
for (let done = 0; done < requests; done += 8) {
  await Promise.all(Array.from({ length: 8 }, (_, i) => one(done + i)));
  if ((done + 8) % 200 === 0) points.push({ requests: done + 8, anonymous: await collected() });
}
const pool = await metric('kvasir_kv_pool_bytes');
const repacked = await metric('kvasir_weights_repacked_bytes');
console.log(
  `pool ${(pool / MiB).toFixed(1)} MiB, repacked weights ${(repacked / MiB).toFixed(1)} MiB; anonymous at start ${(start / MiB).toFixed(1)} MiB`,
);
for (const point of points)
  console.log(`after ${point.requests} requests: ${(point.anonymous / MiB).toFixed(1)} MiB anonymous`);
const at = (count) => points.find((point) => point.requests === count)?.anonymous ?? NaN;
console.log(
  `beyond pool and repacked weights, if the pool is touched in full: ${((points.at(-1).anonymous - pool - repacked) / MiB).toFixed(1)} MiB`,
);
console.log(`growth from request ${warm} to ${requests}: ${((at(requests) - at(warm)) / MiB).toFixed(2)} MiB`);
server.kill('SIGTERM');
await once(server, 'exit');
