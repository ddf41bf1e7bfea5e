import { createHash } from 'node:crypto';
import { isCudaAvailable } from '@kvasir/adapter-cuda';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Health, ServerProcess, Workbench } from './processes.ts';

// An agent that moves between servers whose numerics differ: a GPU and a CPU where there is a device, else a CPU with other
// activations. KV is of one layout for all of them; whose numbers it holds is what the importer is asked about.

const bench = new Workbench();
const AWAY = isCudaAvailable() ? ['--backend', 'cuda'] : ['--backend', 'cpu', '--activations', 'float'];
const POOL = ['--pool-tokens', '16384', '--log-level', 'warn'];
let away: ServerProcess;
let home: ServerProcess;
beforeAll(async () => {
  const model = ['--model', bench.generateModel('travelled'), '--cache-dir', bench.path('cache')];
  const start = (name: string, args: readonly string[]) =>
    ServerProcess.start([...model, ...POOL, '--memory-dir', bench.path(name), ...args], { KVASIR_MEMORY_DIR: '' });
  away = await start('away', AWAY);
  home = await start('home', ['--backend', 'cpu']);
});
afterAll(async () => {
  await away.stop();
  await home.stop();
  bench.remove();
});

const STORY = { role: 'user' as const, content: `Remember this. ${'It rained for a day. '.repeat(60)}` };
const QUESTION = { role: 'user' as const, content: 'What was it?' };
const LENGTH = { max_tokens: 12, ignore_eos: true, temperature: 0, logprobs: true } as { max_tokens: number };

interface Cache {
  readonly reused_tokens: number;
}
/** One greedy turn: its words with their log-probabilities, and what was reused for it. */
async function turn(server: ServerProcess, agent: string | null, messages: OpenAI.ChatCompletionMessageParam[]) {
  const defaultHeaders = agent === null ? {} : { 'X-Agent-ID': agent };
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0, defaultHeaders });
  const answer = await client.chat.completions.create({ model: 'default', messages, ...LENGTH });
  const [choice] = answer.choices;
  const { cache } = (answer as unknown as { kvasir: { cache: Cache } }).kvasir;
  return {
    content: choice?.message.content ?? '',
    logprobs: (choice?.logprobs?.content ?? []).map(({ logprob }) => logprob),
    tokens: answer.usage?.total_tokens ?? 0,
    reused: cache.reused_tokens,
  };
}
const numericsOf = async (server: ServerProcess) =>
  ((await server.health()) as Health & { readonly numericsId: string }).numericsId;
async function agentOf(server: ServerProcess, name: string) {
  const response = await fetch(`${server.url}/v1/agents/${name}`);
  return (await response.json()) as { readonly model: { readonly numerics_id: string } };
}

const exportOf = async (server: ServerProcess, name: string) =>
  Buffer.from(await (await fetch(`${server.url}/v1/agents/${name}/export`)).arrayBuffer());
async function importTo(server: ServerProcess, name: string, file: Uint8Array, query = '') {
  const url = `${server.url}/v1/agents/${name}/import${query}`;
  const response = await fetch(url, { method: 'POST', body: new Uint8Array(file) });
  expect(response.status).toBe(201);
  return (await response.json()) as { agent: { tokens: number }; blocks: number; refused: { reason: string }[] };
}
const ACCEPTING = '?accept_numerics=true';

/** Of a safetensors file: hashes of every block of KV, by name. */
function blocksOf(file: Buffer): Map<string, string> {
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes)) as Record<
    string,
    { data_offsets?: [number, number] }
  >;
  const data = file.subarray(8 + headerBytes);
  return new Map(
    Object.entries(header)
      .filter(([name]) => /^block\.\d+\.\d+$/.test(name))
      .map(([name, { data_offsets: [begin, end] = [0, 0] }]) => [
        name,
        createHash('sha256').update(data.subarray(begin, end)).digest('hex'),
      ]),
  );
}

describe('an agent among servers of other numerics', () => {
  it.each([
    ['there and back', () => [away, home] as const],
    ['the other way round', () => [home, away] as const],
  ])('keeps tokens and, where that is accepted, KV to the byte: %s', async (name, servers) => {
    const [origin, abroad] = servers();
    const ids = [await numericsOf(origin), await numericsOf(abroad)];
    expect(ids[0]).not.toBe(ids[1]);
    const ada = `ada ${name.length}`.replace(' ', '-');
    const first = await turn(origin, ada, [STORY]);
    const file = await exportOf(origin, ada);
    const there = await importTo(abroad, `${ada}-guest`, file, ACCEPTING);
    expect(there).toMatchObject({ agent: { tokens: first.tokens }, refused: [] });
    expect(there.blocks).toBe(Math.ceil((first.tokens - 1) / 256));
    expect((await agentOf(abroad, `${ada}-guest`)).model.numerics_id).toBe(`${ids[1]} importing ${ids[0]}`);

    const carried = blocksOf(await exportOf(abroad, `${ada}-guest`));
    expect(carried.size).toBe(there.blocks);
    expect(carried).toEqual(blocksOf(file));
    expect(new Set(carried.values()).size).toBe(there.blocks);

    const back = await importTo(origin, `${ada}-back`, await exportOf(abroad, `${ada}-guest`), ACCEPTING);
    expect(back).toMatchObject({ agent: { tokens: first.tokens }, blocks: there.blocks, refused: [] });
    const messages = [STORY, { role: 'assistant' as const, content: first.content }, QUESTION];
    const stayed = await turn(origin, ada, messages);
    const returned = await turn(origin, `${ada}-back`, messages);
    // The same bytes of KV: the same words, to the last bit of their probabilities.
    expect(returned).toEqual(stayed);
    expect(stayed.reused).toBe(first.tokens - 1);
    // Abroad it goes on from all of its KV, and says what it would say at home as far as the model is sure.
    const guest = await turn(abroad, `${ada}-guest`, messages);
    expect(guest.reused).toBe(first.tokens - 1);
    expect(Math.abs((guest.logprobs[0] ?? 0) - (stayed.logprobs[0] ?? 1))).toBeLessThan(0.05);
  });

  it.each([
    ['to the second', () => [away, home] as const],
    ['to the first', () => [home, away] as const],
  ])(
    'keeps its tokens alone where that is not accepted, and answers as one who was never elsewhere: %s',
    async (name, servers) => {
      const [origin, abroad] = servers();
      const bob = `bob-${name.length}`;
      const first = await turn(origin, bob, [STORY]);
      const imported = await importTo(abroad, `${bob}-guest`, await exportOf(origin, bob));
      const ids = [await numericsOf(origin), await numericsOf(abroad)];
      expect(imported).toMatchObject({ agent: { tokens: first.tokens }, blocks: 0 });
      expect(imported.refused.map(({ reason }) => reason)).toEqual([
        `numericsId: expected ${ids[1]}, found ${ids[0]}; accept other numerics to take them`,
      ]);
      expect((await agentOf(abroad, `${bob}-guest`)).model.numerics_id).toBe(ids[1]);
      const messages = [STORY, { role: 'assistant' as const, content: first.content }, QUESTION];
      const guest = await turn(abroad, `${bob}-guest`, messages);
      const native = await turn(abroad, null, messages);
      expect({ ...guest, reused: 0 }).toEqual({ ...native, reused: 0 });
    },
  );
});
