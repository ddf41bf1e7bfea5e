// Decode of 1 and 8 streams and an agent's hot resumption over HTTP, against a server of its own. See README.md.
//   node http.mjs --model m.gguf [--backend cuda] [--context 32000] [--flat 1000] [--out r.json]      the model needs a chat template
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { summary } from '../support/report.mjs';
import { deviceProbe, flat } from './flat.mjs';

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    backend: { type: 'string', default: 'cuda' },
    context: { type: 'string', default: '32000' },
    gen: { type: 'string', default: '128' },
    rounds: { type: 'string', default: '5' },
    turns: { type: 'string', default: '9' },
    streams: { type: 'string', default: '1,8' },
    flat: { type: 'string', default: '0' },
    'batch-tokens': { type: 'string', default: '2048' },
    activations: { type: 'string', default: 'quantized' },
    // Ordinary text in GPT-2's vocabulary: random weights answer with what no client could send back as it was.
    word: { type: 'string', default: '262' },
    commit: { type: 'string', default: 'unknown' },
    out: { type: 'string' },
  },
});
const gen = Number(options.gen);
const directory = mkdtempSync(path.join(os.tmpdir(), 'kvasir-http-'));
const main = path.resolve(import.meta.dirname, '../../apps/server/dist/main.js');
const serverArguments = ['serve', '--port', '0', '--backend', options.backend, '--model', options.model];
serverArguments.push('--cache-dir', directory, '--max-batch-tokens', options['batch-tokens']);
serverArguments.push('--activations', options.activations);
const probe = Number(options.flat) > 0 ? await deviceProbe(options.model) : null;
const freeBefore = await probe?.();
const started = performance.now();
const server = spawn(process.execPath, [main, ...serverArguments], { stdio: ['ignore', 'pipe', 'pipe'] });
let log = '';
server.stderr.on('data', (chunk) => (log += chunk));
let announced = '';
let port;
server.once('exit', (code) => {
  if (port === undefined) throw new Error(`expected the server to listen, found it ended with ${code}: ${log}`);
});
for await (const chunk of server.stdout) {
  announced += chunk;
  port = /127\.0\.0\.1:(\d+)/.exec(announced)?.[1];
  if (port !== undefined) break;
}
server.stdout.resume();
const agent = new Agent({ keepAlive: true });

/**
 * @param isCut the connection is broken off at the first byte
 * @returns when the first and the last byte came, and the body
 */
function post(where, body, headers = {}, isCut = false) {
  const text = JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const begin = performance.now();
    const outgoing = request(
      {
        agent,
        port,
        host: '127.0.0.1',
        path: where,
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
      },
      (response) => {
        const arrivals = [];
        let answer = '';
        response.setEncoding('utf8');
        response.on('data', (chunk) => {
          answer += chunk;
          arrivals.push(performance.now());
          if (isCut) resolve(outgoing.destroy());
        });
        response.on('error', reject);
        response.on('end', () => {
          if (response.statusCode !== 200) return reject(new Error(`${response.statusCode}: ${answer.slice(0, 500)}`));
          resolve({ begin, first: arrivals[0], last: arrivals.at(-1), answer, sentBytes: text.length });
        });
      },
    );
    outgoing.on('error', reject);
    outgoing.end(text);
  });
}
const common = {
  commit: options.commit,
  model: path.basename(options.model),
  server: serverArguments
    .slice(3)
    .map((argument) => path.basename(argument))
    .join(' '),
  date: new Date().toISOString(),
};
function tell(what, row) {
  console.log(JSON.stringify({ what, ...row }));
  if (options.out !== undefined) appendFileSync(options.out, `${JSON.stringify({ what, ...row, ...common })}\n`);
}
const health = async () => (await fetch(`http://127.0.0.1:${port}/health`)).json();
const atStart = await health();
tell('http start', {
  seconds: (performance.now() - started) / 1000,
  backend: atStart.backend,
  device: atStart.device,
  numericsId: atStart.numericsId,
  memory: atStart.memory,
  blocks: atStart.blocks,
});

/** Tokens a second of all streams while all of them decode. */
async function decode(streams) {
  const one = (i) =>
    post('/v1/completions', {
      model: 'default',
      prompt: Array.from({ length: 512 }, (_, t) => ((i * 131 + t * 17) % 400) + 10),
      max_tokens: gen,
      temperature: 0,
      ignore_eos: true,
      stream: true,
      stream_options: { include_usage: true },
    });
  const rates = [];
  for (let round = 0; round <= Number(options.rounds); round += 1) {
    const done = await Promise.all(Array.from({ length: streams }, (_, i) => one(i)));
    const from = Math.max(...done.map(({ first }) => first));
    const to = Math.max(...done.map(({ last }) => last));
    const tokens = done.reduce((sum, { answer }) => sum + Number(/"completion_tokens":(\d+)/.exec(answer)[1]) - 1, 0);
    if (round > 0) rates.push((tokens * 1000) / (to - from)); // the first computes the prompts
  }
  tell('http decode', { streams, prompt: 512, gen, tokensPerSecond: summary(rates, 1) });
}
// An agent's second and later turns: every one sends all messages so far, and asks for one token.
const WORDS = [
  'river',
  'stone',
  'window',
  'garden',
  'light',
  'paper',
  'winter',
  'morning',
  'house',
  'water',
  'road',
  'letter',
];
let state = 7;
const word = () => WORDS[(state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) % WORDS.length];
const story = Array.from({ length: Number(options.context) }, word).join(' ');
async function hotResume() {
  const messages = [{ role: 'user', content: story }];
  const times = { first: [], whole: [] };
  const cache = [];
  const headers = { 'x-agent-id': 'resumed' };
  for (let turn = 0; turn <= Number(options.turns); turn += 1) {
    const body = { model: 'default', messages, max_tokens: 1, temperature: 0, ignore_eos: true };
    body.logit_bias = { [options.word]: 100 };
    const sent = performance.now();
    const { begin, first, last, answer, sentBytes } = await post('/v1/chat/completions', body, headers);
    const { choices, usage, kvasir } = JSON.parse(answer);
    if (turn > 0) {
      times.first.push(first - begin);
      times.whole.push(last - sent);
    }
    cache.push({
      promptTokens: usage.prompt_tokens,
      reusedTokens: kvasir.cache.reused_tokens,
      from: kvasir.cache.from,
      sentBytes,
      ms: Number((last - sent).toFixed(2)),
    });
    messages.push({ role: 'assistant', content: choices[0].message.content });
    messages.push({ role: 'user', content: `And ${word()}?` });
  }
  tell('http hot resume', {
    firstByteMs: summary(times.first, 2),
    wholeAnswerMs: summary(times.whole, 2),
    turns: cache,
  });
}
for (const streams of options.streams.split(',').filter(Boolean)) await decode(Number(streams));
if (probe !== null) {
  const send = (...sent) => post('/v1/completions', ...sent);
  const idle = async () => {
    for (;;) {
      const { running, waiting, stepsInFlight } = await health();
      if (running + waiting + stepsInFlight === 0) return;
    }
  };
  const row = await flat({ requests: Number(options.flat), send, health, idle, probe, freeBefore, pid: server.pid });
  tell('http flat', row);
}
if (Number(options.turns) > 0) await hotResume();

tell('http end', {
  memory: (await health()).memory,
  log: log
    .split('\n')
    .filter((line) => line.includes('model-loaded'))
    .slice(0, 1),
});
agent.destroy();
server.kill('SIGTERM');
await once(server, 'exit');
rmSync(directory, { recursive: true, force: true });
