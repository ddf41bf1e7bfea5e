import { KvasirError } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { createTestApp, readEvents, say } from './test-app.ts';

const chat = { model: 'default', messages: [{ role: 'user', content: 'hi' }] };

describe('POST /v1/chat/completions', () => {
  it('answers with a whole completion', async () => {
    const { engine, post } = createTestApp();
    engine.script = say('hello');
    const response = await post('/v1/chat/completions', { ...chat, seed: 5 });
    expect(response.status).toBe(200);
    expect(response.headers.get('x-request-id')).toMatch(/\w{8}/);
    expect(await response.json()).toEqual({
      id: expect.stringMatching(/^chatcmpl-/),
      object: 'chat.completion',
      created: expect.any(Number),
      model: 'test-model',
      system_fingerprint: 'fake-1',
      seed: 5,
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: 'hello', refusal: null },
          logprobs: null,
          finish_reason: 'stop',
        },
      ],
      usage: {
        prompt_tokens: 9,
        completion_tokens: 5,
        total_tokens: 14,
        prompt_tokens_details: { cached_tokens: 0 },
      },
      kvasir: {
        prompt_hash: expect.stringMatching(/^[0-9a-f]{64}$/),
        cache: {
          matched_tokens: 0,
          reused_tokens: 0,
          from: { hot: 0, warm: 0, cold: 0 },
          restored_bytes: { warm: 0, cold: 0 },
          restore_ms: 0,
          diverged_at: { token: 0, where: 'template' },
          cause: 'cache-off',
        },
      },
    });
  });

  it('passes every sampling field on', async () => {
    const { engine, post } = createTestApp();
    const response = await post('/v1/chat/completions', {
      ...chat,
      temperature: 0.5,
      top_p: 0.9,
      top_k: 40,
      min_p: 0.05,
      repetition_penalty: 1.1,
      frequency_penalty: 0.25,
      presence_penalty: -0.5,
      logit_bias: { 65: 3 },
      seed: 11,
      max_completion_tokens: 4,
      logprobs: true,
      top_logprobs: 2,
    });
    expect(response.status).toBe(200);
    expect(engine.requests[0]).toMatchObject({
      maxTokens: 4,
      stopIds: [256],
      sampling: {
        temperature: 0.5,
        topP: 0.9,
        topK: 40,
        minP: 0.05,
        repetitionPenalty: 1.1,
        frequencyPenalty: 0.25,
        presencePenalty: -0.5,
        logitBias: new Map([[65, 3]]),
        seed: 11n,
        logprobs: 2,
      },
    });
  });

  it('reports the seed it chose and chooses another each time', async () => {
    const { engine, post } = createTestApp();
    const seeds = [];
    for (let request = 0; request < 2; request += 1) {
      const { seed } = (await (await post('/v1/chat/completions', chat)).json()) as { seed: number };
      expect(engine.requests.at(-1)?.sampling.seed).toBe(BigInt(seed));
      seeds.push(seed);
    }
    expect(seeds[0]).not.toBe(seeds[1]);
  });

  it('gives each of n choices a random stream of its own', async () => {
    const { engine, post } = createTestApp();
    engine.script = (_request, index) => say(`answer ${index}`)();
    const response = await post('/v1/chat/completions', { ...chat, n: 3, seed: 1 });
    const body = (await response.json()) as { choices: { message: { content: string } }[]; usage: object };
    expect(body.choices.map((choice) => choice.message.content)).toEqual(['answer 0', 'answer 1', 'answer 2']);
    expect(new Set(engine.requests.map((request) => request.sampling.seed)).size).toBe(3);
    expect(body.usage).toMatchObject({ prompt_tokens: 9, completion_tokens: 24 });
  });

  it('streams role, content, finish, usage and [DONE]', async () => {
    const { engine, post } = createTestApp();
    engine.script = say('né');
    const body = { ...chat, stream: true, stream_options: { include_usage: true } };
    const response = await post('/v1/chat/completions', body);
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    const events = await readEvents(response);
    expect(events.at(-1)).toBe('[DONE]');
    const chunks = events.slice(0, -1).map((event) => JSON.parse(event) as Record<string, unknown>);
    expect(chunks.every((chunk) => chunk['object'] === 'chat.completion.chunk')).toBe(true);
    const choice = (delta: object, finish: string | null) => [
      { index: 0, delta, logprobs: null, finish_reason: finish },
    ];
    expect(chunks.map((chunk) => chunk['choices'])).toEqual([
      choice({ role: 'assistant', content: '', refusal: null }, null),
      choice({ content: 'n' }, null),
      choice({ content: 'é' }, null),
      choice({}, 'stop'),
      [],
    ]);
    expect(chunks.map((chunk) => chunk['usage'])).toEqual([
      null,
      null,
      null,
      null,
      expect.objectContaining({ completion_tokens: 3 }),
    ]);
  });

  it('ends at a stop string that spans tokens, and drops what follows', async () => {
    const { engine, post } = createTestApp();
    engine.script = say('one END two', 'hang');
    const response = await post('/v1/chat/completions', { ...chat, stop: [' END'], logprobs: true });
    const body = (await response.json()) as {
      choices: { message: object; finish_reason: string; logprobs: { content: { token: string }[] } }[];
    };
    expect(body.choices[0]).toMatchObject({ message: { content: 'one' }, finish_reason: 'stop' });
    expect(body.choices[0]?.logprobs.content.map((entry) => entry.token)).toEqual(['o', 'n', 'e']);
    expect(engine.generations[0]?.endedBy).toBe('finish');
  });

  it('reports log-probabilities with bytes', async () => {
    const { engine, post } = createTestApp();
    engine.script = say('é');
    const response = await post('/v1/chat/completions', { ...chat, logprobs: true, top_logprobs: 1 });
    const body = (await response.json()) as { choices: { logprobs: object }[] };
    const entry = (byte: number, logprob: number) => ({ token: '\uFFFD', logprob, bytes: [byte] });
    expect(body.choices[0]?.logprobs).toEqual({
      content: [
        { ...entry(0xc3, -0.5), top_logprobs: [entry(0xc3, -0.5)] },
        { ...entry(0xa9, -1.5), top_logprobs: [entry(0xa9, -0.5)] },
      ],
      refusal: null,
    });
  });

  it('says length when the limit ends it', async () => {
    const { engine, post } = createTestApp();
    engine.script = say('abcdef');
    const response = await post('/v1/chat/completions', { ...chat, max_tokens: 3 });
    expect(await response.json()).toMatchObject({
      choices: [{ message: { content: 'abc' }, finish_reason: 'length' }],
    });
  });

  it('generates past the end token with ignore_eos', async () => {
    const { engine, post } = createTestApp();
    await post('/v1/chat/completions', { ...chat, ignore_eos: true });
    expect(engine.requests[0]?.stopIds).toEqual([]);
  });

  it('hands the template plain messages', async () => {
    const { template, post } = createTestApp();
    const call = { id: 'c1', type: 'function', function: { name: 'add', arguments: '{"a":1}' } };
    await post('/v1/chat/completions', {
      model: 'test-model',
      chat_template_kwargs: { enable_thinking: false },
      messages: [
        {
          role: 'developer',
          content: [
            { type: 'text', text: 'a' },
            { type: 'text', text: 'b' },
          ],
        },
        { role: 'user', content: 'c', name: 'ann' },
        { role: 'assistant', content: null, tool_calls: [call] },
        { role: 'tool', content: '2', tool_call_id: 'c1' },
      ],
    });
    expect(template.rendered[0]).toMatchObject({
      conversation: {
        messages: [
          { role: 'system', content: 'a\nb' },
          { role: 'user', content: 'c', name: 'ann' },
          {
            role: 'assistant',
            content: null,
            tool_calls: [{ ...call, function: { name: 'add', arguments: { a: 1 } } }],
          },
          { role: 'tool', content: '2', tool_call_id: 'c1' },
        ],
      },
      options: { addGenerationPrompt: true, variables: { enable_thinking: false } },
    });
  });

  it('answers a failure while streaming with an error event', async () => {
    const { engine, post } = createTestApp();
    const error = new KvasirError('device-lost', 'expected the device, found it gone');
    engine.script = () => ({ tokenIds: [104, 105], end: { reason: 'error', error } });
    const response = await post('/v1/chat/completions', { ...chat, stream: true });
    const text = await response.text();
    expect(text).toContain('"content":"h"');
    expect(text).toMatch(/event: error\ndata: \{"error":\{[^\n]*"code":"device_lost"/);
    expect(text).not.toContain('[DONE]');
  });

  it('answers a failure before the first token with its status', async () => {
    const { engine, post } = createTestApp();
    engine.failure = new KvasirError('overloaded', 'expected at most 2 waiting, found 2');
    const response = await post('/v1/chat/completions', { ...chat, stream: true });
    expect(response.status).toBe(429);
    expect(await response.json()).toMatchObject({ error: { code: 'overloaded', type: 'rate_limit_error' } });
  });

  it('aborts the generation of a stream that is cancelled', async () => {
    const { engine, post } = createTestApp();
    engine.script = say('abc', 'hang');
    const response = await post('/v1/chat/completions', { ...chat, stream: true });
    const reader = response.body?.getReader();
    await reader?.read();
    await reader?.cancel();
    expect(engine.generations[0]?.endedBy).toBe('abort');
  });

  it('aborts the generation of a whole answer whose client leaves', async () => {
    const { app, engine } = createTestApp();
    const controller = new AbortController();
    engine.script = (request) => {
      queueMicrotask(() => controller.abort());
      return { ...say('', 'hang')(), request };
    };
    const response = await app.request(
      new Request('http://localhost/v1/chat/completions', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(chat),
        signal: controller.signal,
      }),
    );
    expect(response.status).toBe(499);
    expect(engine.generations[0]?.endedBy).toBe('abort');
  });

  it('logs no prompt text', async () => {
    const { engine, post, logged } = createTestApp();
    engine.script = say('answer-text');
    await post('/v1/chat/completions', { ...chat, messages: [{ role: 'user', content: 'secret-words' }] });
    expect(logged.length).toBeGreaterThan(1);
    expect(JSON.stringify(logged)).not.toMatch(/secret-words|answer-text/);
  });
});
