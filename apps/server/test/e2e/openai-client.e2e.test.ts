import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { leakedBlocks, ServerProcess, Workbench } from './processes.ts';

// The official client against a real process, a real socket and the real engine: what a user of the API sees.

const bench = new Workbench();
let server: ServerProcess;
let client: OpenAI;
beforeAll(async () => {
  server = await ServerProcess.start(['--model', bench.generateModel('generated'), '--log-level', 'warn']);
  client = server.client();
});
afterAll(async () => {
  await server.stop();
  bench.remove();
});

const ask = (content: string) => ({ model: 'default', messages: [{ role: 'user' as const, content }] });

/** A random model hardly ever ends by itself; ignoring its end token makes lengths certain. */
const untilLimit = (maxTokens: number) => ({ max_tokens: maxTokens, ignore_eos: true }) as { max_tokens: number };

describe('the official client', () => {
  it('lists the model', async () => {
    const models = [];
    for await (const model of client.models.list()) models.push(model.id);
    expect(models).toEqual(['generated']);
    expect((await client.models.retrieve('default')).id).toBe('generated');
  });

  it('chats, streaming and not, with the same words', async () => {
    const request = { ...ask('Tell me something.'), ...untilLimit(24), temperature: 0 };
    const { data: whole, request_id } = await client.chat.completions.create(request).withResponse();
    expect(request_id).toMatch(/\w{8}/);
    expect(whole).toMatchObject({
      object: 'chat.completion',
      model: 'generated',
      choices: [{ finish_reason: 'length' }],
    });
    expect(whole.usage).toMatchObject({ completion_tokens: 24 });
    expect(whole.usage?.prompt_tokens).toBeGreaterThan(10);

    const stream = await client.chat.completions.create({
      ...request,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = '';
    const finishes = [];
    let usage;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? '';
      if (chunk.choices[0]?.finish_reason) finishes.push(chunk.choices[0].finish_reason);
      usage = chunk.usage ?? usage;
    }
    expect(text).toBe(whole.choices[0]?.message.content);
    expect(finishes).toEqual(['length']);
    // The same prompt a second time: all of its KV was there.
    const { prompt_tokens: cached_tokens } = whole.usage as OpenAI.CompletionUsage;
    expect(usage).toEqual({ ...whole.usage, prompt_tokens_details: { cached_tokens } });
  });

  it('completes text, token ids and several prompts', async () => {
    const request = { model: 'default', ...untilLimit(8), temperature: 0 };
    const completion = await client.completions.create({ ...request, prompt: ['the ', 'and '], echo: true });
    expect(completion.choices.map((choice) => choice.text.slice(0, 4))).toEqual(['the ', 'and ']);
    const byIds = await client.completions.create({ ...request, prompt: [116, 104, 101] });
    expect(byIds.usage).toMatchObject({ prompt_tokens: 3, completion_tokens: 8 });
  });

  it('holds eight conversations at once, truly batched', async () => {
    const before = await server.idle();
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, index) =>
        client.chat.completions.create({ ...ask(`Question ${index}`), ...untilLimit(64), temperature: 0 }),
      ),
    );
    expect(answers.map((answer) => answer.usage?.completion_tokens)).toEqual(Array(8).fill(64));
    const after = await server.idle();
    const steps = after.steps - before.steps;
    // One after another they would take 8 × 64 steps.
    expect(steps).toBeLessThan(4 * 64);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(metrics).toMatch(/kvasir_engine_batch_size_steps\{sequences="8"\} \d\d/);
    expect(leakedBlocks(after)).toBe(0);
  });

  it('gives a conversation the same words among strangers as alone', async () => {
    const request = { ...ask('Alone or not?'), ...untilLimit(32), temperature: 1, seed: 99 };
    const alone = await client.chat.completions.create(request);
    const strangers = Array.from({ length: 7 }, (_, index) =>
      client.chat.completions.create({ ...ask(`Stranger ${index} ${'x'.repeat(index * 40)}`), ...untilLimit(40) }),
    );
    const among = await client.chat.completions.create(request);
    await Promise.all(strangers);
    expect(among.choices[0]?.message.content).toBe(alone.choices[0]?.message.content);
  });

  it('repeats an answer by its seed, the one it chose itself too', async () => {
    const request = { ...ask('Dice?'), ...untilLimit(24), temperature: 1.5 };
    const text = (answer: OpenAI.ChatCompletion) => answer.choices[0]?.message.content;
    const first = await client.chat.completions.create(request);
    const { seed } = first as unknown as { seed: number };
    expect(text(await client.chat.completions.create({ ...request, seed }))).toBe(text(first));
    expect(text(await client.chat.completions.create({ ...request, seed: seed + 1 }))).not.toBe(text(first));
    const several = await client.chat.completions.create({ ...request, seed, n: 3 });
    expect(several.choices[0]?.message.content).toBe(text(first));
    expect(new Set(several.choices.map((choice) => choice.message.content)).size).toBe(3);
  });

  it('stops at a stop string wherever tokens are cut', async () => {
    const request = { model: 'default', prompt: 'Once', ...untilLimit(40), temperature: 0 };
    const whole = (await client.completions.create(request)).choices[0]?.text ?? '';
    const stop = whole.slice(17, 20);
    const cut = await client.completions.create({ ...request, stop });
    expect(cut.choices[0]).toMatchObject({ text: whole.slice(0, whole.indexOf(stop)), finish_reason: 'stop' });
    expect(cut.usage?.completion_tokens).toBeLessThan(40);
  });

  it('reports log-probabilities of the sampled token and the likeliest', async () => {
    const answer = await client.chat.completions.create({
      ...ask('Sure?'),
      ...untilLimit(6),
      temperature: 0,
      logprobs: true,
      top_logprobs: 3,
    });
    const entries = answer.choices[0]?.logprobs?.content ?? [];
    expect(entries).toHaveLength(6);
    for (const entry of entries) {
      expect(entry.logprob).toBeLessThanOrEqual(0);
      expect(entry.top_logprobs).toHaveLength(3);
      expect(entry.top_logprobs[0]).toMatchObject({ token: entry.token, logprob: entry.logprob });
      expect(entry.top_logprobs.map((top) => top.logprob)).toEqual(
        entry.top_logprobs.map((top) => top.logprob).sort((a, b) => b - a),
      );
    }
  });

  it('biases a token into every place', async () => {
    const answer = await client.completions.create({
      model: 'default',
      prompt: 'a',
      ...untilLimit(5),
      logit_bias: { '33': 100 },
    });
    expect(answer.choices[0]?.text).toBe('!!!!!');
  });

  it('ends a generation whose stream is left', async () => {
    const before = await server.idle();
    const stream = await client.chat.completions.create({ ...ask('Go on.'), ...untilLimit(4000), stream: true });
    let chunks = 0;
    for await (const _chunk of stream) if (++chunks === 5) break;
    const after = await server.idle();
    expect(after.outputTokens - before.outputTokens).toBeLessThan(100);
    expect(leakedBlocks(after)).toBe(0);
  });

  it('ends a generation whose whole answer is not waited for', async () => {
    const before = await server.idle();
    const controller = new AbortController();
    const answer = client.chat.completions.create(
      { ...ask('Go on.'), ...untilLimit(4000) },
      { signal: controller.signal },
    );
    await server.busy();
    controller.abort();
    await expect(answer).rejects.toThrow(OpenAI.APIUserAbortError);
    const after = await server.idle();
    expect(after.outputTokens - before.outputTokens).toBeLessThan(500);
  });

  it('throws the error class of what went wrong', async () => {
    const create = (body: object) =>
      client.chat.completions.create({ ...ask('x'), ...body } as OpenAI.ChatCompletionCreateParamsNonStreaming);
    await expect(create({ model: 'gpt-4' })).rejects.toThrow(OpenAI.NotFoundError);
    await expect(create({ temperature: 9 })).rejects.toThrow(OpenAI.BadRequestError);
    await expect(create({ response_format: { type: 'json_object' } })).rejects.toMatchObject({
      status: 400,
      code: 'unsupported_parameter',
      param: 'response_format',
    });
    await expect(create({ messages: [{ role: 'user', content: 'long '.repeat(20_000) }] })).rejects.toMatchObject({
      status: 400,
      code: 'context_length_exceeded',
    });
  });
});
