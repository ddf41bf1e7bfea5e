import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ServerProcess, Workbench } from './processes.ts';

// Agents as a user meets them: the official client with default headers, real processes, real files, real signals.

const bench = new Workbench();
let model = '';
beforeAll(() => {
  model = bench.generateModel('generated');
});
afterAll(() => bench.remove());

const start = (name: string, ...args: string[]) =>
  // Empty is as if it was not set: agents lie in the cache directory, where they lie by default.
  ServerProcess.start(['--model', model, '--log-level', 'warn', '--cache-dir', bench.path(name), ...args], {
    KVASIR_MEMORY_DIR: '',
  });
const clientOf = (server: ServerProcess, agent: string) =>
  new OpenAI({
    baseURL: `${server.url}/v1`,
    apiKey: 'none',
    maxRetries: 0,
    defaultHeaders: { 'X-Agent-ID': agent },
  });
const untilLimit = (maxTokens: number) => ({ max_tokens: maxTokens, ignore_eos: true }) as { max_tokens: number };
const ask = (content: string) => ({ model: 'default', messages: [{ role: 'user' as const, content }] });

/** KVASIR_TEST_PYTHON names one that has the safetensors package. */
const runPython = (program: string) =>
  spawnSync(process.env['KVASIR_TEST_PYTHON'] ?? 'python3', ['-c', program], {
    cwd: bench.directory,
    encoding: 'utf8',
  });
const hasSafetensors = runPython('import safetensors, numpy').status === 0;
if (!hasSafetensors) process.stderr.write('SKIPPED: reading an export in Python, which has no safetensors package\n');

interface Agent {
  readonly tokens: number;
  readonly turns: number;
  readonly busy: boolean;
  readonly turn_ends: readonly { readonly tokens: number }[];
}

async function inspect(server: ServerProcess, name: string): Promise<Agent> {
  const response = await fetch(`${server.url}/v1/agents/${name}`);
  expect(response.status).toBe(200);
  return (await response.json()) as Agent;
}

interface Reused {
  readonly reused_tokens: number;
  readonly from: { readonly hot: number; readonly warm: number; readonly cold: number };
}

interface Told {
  readonly kvasir: { readonly prompt_hash: string; readonly cache: object };
}

