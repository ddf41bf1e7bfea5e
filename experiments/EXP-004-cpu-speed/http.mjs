// The same decode load through HTTP and through the batch engine, taking turns: what the server costs. See README.md.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { request } from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const main = path.join(root, 'apps/server/dist/main.js');
const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    threads: { type: 'string', default: '2' },
    streams: { type: 'string', default: '1,8' },
    gen: { type: 'string', default: '128' },
    rounds: { type: 'string', default: '5' },
  },
});
if (options.model === undefined) {
  console.error('usage: http.mjs --model model.gguf [--streams 1,8] [--gen 128] [--rounds 5]');
  process.exit(2);
}
const gen = Number(options.gen);
const DEPTH = 128;
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

function engineRate(streams) {
  const result = spawnSync(
    process.execPath,
    [
      main,
      'bench',
      '--model',
      options.model,
      '--threads',
      options.threads,
      '--json',
      '-r',
      '1',
      '-p',
      '0',
      '-n',
      options.gen,
      '-d',
      String(DEPTH),
      '-b',
      String(streams),
    ],
    { encoding: 'utf8' },
  );
  if (result.status !== 0) throw new Error(result.stderr);
  return JSON.parse(result.stdout).tests[0].mean;
}

/** Reads one streamed completion; returns when each chunk arrived. */
function stream(port, prompt) {
  const body = JSON.stringify({
    model: 'default',
    prompt,
    max_tokens: gen,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
  });
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        port,
        host: '127.0.0.1',
        path: '/v1/completions',
        method: 'POST',
        headers: { 'content-type': 'application/json' },
      },
      (response) => {
        const arrivals = [];
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk) => {
          text += chunk;
          arrivals.push(performance.now());
        });
        response.on('end', () => {
          const usage = /"completion_tokens":(\d+)/.exec(text);
          if (response.statusCode !== 200 || usage === null)
            return reject(new Error(`${response.statusCode}: ${text.slice(0, 500)}`));
          resolve({ first: arrivals[0], last: arrivals.at(-1), tokens: Number(usage[1]) });
        });
        response.on('error', reject);
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

/** Tokens a second of all streams while all of them decode, as the bench counts them. */
async function httpRate(port, streams) {
  const prompt = (i) => Array.from({ length: DEPTH }, (_, t) => ((i * 131 + t * 17) % 400) + 10);
  const done = await Promise.all(Array.from({ length: streams }, (_, i) => stream(port, prompt(i))));
  const from = Math.max(...done.map(({ first }) => first));
  const to = Math.max(...done.map(({ last }) => last));
  const tokens = done.reduce((sum, each) => sum + each.tokens - 1, 0);
  return tokens / ((to - from) / 1000);
}

const server = spawn(
  process.execPath,
  [
    main,
    'serve',
    '--model',
    options.model,
    '--port',
    '0',
    '--threads',
    options.threads,
    '--memory-dir',
    'none',
    '--log-level',
    'warn',
    '--context-length',
    '4096',
    '--pool-tokens',
    '8192',
  ],
  { stdio: ['ignore', 'pipe', 'inherit'] },
);
let announced = '';
let port;
for await (const chunk of server.stdout) {
  announced += chunk;
  port = /127\.0\.0\.1:(\d+)/.exec(announced)?.[1];
  if (port !== undefined) break;
}
console.log('| streams | engine t/s | HTTP t/s | HTTP / engine |\n|---:|---:|---:|---:|');
for (const streams of options.streams.split(',').map(Number)) {
  await httpRate(port, streams);
  const pairs = [];
  for (let round = 0; round < Number(options.rounds); round++)
    pairs.push([engineRate(streams), await httpRate(port, streams)]);
  const ratio = median(pairs.map(([engine, http]) => http / engine));
  console.log(
    `| ${streams} | ${median(pairs.map(([engine]) => engine)).toFixed(1)} | ${median(pairs.map(([, http]) => http)).toFixed(1)} | ${ratio.toFixed(3)} |`,
  );
}
server.kill('SIGTERM');
await once(server, 'exit');
