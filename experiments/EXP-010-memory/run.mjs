// Anonymous memory of a serving process beyond the KV pool and declared copies of weights, and its growth over requests.
// See README.md.
import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, '../..');
const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    requests: { type: 'string', default: '1200' },
    endpoint: { type: 'string', default: 'chat/completions' }, // completions: for a model without a chat template
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
  '--memory-dir',
  'none',
  '--log-level',
  'warn',
];
if (options.model !== undefined) args.push('--model', options.model);
const server = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });

const reports = new EventEmitter();
createInterface({ input: server.stderr }).on('line', (line) => {
  if (line.startsWith('MEMORY ')) reports.emit('report', JSON.parse(line.slice(7)));
  else console.error(line);
});

let announced = '';
let port;
for await (const chunk of server.stdout) {
  announced += chunk;
  port = /127\.0\.0\.1:(\d+)/.exec(announced)?.[1];
  if (port !== undefined) break;
}
server.stdout.resume();

const MiB = 2 ** 20;
const fixed = (bytes) => (bytes / MiB).toFixed(1);
const metric = async (name) => {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const line = text.split('\n').find((candidate) => candidate.startsWith(name));
  return line === undefined ? NaN : Number(line.split(' ').at(-1));
};
const pool = await metric('kvasir_kv_pool_bytes');
const repacked = await metric('kvasir_weights_repacked_bytes');

/** Resident anonymous bytes: all, and those of the mapping that holds the KV pool. */
function anonymous() {
  let all = 0;
  let ofPool = 0;
  for (const mapping of readFileSync(`/proc/${server.pid}/smaps`, 'utf8').split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/)) {
    const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+)/.exec(mapping);
    const bytes = Number(/^Anonymous:\s+(\d+) kB/m.exec(mapping)?.[1] ?? 0) * 1024;
    all += bytes;
    if (
      Number(BigInt(`0x${to}`) - BigInt(`0x${from}`)) >= pool &&
      /^\S+ \S+ 0+ 00:00 0\s*$/m.test(mapping.split('\n')[0])
    )
      ofPool += bytes;
  }
  return { all, ofPool };
}

/** Collects garbage, and takes the least of three readings: what a heap keeps for a moment is no growth. */
async function collected() {
  let least = null;
  for (let i = 0; i < 3; i++) {
    const answered = once(reports, 'report');
    server.kill('SIGUSR2');
    const [js] = await answered;
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const reading = { ...anonymous(), js: js.heapUsed + js.external };
    if (least === null || reading.all < least.all) least = reading;
  }
  return least;
}
async function one(i) {
  const prompt = `Tell me about the prince, number ${i}.`;
  const body = {
    model: 'default',
    ...(options.endpoint === 'chat/completions' ? { messages: [{ role: 'user', content: prompt }] } : { prompt }),
    max_tokens: 16 + (i % 5),
    stream: i % 2 === 0,
    seed: i,
  };
  const response = await fetch(`http://127.0.0.1:${port}/v1/${options.endpoint}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${response.status}: ${text}`);
}

const show = (name, { all, ofPool, js }) =>
  console.log(
    `${name}: ${fixed(all)} MiB anonymous, ${fixed(all - ofPool)} beyond the pool's touched part; JavaScript uses ${fixed(js)}`,
  );
console.log(`pool ${fixed(pool)} MiB, repacked weights ${fixed(repacked)} MiB`);
show('at start', await collected());
const points = new Map();
for (let done = 0; done < requests; done += 8) {
  await Promise.all(Array.from({ length: 8 }, (_, i) => one(done + i)));
  if ((done + 8) % 200 !== 0) continue;
  const reading = await collected();
  points.set(done + 8, reading);
  show(`after ${done + 8} requests`, reading);
}
const beyond = ({ all, ofPool }) => all - ofPool - repacked;
const last = points.get(requests);
console.log(`beyond pool and repacked weights: ${fixed(beyond(last))} MiB`);
console.log(`growth from request ${warm} to ${requests}: ${fixed(beyond(last) - beyond(points.get(warm)))} MiB`);
server.kill('SIGTERM');
await once(server, 'exit');