describe('an agent', () => {
  it('has its tokens after SIGTERM, and the second turn begins with the first', async () => {
    const first = await start('term');
    const answer = await clientOf(first, 'ada').chat.completions.create({
      ...ask('Remember this.'),
      ...untilLimit(20),
      temperature: 0,
    });
    const { prompt_tokens: promptTokens } = answer.usage as OpenAI.CompletionUsage;
    const before = await inspect(first, 'ada');
    expect(before).toMatchObject({ tokens: promptTokens + 20, turns: 1, busy: false });
    first.signal('SIGTERM');
    expect(await first.exited).toEqual({ code: 0, signal: null });

    const second = await start('term');
    expect(await inspect(second, 'ada')).toMatchObject({ tokens: before.tokens, turns: 1 });
    const messages = [
      ...ask('Remember this.').messages,
      { role: 'assistant' as const, content: answer.choices[0]?.message.content ?? '' },
      { role: 'user' as const, content: 'What was it?' },
    ];
    const next = await clientOf(second, 'ada').chat.completions.create({
      model: 'default',
      messages,
      ...untilLimit(4),
    });
    // All of it but the token that was sampled last, which has no KV until it is an input.
    const { cache } = (next as unknown as Told).kvasir;
    expect(cache).toMatchObject({ reused_tokens: before.tokens - 1, from: { hot: 0, cold: before.tokens - 1 } });
    expect(next.usage?.prompt_tokens_details?.cached_tokens).toBe(before.tokens - 1);
    const after = await inspect(second, 'ada');
    expect(after.turns).toBe(2);
    // Nothing was rewound: the first turn still ends where it did.
    expect(after.turn_ends[0]?.tokens).toBe(before.tokens);
    await second.stop();
  });

  it('has its tokens when the process is killed right after the last event', async () => {
    for (let round = 0; round < 5; round += 1) {
      const server = await start('kill');
      const stream = await clientOf(server, 'bob').completions.create({
        model: 'default',
        prompt: [...Array(round + 1).keys()].map((index) => 97 + index),
        ...untilLimit(8),
        stream: true,
        stream_options: { include_usage: true },
      });
      let hash = '';
      for await (const chunk of stream) {
        hash ||= (chunk as unknown as Partial<Told>).kvasir?.prompt_hash ?? '';
        if (chunk.choices[0]?.finish_reason) server.signal('SIGKILL');
      }
      expect(hash).toMatch(/^[0-9a-f]{64}$/);
      expect(await server.exited).toMatchObject({ signal: 'SIGKILL' });
      const again = await start('kill');
      const { tokens, turn_ends: ends } = await inspect(again, 'bob');
      expect(tokens).toBe(round + 1 + 8);
      expect(ends.at(-1)?.tokens).toBe(tokens);
      again.signal('SIGKILL');
      await again.exited;
    }
  });

  it('keeps nothing of a turn that is cut short, by its client or by a kill', async () => {
    const server = await start('short');
    const client = clientOf(server, 'carl');
    const endless = { model: 'default', prompt: 'a', ...untilLimit(6000), stream: true } as const;
    const stream = await client.completions.create(endless);
    for await (const _chunk of stream) break;
    await server.idle();
    expect(await inspect(server, 'carl')).toMatchObject({ tokens: 0, turns: 0, busy: false });
    const killed = await client.completions.create(endless);
    const reading = (async () => {
      for await (const _chunk of killed) server.signal('SIGKILL');
    })();
    await expect(reading).rejects.toBeInstanceOf(Error);
    await server.exited;
    const again = await start('short');
    expect(await inspect(again, 'carl')).toMatchObject({ tokens: 0, turns: 0, busy: false });
    await again.stop();
  });

  it('runs one turn at a time, and others run beside it', async () => {
    const server = await start('line');
    const turns = Array.from({ length: 4 }, (_, index) =>
      clientOf(server, 'dora').completions.create({ model: 'default', prompt: [97, 98 + index], ...untilLimit(16) }),
    );
    const strangers = ['e', 'f'].map((name) =>
      clientOf(server, name).completions.create({ model: 'default', prompt: 'x', ...untilLimit(16) }),
    );
    await Promise.all([...turns, ...strangers]);
    expect(await inspect(server, 'dora')).toMatchObject({ tokens: 18, busy: false });
    const list = (await (await fetch(`${server.url}/v1/agents`)).json()) as { data: { name: string }[] };
    expect(list.data.map(({ name }) => name)).toEqual(['dora', 'e', 'f']);
    await server.stop();
  });

  it.each([
    ['warm', ['--warm-bytes', '256MiB']],
    ['cold', ['--warm-bytes', '0']],
  ] as const)('whose blocks others took has them again from the %s tier, and says the same', async (tier, args) => {
    const small = await start(tier, '--pool-tokens', '1024', '--restore', 'always', ...args);
    const large = await start(`${tier}-large`);
    const turn = async (server: ServerProcess, messages: OpenAI.ChatCompletionMessageParam[]) => {
      const body = { model: 'default', messages, ...untilLimit(16), temperature: 0.8, seed: 4, logprobs: true };
      const answer = await clientOf(server, 'ada').chat.completions.create(body);
      return { choice: answer.choices[0], ...(answer as unknown as { kvasir: { cache: Reused } }).kvasir.cache };
    };
    const first = ask(`Remember this. ${'It rained. '.repeat(50)}`).messages;
    const { choice } = await turn(small, first);
    expect((await turn(large, first)).choice).toEqual(choice);
    for (const letter of ['b', 'c']) {
      const stranger = { model: 'default', prompt: letter.repeat(900), ...untilLimit(4) };
      await clientOf(small, letter).completions.create(stranger);
    }
    const content = choice?.message.content ?? '';
    const next = [...first, { role: 'assistant' as const, content }, ...ask('What was it?').messages];
    const again = await turn(small, next);
    const hot = await turn(large, next);
    expect(again.choice).toEqual(hot.choice);
    expect(again.reused_tokens).toBe(hot.reused_tokens);
    expect(again.from[tier]).toBeGreaterThan(500);
    expect(hot.from.hot).toBe(hot.reused_tokens);
    await small.stop();
    await large.stop();
  });

  it('forks, rewinds, and moves to another server as a file', async () => {
    const server = await start('move');
    await clientOf(server, 'ada').completions.create({ model: 'default', prompt: [97, 98, 99], ...untilLimit(8) });
    const post = (path: string, body: object) =>
      fetch(`${server.url}/v1/agents/${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
    expect((await post('ada/fork', { name: 'fork', tokens: 5 })).status).toBe(201);
    expect((await post('fork/rewind', { tokens: 4 })).status).toBe(200);
    const exported = await fetch(`${server.url}/v1/agents/ada/export`);
    const file = new Uint8Array(await exported.arrayBuffer());
    const taken = await ServerProcess.start([
      '--model',
      model,
      '--memory-dir',
      bench.path('elsewhere'),
      '--cache-dir',
      bench.path('move'),
    ]);
    const imported = await fetch(`${taken.url}/v1/agents/moved/import`, { method: 'POST', body: file });
    expect([imported.status, await imported.json()]).toMatchObject([
      201,
      { agent: { name: 'moved', tokens: 11 }, blocks: 1, refused: [] },
    ]);
    await taken.stop();
    expect(await inspect(server, 'fork')).toMatchObject({ tokens: 4 });
    expect((await fetch(`${server.url}/v1/agents/ada`, { method: 'DELETE' })).status).toBe(200);
    expect(await inspect(server, 'fork')).toMatchObject({ tokens: 4 });
    await server.stop();

    writeFileSync(bench.path('ada.safetensors'), file);
    const read = runPython(READ);
    expect(read.stdout, read.stderr).toBe(hasSafetensors ? READ_OUTPUT : '');
  });

  it('of another model is refused by name, and the directory of a running server is not shared', async () => {
    const server = await start('models');
    await clientOf(server, 'ada').completions.create({ model: 'default', prompt: 'a', ...untilLimit(2) });
    const second = await start('models').then(
      () => 'started',
      (error: Error) => error.message,
    );
    expect(second).toMatch(/error cache-locked: /);
    await server.stop();
    const other = bench.generateModel('other', { numLayers: 1 } as never);
    const changed = await ServerProcess.start(['--model', other, '--cache-dir', bench.path('models')], {
      KVASIR_MEMORY_DIR: '',
    });
    const asking = clientOf(changed, 'ada').completions.create({ model: 'default', prompt: 'a', max_tokens: 1 });
    await expect(asking).rejects.toMatchObject({ status: 409, code: 'agent_other_model' });
    expect(await inspect(changed, 'ada')).toMatchObject({ turns: 1 });
    await changed.stop();
    const known = JSON.parse(readFileSync(bench.path('models/fingerprints.json'), 'utf8')) as object;
    expect(Object.values(known)).toHaveLength(2);
    rmSync(bench.path('models'), { recursive: true });
  });
});

const READ = `
from safetensors import safe_open
import json
with safe_open('ada.safetensors', 'np') as file:
    tokens = file.get_tensor('tokens')
    agent = json.loads(file.metadata()['agent'])
    block = file.get_tensor('block.0.0')
    numTokens = agent['blocks'][0]['numTokens']
    print(sorted(file.keys()), tokens[:3].tolist(), len(tokens), agent['name'])
    print(block.shape, block.dtype, bool(block[..., :numTokens, :].any()), bool(block[..., numTokens:, :].any()))
`;
const READ_OUTPUT = `['block.0.0', 'block.0.0.seal', 'seal', 'tokens'] [97, 98, 99] 11 ada
(2, 2, 2, 256, 64) float16 True False
`;
