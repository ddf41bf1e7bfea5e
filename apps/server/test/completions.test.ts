import { describe, expect, it } from 'vitest';
import { createTestApp, readEvents, say } from './test-app.ts';

interface Body {
  readonly choices: { text: string; index: number; finish_reason: string; logprobs: object | null }[];
  readonly usage: object;
}

async function complete(test: ReturnType<typeof createTestApp>, body: object): Promise<Body> {
  const response = await test.post('/v1/completions', { model: 'default', ...body });
  const answer = (await response.json()) as Body;
  expect(response.status, JSON.stringify(answer)).toBe(200);
  return answer;
}

describe('POST /v1/completions', () => {
  it('continues a prompt for 16 tokens when nothing else is said', async () => {
    const test = createTestApp();
    test.engine.script = say('abcdefghijklmnopqrstuvwxyz');
    const body = await complete(test, { prompt: 'the alphabet: ' });
    expect(body).toMatchObject({
      object: 'text_completion',
      choices: [{ index: 0, text: 'abcdefghijklmnop', finish_reason: 'length', logprobs: null }],
      usage: { prompt_tokens: 14, completion_tokens: 16, total_tokens: 30 },
    });
  });

  it.each([
    ['a string', 'ab', ['ab']],
    ['strings', ['ab', 'c'], ['ab', 'c']],
    ['token ids', [97, 98], ['ab']],
    ['lists of token ids', [[97, 98], [99]], ['ab', 'c']],
  ])('takes %s and echoes them', async (_name, prompt, texts) => {
    const test = createTestApp();
    test.engine.script = say('!');
    const body = await complete(test, { prompt, echo: true, n: 2 });
    expect(body.choices.map((choice) => choice.text)).toEqual(texts.flatMap((text) => [`${text}!`, `${text}!`]));
    const promptTokens = texts.join('').length;
    expect(body.usage).toMatchObject({ prompt_tokens: promptTokens, completion_tokens: texts.length * 2 });
  });

  it('returns the best of several by mean log-probability', async () => {
    const test = createTestApp();
    // The scripted engine's tokens get less likely one by one, so the shortest answer is the best.
    test.engine.script = (_request, index) => say('x'.repeat(3 - index))();
    const body = await complete(test, { prompt: 'a', best_of: 3, n: 2 });
    expect(body.choices.map((choice) => choice.text)).toEqual(['x', 'xx']);
    expect(body.choices.map((choice) => choice.logprobs)).toEqual([null, null]);
    expect(body.usage).toMatchObject({ prompt_tokens: 1, completion_tokens: 6 });
  });

  it('reports log-probabilities as parallel lists', async () => {
    const test = createTestApp();
    test.engine.script = say('hi');
    const body = await complete(test, { prompt: 'a', logprobs: 1 });
    expect(body.choices[0]?.logprobs).toEqual({
      tokens: ['h', 'i'],
      token_logprobs: [-0.5, -1.5],
      top_logprobs: [{ h: -0.5 }, { i: -0.5 }],
      text_offset: [0, 1],
    });
  });

  it('streams echo, text and usage', async () => {
    const test = createTestApp();
    test.engine.script = say('hi');
    const response = await test.post('/v1/completions', {
      model: 'default',
      prompt: 'oh ',
      echo: true,
      stream: true,
      stream_options: { include_usage: true },
    });
    const events = await readEvents(response);
    expect(events.pop()).toBe('[DONE]');
    const chunks = events.map((event) => JSON.parse(event) as Body);
    expect(chunks.flatMap((chunk) => chunk.choices).map((choice) => [choice.text, choice.finish_reason])).toEqual([
      ['oh ', null],
      ['h', null],
      ['i', null],
      ['', 'stop'],
    ]);
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 2 } });
  });
});
