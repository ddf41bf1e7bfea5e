// How long streams and /health wait while others make the server work: a 4K prompt beside running streams, a megabyte of
// text, a chat template that never ends. See README.md.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    threads: { type: 'string', default: '2' },
    streams: { type: 'string', default: '4' },
  },
});
const streams = Number(options.streams);

async function serve(model, extra = []) {
  const args = [
    path.join(root, 'apps/server/dist/main.js'),
    'serve',
    '--port',
    '0',
    '--memory-dir',
    'none',
    '--log-level',
    'error',
    '--threads',
    options.threads,
    ...extra,
  ];
  if (model !== undefined) args.push('--model', model);
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  for await (const chunk of child.stdout) {
    text += chunk;
    const port = /127\.0\.0\.1:(\d+)/.exec(text)?.[1];
    if (port !== undefined) return { child, port: Number(port) };
  }
  throw new Error(`the server ended before it was ready: ${text}`);
}

/** Posts a body and reports when chunks arrive; resolves with status and the gaps between content chunks. */
function post(port, route, body, onChunk = () => {}) {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      { port, host: '127.0.0.1', path: route, method: 'POST', headers: { 'content-type': 'application/json' } },
      (response) => {
        let size = 0;
        const text = [];
        response.on('data', (chunk) => {
          size += chunk.length;
          if (text.length < 4) text.push(chunk.toString());
          onChunk(performance.now());
        });
        response.on('end', () => resolve({ status: response.statusCode, size, text: text.join('') }));
        response.on('error', reject);
      },
    );
    outgoing.on('error', reject);
    outgoing.end(typeof body === 'string' ? body : JSON.stringify(body));
  });
}

/** Streams that run until told to stop, with every arrival noted. */
function startStreams(port, count, tokens) {
  const arrivals = Array.from({ length: count }, () => []);
  const done = arrivals.map((list, i) =>
    post(
      port,
      '/v1/completions',
      {
        model: 'default',
        prompt: [5 + i, 7, 9, 11],
        max_tokens: tokens,
        temperature: 1,
        seed: i,
        logit_bias: bans,
        stream: true,
      },
      (at) => list.push(at),
    ),
  );
  return { arrivals, done };
}
/** End-of-text ids that must not end a measured stream early. */
let bans = {};

const gapsBetween = (arrivals, from, to) =>
  arrivals
    .flatMap((list) => list.slice(1).map((at, i) => ({ at, gap: at - list[i] })))
    .filter(({ at }) => at >= from && at <= to)
    .map(({ gap }) => gap);
const largest = (gaps) => Math.max(0, ...gaps);
const quantile = (gaps, q) => [...gaps].sort((a, b) => a - b)[Math.floor(q * (gaps.length - 1))] ?? NaN;
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function watchHealth(port, until) {
  const times = [];
  while (!until.done) {
    const start = performance.now();
    const response = await fetch(`http://127.0.0.1:${port}/health`);
    await response.text();
    times.push(performance.now() - start);
    await wait(20);
  }
  return times;
}

// A token that only begins a character brings no text: such a stream waits for two steps, and only `anyone` shows one.
const report = (name, gaps, health = [], anyone = []) =>
  console.log(
    `${name}: ${anyone.length > 0 ? `largest gap between any two events ${largest(anyone).toFixed(1)} ms; ` : ''}gaps of a stream median ${quantile(gaps, 0.5).toFixed(1)} ms, p95 ${quantile(gaps, 0.95).toFixed(1)}, largest ${largest(gaps).toFixed(1)} (${gaps.length} gaps)` +
      (health.length > 0
        ? `; /health median ${quantile(health, 0.5).toFixed(1)} ms, largest ${largest(health).toFixed(1)} (${health.length} calls)`
        : ''),
  );

