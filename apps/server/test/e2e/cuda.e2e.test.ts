import { isCudaAvailable } from '@kvasir/adapter-cuda';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { leakedBlocks, ServerProcess, Workbench } from './processes.ts';

// The server on a GPU with the bundled model, as a user starts it, beside the same server on the CPU.

const hasDevice = isCudaAvailable();
const bench = new Workbench();
afterAll(() => bench.remove());

const start = (backend: 'cuda' | 'cpu', name: string, ...args: string[]) =>
  ServerProcess.start(
    ['--backend', backend, '--cache-dir', bench.path('cache'), '--memory-dir', bench.path(name), ...args],
    // Empty is as if it was not set: the flag decides.
    { KVASIR_MEMORY_DIR: '' },
  );
const SMALL_POOL = ['--pool-tokens', '65536', '--log-level', 'warn'];
const clientOf = (server: ServerProcess, agent: string) =>
  new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0, defaultHeaders: { 'X-Agent-ID': agent } });
const ask = (content: string) => ({ model: 'default', messages: [{ role: 'user' as const, content }] });
const untilLimit = (maxTokens: number) => ({ max_tokens: maxTokens, ignore_eos: true }) as { max_tokens: number };
const TOKENS = 48;

interface Said {
  readonly text: string;
  /** Of each token: itself, its log-probability and the runner-up's. */
  readonly tokens: readonly { readonly token: string; readonly logprob: number; readonly next: number }[];
}

async function greedy(client: OpenAI, question: string): Promise<Said> {
  const stream = await client.chat.completions.create({
    ...ask(question),
    ...untilLimit(TOKENS),
    temperature: 0,
    logprobs: true,
    top_logprobs: 2,
    stream: true,
  });
  let text = '';
  const tokens: Said['tokens'][number][] = [];
  for await (const chunk of stream) {
    const [choice] = chunk.choices;
    text += choice?.delta.content ?? '';
    for (const { token, logprob, top_logprobs: top } of choice?.logprobs?.content ?? []) {
      tokens.push({ token, logprob, next: top[1]?.logprob ?? Number.NEGATIVE_INFINITY });
    }
  }
  return { text, tokens };
}

/** A choice this close may fall either way: the CPU rounds activations to 8 bits, the device to f16. Seen: 0.022. */
const UNDECIDED = 0.05;

interface WithMemory {
  readonly memory: Readonly<Record<string, number>>;
}
const memoryOf = async (server: ServerProcess) => ((await server.health()) as unknown as WithMemory).memory;

describe.runIf(hasDevice)('the server on a GPU', () => {
  let cuda: ServerProcess;
  let cpu: ServerProcess;
  beforeAll(async () => {
    cuda = await start('cuda', 'cuda', ...SMALL_POOL);
    cpu = await start('cpu', 'cpu', ...SMALL_POOL);
  });
  afterAll(async () => {
    await cuda.stop();
    await cpu.stop();
  });

  it('streams the words the CPU says, as far as the CPU is sure of them, and the same ones twice', async () => {
    for (const question of ['Tell me a story about a fox.', 'Who lives in the old house?', 'What did the king say?']) {
      const first = await greedy(cuda.client(), question);
      expect(first.tokens).toHaveLength(TOKENS);
      expect(await greedy(cuda.client(), question)).toEqual(first);
      const expected = await greedy(cpu.client(), question);
      const at = expected.tokens.findIndex(({ token }, index) => token !== first.tokens[index]?.token);
      const { logprob = 0, next = 0 } = expected.tokens[at] ?? {};
      expect(logprob - next, `token ${at} of ${question}`).toBeLessThan(UNDECIDED);
      const alike = expected.tokens.slice(0, at < 0 ? TOKENS : at);
      for (const [index, token] of alike.entries()) {
        expect(Math.abs(token.logprob - (first.tokens[index]?.logprob ?? 0))).toBeLessThan(UNDECIDED);
      }
    }
  });

  it('says the same alone and beside 31 others, greedy and sampled', async () => {
    for (const temperature of [0, 0.9]) {
      const one = (index: number) =>
        cuda.client().chat.completions.create({
          ...ask(`Tell me about number ${index}. ${'And then? '.repeat(index)}`),
          ...untilLimit(TOKENS),
          temperature,
          seed: 5,
          logprobs: true,
        });
      const alone = await one(7);
      const together = await Promise.all(Array.from({ length: 32 }, (_, index) => one(index)));
      expect(together[7]?.choices).toEqual(alone.choices);
      expect(new Set(together.map(({ choices }) => choices[0]?.message.content)).size).toBeGreaterThan(16);
    }
    expect(leakedBlocks(await cuda.idle())).toBe(0);
  });

  it('reports its memory by purpose, and that it lies where it should', async () => {
    const { weightsRepackedBytes, kvPoolBytes, workspaceBytes, pinnedBytes, residencyChecks, residencyFailures } =
      await memoryOf(cuda);
    for (const bytes of [weightsRepackedBytes, kvPoolBytes, workspaceBytes, pinnedBytes, residencyChecks]) {
      expect(bytes).toBeGreaterThan(0);
    }
    expect(residencyFailures).toBe(0);
    const metrics = await (await fetch(`${cuda.url}/metrics`)).text();
    expect(metrics).toContain(`kvasir_kv_pool_bytes ${kvPoolBytes}`);
    expect(metrics).toContain('kvasir_residency_failures_total 0');
  });
});

describe.runIf(hasDevice)('a server on a GPU that is started again', () => {
  it('finds its agents with their KV, and sizes its pool by what is left of the device', async () => {
    const first = await start('cuda', 'again', '--gpu-memory-utilization', '0.3');
    const { kvPoolBytes = 0, weightsRepackedBytes = 0, workspaceBytes = 0 } = await memoryOf(first);
    const told = first.output.stderr();
    const deviceBytes = Number(/"deviceBytes":(\d+)/.exec(told)?.[1]);
    const share = (kvPoolBytes + weightsRepackedBytes + workspaceBytes) / deviceBytes;
    expect(share, told).toBeGreaterThan(0.28);
    expect(share).toBeLessThanOrEqual(0.3);
    const story = `Remember this. ${'It rained. '.repeat(120)}`;
    const answer = await clientOf(first, 'ada').chat.completions.create({
      ...ask(story),
      ...untilLimit(8),
      temperature: 0,
    });
    await first.stop();
    const second = await start('cuda', 'again', ...SMALL_POOL);
    const next = await clientOf(second, 'ada').chat.completions.create({
      model: 'default',
      messages: [
        ...ask(story).messages,
        { role: 'assistant', content: answer.choices[0]?.message.content ?? '' },
        { role: 'user', content: 'What was it?' },
      ],
      ...untilLimit(4),
    });
    const { cache } = (next as unknown as { kvasir: { cache: { from: { cold: number } } } }).kvasir;
    expect(cache.from.cold).toBe((answer.usage?.total_tokens ?? 0) - 1);
    await second.stop();
  });

  it('says what is required and available, by purpose, where a pool does not fit', async () => {
    const failure = await start('cuda', 'large', '--pool-bytes', '240GiB').then(
      () => 'started',
      (error: Error) => error.message,
    );
    expect(failure).toMatch(/out-of-memory.*free of \d+.*weights \d+, KV pool \d+, workspace \d+/s);
  });
});

it('says loudly where nothing of this was run', () => {
  if (!hasDevice) process.stderr.write('SKIPPED: the server on a GPU: no CUDA addon or device here\n');
  expect(hasDevice).toBe(isCudaAvailable());
});
