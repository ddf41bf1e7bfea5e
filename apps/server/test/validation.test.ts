import { describe, expect, it } from 'vitest';
import { CHAT_FIELDS, COMPLETION_FIELDS } from '../src/openai/fields.ts';
import { createTestApp, say } from './test-app.ts';

const chat = { model: 'default', messages: [{ role: 'user', content: 'hi' }] };

interface Answer {
  readonly error: { message: string; type: string; param: string; code: string };
  readonly errors: { message: string; param: string; code: string }[];
}

async function problemsOf(body: unknown, path = '/v1/chat/completions'): Promise<string[]> {
  const response = await createTestApp().post(path, body);
  const answer = (await response.json()) as Answer;
  expect(response.status, JSON.stringify(answer)).toBe(400);
  expect(answer.error).toEqual(answer.errors[0]);
  return answer.errors.map((error) => `${error.code} ${error.param}`);
}

describe('request validation', () => {
  it('reports every problem at once', async () => {
    const problems = await problemsOf({
      messages: [],
      temperature: 3,
      top_p: 'much',
      stop: [''],
      n: 0,
      response_format: { type: 'json_schema' },
      temprature: 1,
      stream_options: { include_usage: 'yes', other: 1 },
    });
    expect(problems.sort()).toEqual([
      'invalid_argument messages',
      'invalid_argument n',
      'invalid_argument stop.0',
      'invalid_argument stream_options.include_usage',
      'invalid_argument temperature',
      'invalid_argument top_p',
      'missing_parameter model',
      'unknown_parameter stream_options.other',
      'unknown_parameter temprature',
      'unsupported_parameter response_format',
    ]);
  });

  it('says what it expected and found', async () => {
    const response = await createTestApp().post('/v1/chat/completions', { ...chat, temperature: 3 });
    const { error } = (await response.json()) as Answer;
    expect(error).toMatchObject({ type: 'invalid_request_error', param: 'temperature' });
    expect(error.message).toMatch(/^temperature: .*2.*found 3$/);
  });

  it.each([...CHAT_FIELDS.refused.keys()])('refuses %s by name', async (field) => {
    expect(await problemsOf({ ...chat, [field]: { type: 'other' } })).toEqual([`unsupported_parameter ${field}`]);
  });

  it.each([...CHAT_FIELDS.refused.keys()])('takes null for %s', async (field) => {
    expect((await createTestApp().post('/v1/chat/completions', { ...chat, [field]: null })).status).toBe(200);
  });

  it('takes neutral values of refused fields', async () => {
    const neutral = {
      response_format: { type: 'text' },
      tools: [],
      functions: [],
      tool_choice: 'auto',
      function_call: 'none',
      modalities: ['text'],
      verbosity: 'medium',
      n: 1,
    };
    expect((await createTestApp().post('/v1/chat/completions', { ...chat, ...neutral })).status).toBe(200);
  });

  it.each([...CHAT_FIELDS.accepted])('accepts %s, which changes no output', async (field) => {
    expect((await createTestApp().post('/v1/chat/completions', { ...chat, [field]: { any: 'thing' } })).status).toBe(
      200,
    );
  });

  it('refuses fields that contradict each other', async () => {
    const body = {
      ...chat,
      top_logprobs: 2,
      max_tokens: 3,
      max_completion_tokens: 4,
      stream_options: {},
      logit_bias: { 257: 1 },
    };
    expect((await problemsOf(body)).sort()).toEqual([
      'invalid_argument logit_bias.257',
      'invalid_argument max_tokens',
      'invalid_argument stream_options',
      'invalid_argument top_logprobs',
    ]);
  });

  it('refuses content that is no text by name', async () => {
    const image = { type: 'image_url', image_url: { url: 'data:' } };
    const problems = await problemsOf({
      ...chat,
      messages: [{ role: 'user', content: [{ type: 'text', text: '' }, image] }],
    });
    expect(problems).toContain('unsupported_parameter messages.0.content.1.type');
  });

  it('refuses unknown roles and message fields', async () => {
    const messages = [
      { role: 'robot', content: 'a' },
      { role: 'user', content: 'b', contents: 'c' },
    ];
    expect(await problemsOf({ ...chat, messages })).toEqual([
      'invalid_argument messages.0.role',
      'unknown_parameter messages.1.contents',
    ]);
  });

  it('refuses bodies that would hold up every stream to check', async () => {
    const deep = `${'['.repeat(10_000)}${']'.repeat(10_000)}`;
    expect(await problemsOf(`{"model": "default", "chat_template_kwargs": ${deep}}`)).toEqual([
      'invalid_argument body',
    ]);
    const messages = Array.from({ length: 20_000 }, () => ({ role: 'user', content: '' }));
    expect(await problemsOf({ ...chat, messages })).toEqual(['invalid_argument body']);
  });

  it.each(['[]', '"text"', 'null', '3'])('refuses the body %s', async (body) => {
    expect(await problemsOf(body)).toContain('invalid_argument body');
  });

  it('checks completions', async () => {
    const path = '/v1/completions';
    expect(await problemsOf({ model: 'default' }, path)).toEqual(['missing_parameter prompt']);
    expect(await problemsOf({ model: 'default', prompt: [1, 'a'] }, path)).toEqual(['invalid_argument prompt']);
    expect(await problemsOf({ model: 'default', prompt: [300], suffix: 'x' }, path)).toEqual([
      'unsupported_parameter suffix',
      'invalid_argument prompt',
    ]);
    expect(await problemsOf({ model: 'default', prompt: 'a', n: 3, best_of: 2 }, path)).toEqual([
      'invalid_argument best_of',
    ]);
    expect(await problemsOf({ model: 'default', prompt: 'a', best_of: 2, stream: true }, path)).toEqual([
      'invalid_argument best_of',
    ]);
    expect(await problemsOf({ model: 'default', prompt: 'a', echo: true, logprobs: 1 }, path)).toEqual([
      'unsupported_parameter echo',
    ]);
    expect([...COMPLETION_FIELDS.accepted]).toEqual(['user']);
  });

  it('does not know another model', async () => {
    const { post, engine } = createTestApp();
    engine.script = say('x');
    const response = await post('/v1/chat/completions', { ...chat, model: 'gpt-4' });
    expect(response.status).toBe(404);
    const { error } = (await response.json()) as Answer;
    expect(error).toMatchObject({ code: 'model_not_found', param: 'model' });
    expect(error.message).toContain('"test-model"');
  });
});