async function measure(model) {
  const { child, port } = await serve(model, ['--context-length', '8192', '--pool-tokens', '16384']);
  const stepBefore = await budgetedStep(port);
  console.log(`a budgeted step takes about ${stepBefore.toFixed(1)} ms`);

  for (const scenario of ['nothing else', '4K prompt', '1 MB of text']) {
    const { arrivals, done } = startStreams(port, streams, 400);
    while (arrivals.some((list) => list.length < 20)) await wait(10);
    const state = { done: false };
    const health = watchHealth(port, state);
    const from = performance.now();
    if (scenario === '4K prompt') {
      await post(port, '/v1/completions', {
        model: 'default',
        prompt: Array.from({ length: 4096 }, (_, i) => (i * 31) % 250),
        max_tokens: 1,
      });
    } else if (scenario === '1 MB of text') {
      const answer = await post(port, '/v1/chat/completions', {
        model: 'default',
        max_tokens: 1,
        messages: [{ role: 'user', content: 'It was a fine day, and 42 people walked. '.repeat(26_000) }],
      });
      console.log(`  the megabyte was answered with ${answer.status}`);
    } else await wait(1500);
    const to = performance.now();
    state.done = true;
    report(
      scenario,
      gapsBetween(arrivals, from, to),
      await health,
      gapsBetween([arrivals.flat().sort((a, b) => a - b)], from, to),
    );
    await Promise.all(done);
  }
  child.kill('SIGTERM');
  await once(child, 'exit');
}

/** Prefill alone: time of one full step = prompt tokens of a step over the prefill rate. */
async function budgetedStep(port) {
  const times = [];
  for (let i = 0; i < 3; i++) {
    const prompt = Array.from({ length: 512 }, (_, t) => (t * 7 + i) % 250);
    const start = performance.now();
    await post(port, '/v1/completions', { model: 'default', prompt, max_tokens: 1 });
    times.push(performance.now() - start);
  }
  return quantile(times, 0.5);
}

/** The same model with a template that loops for ever. */
async function loopingTemplate(model) {
  const folder = mkdtempSync(path.join(tmpdir(), 'kvasir-looping-'));
  const file = path.join(folder, 'looping.gguf');
  writeFileSync(
    file,
    withTemplate(
      readFileSync(model),
      '{% for a in range(100000) %}{% for b in range(100000) %}{% set c = a * b %}{% endfor %}{% endfor %}',
    ),
  );
  const { child, port } = await serve(file, ['--context-length', '2048', '--pool-tokens', '16384']);
  const { arrivals, done } = startStreams(port, streams, 400);
  while (arrivals.some((list) => list.length < 20)) await wait(10);
  const state = { done: false };
  const health = watchHealth(port, state);
  const from = performance.now();
  const answer = await post(port, '/v1/chat/completions', {
    model: 'default',
    max_tokens: 1,
    messages: [{ role: 'user', content: 'Hello' }],
  });
  const to = performance.now();
  state.done = true;
  console.log(
    `the looping template was answered with ${answer.status} after ${((to - from) / 1000).toFixed(1)} s: ${answer.text.slice(0, 160)}`,
  );
  report(
    'looping template',
    gapsBetween(arrivals, from, to),
    await health,
    gapsBetween([arrivals.flat().sort((a, b) => a - b)], from, to),
  );
  await Promise.all(done);
  child.kill('SIGTERM');
  await once(child, 'exit');
  rmSync(folder, { recursive: true });
}

/** Puts another chat template of at most the same length into a GGUF file, padded with spaces. */
function withTemplate(file, template) {
  const key = Buffer.from('tokenizer.chat_template');
  const at = file.indexOf(key) + key.length + 4;
  const length = Number(file.readBigUint64LE(at));
  if (Buffer.byteLength(template) > length)
    throw new Error(`the model's template has ${length} bytes, too few for the looping one`);
  const changed = Buffer.from(file);
  changed.write(template.padEnd(length), at + 8);
  return changed;
}

const model = options.model ?? path.join(root, 'models', readModelName());
function readModelName() {
  const { stdout } = { stdout: readFileSync(path.join(root, 'models/README.md'), 'utf8') };
  return /[\w.-]+\.gguf/.exec(stdout)[0];
}
bans = {};
await measure(model);
await loopingTemplate(model);
