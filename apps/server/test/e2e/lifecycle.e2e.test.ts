import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCli, ServerProcess, TEST_BACKEND, Workbench } from './processes.ts';

const bench = new Workbench();
let model = '';
beforeAll(() => {
  model = bench.generateModel('generated');
});
afterAll(() => bench.remove());

const endless = {
  model: 'default',
  prompt: 'a',
  max_tokens: 8000,
  ignore_eos: true,
  stream: true,
} as OpenAI.CompletionCreateParamsStreaming;

describe('a server process', () => {
  it('prints its address, its model and a request to try, and ends at SIGTERM', async () => {
    const server = await ServerProcess.start(['--model', model]);
    await server.idle();
    const backend = TEST_BACKEND ?? '(cpu|cuda)';
    expect(server.output.stdout()).toMatch(new RegExp(`Serving generated \\(llama, context 8192\\) on ${backend}`));
    expect(server.output.stdout()).toContain(`curl ${server.url}/v1/chat/completions`);
    server.signal('SIGTERM');
    expect(await server.exited).toEqual({ code: 0, signal: null });
  });

  it('lets a running answer end within the grace', async () => {
    const server = await ServerProcess.start(['--model', model]);
    const stream = await server.client().completions.create({ ...endless, max_tokens: 300 });
    let finish: string | null = null;
    let isSignalled = false;
    for await (const chunk of stream) {
      if (!isSignalled) server.signal('SIGTERM');
      isSignalled = true;
      finish = chunk.choices[0]?.finish_reason ?? finish;
    }
    expect(finish).toBe('length');
    expect((await server.exited).code).toBe(0);
  });

  it('ends a running answer with an error event after the grace', async () => {
    const server = await ServerProcess.start(['--model', model, '--shutdown-grace-ms', '0']);
    const stream = await server.client().completions.create(endless);
    const reading = (async () => {
      let chunks = 0;
      for await (const _chunk of stream) if (++chunks === 1) server.signal('SIGTERM');
    })();
    await expect(reading).rejects.toMatchObject({ code: 'disposed' });
    expect((await server.exited).code).toBe(0);
  });

  it('asks for its key', async () => {
    const server = await ServerProcess.start(['--model', model], { KVASIR_API_KEY: 'sesame-open' });
    const request = { ...endless, stream: false, max_tokens: 1 } as const;
    await expect(server.client('wrong').completions.create(request)).rejects.toThrow(OpenAI.AuthenticationError);
    expect((await server.client('sesame-open').completions.create(request)).choices).toHaveLength(1);
    await server.stop();
  });

  it('says overloaded when the queue is full, and serves again later', async () => {
    // A fast device is through with 8,000 tokens before the third request is there.
    const long = bench.generateModel('long', { contextLength: 131_072 });
    const server = await ServerProcess.start(['--model', long, '--max-queue', '1', '--max-batch-sequences', '1']);
    const client = server.client();
    const longest = { ...endless, max_tokens: 130_000 };
    const controller = new AbortController();
    const streams = await Promise.all(
      [0, 1].map(async (index) => {
        if (index === 1) await server.busy();
        return client.completions.create(longest, { signal: controller.signal });
      }),
    );
    expect(streams).toHaveLength(2);
    await expect(client.completions.create(longest)).rejects.toThrow(OpenAI.RateLimitError);
    controller.abort();
    await server.idle();
    await client.completions.create({
      ...endless,
      stream: false,
      max_tokens: 1,
    } as OpenAI.CompletionCreateParamsNonStreaming);
    await server.stop();
  });

  it('names every configuration problem and ends with 2', async () => {
    const { code, stderr } = await runCli(['serve', '--port', 'x', '--threads', '-1'], {
      environment: { KVASIR_MODLE: 'y' },
    });
    expect(code).toBe(2);
    expect(stderr.trim().split('\n')).toEqual([
      expect.stringMatching(/^error invalid-argument: KVASIR_MODLE: /),
      expect.stringMatching(/^error invalid-argument: --port: /),
      expect.stringMatching(/^error invalid-argument: --threads: /),
    ]);
  });

  it('says which backend is missing and which address is taken', async () => {
    const mlx = await runCli(['serve', '--model', model, '--backend', 'mlx']);
    expect([mlx.code, mlx.stderr]).toEqual([1, expect.stringMatching(/^error backend-unavailable: .*mlx/m)]);
    const server = await ServerProcess.start(['--model', model]);
    const taken = await runCli(['serve', '--model', model, '--port', new URL(server.url).port]);
    expect([taken.code, taken.stderr]).toEqual([
      1,
      expect.stringMatching(/^error invalid-argument: address: .*EADDRINUSE/m),
    ]);
    await server.stop();
  });
});
