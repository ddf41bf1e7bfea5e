import { ERROR_CODES, KvasirError } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { ERROR_TABLE, toWireCode } from '../src/http/error-table.ts';
import { createTestApp, say } from './test-app.ts';

const chat = { model: 'default', messages: [{ role: 'user', content: 'hi' }] };

describe('the HTTP face', () => {
  it('has a row for every error code and answers with its status', async () => {
    expect(Object.keys(ERROR_TABLE).sort()).toEqual([...ERROR_CODES].sort());
    for (const code of ERROR_CODES) {
      const { engine, post } = createTestApp();
      engine.failure = new KvasirError(code, `expected none, found ${code}`);
      const response = await post('/v1/chat/completions', chat);
      expect(response.status, code).toBe(ERROR_TABLE[code].status);
      expect(await response.json()).toMatchObject({ error: { code: toWireCode(code) } });
    }
  });

  it('hides nothing and crashes on nothing unforeseen', async () => {
    const { engine, post, logged } = createTestApp();
    engine.script = () => {
      throw new RangeError('odd');
    };
    const response = await post('/v1/chat/completions', chat);
    expect(response.status).toBe(500);
    expect(await response.json()).toMatchObject({
      error: { code: 'internal', message: expect.stringContaining('odd') },
    });
    expect(logged).toContainEqual(expect.objectContaining({ code: 'internal' }));
  });

  it('answers malformed JSON with 400, other content types with 415, large bodies with 413', async () => {
    const { post } = createTestApp({ maxBodyBytes: 1000 });
    const malformed = await post('/v1/chat/completions', '{"model": ');
    expect([malformed.status, await malformed.json()]).toEqual([
      400,
      expect.objectContaining({ error: expect.objectContaining({ code: 'invalid_argument', param: 'body' }) }),
    ]);
    expect((await post('/v1/chat/completions', chat, { 'content-type': 'text/plain' })).status).toBe(415);
    const large = await post('/v1/chat/completions', { ...chat, user: 'x'.repeat(1000) });
    expect([large.status, await large.json()]).toEqual([
      413,
      expect.objectContaining({ error: expect.objectContaining({ code: 'request_too_large' }) }),
    ]);
  });

  it('answers other methods with 405 and other paths with 404', async () => {
    const { app } = createTestApp();
    const wrongMethod = await app.request('/v1/chat/completions');
    expect([wrongMethod.status, wrongMethod.headers.get('allow')]).toEqual([405, 'POST']);
    expect((await app.request('/health', { method: 'POST' })).headers.get('allow')).toBe('GET, HEAD');
    const nowhere = await app.request('/v1/embeddings', { method: 'POST' });
    expect([nowhere.status, await nowhere.json()]).toEqual([
      404,
      expect.objectContaining({ error: expect.objectContaining({ code: 'not_found' }) }),
    ]);
  });

  it('asks for the key everywhere but at the health routes', async () => {
    const { app, post } = createTestApp({ apiKey: 'sesame-open' });
    for (const headers of [{}, { authorization: 'Bearer sesame-shut' }, { authorization: 'sesame-open' }]) {
      const response = await post('/v1/chat/completions', chat, headers);
      expect(response.status).toBe(401);
      expect(await response.json()).toMatchObject({ error: { code: 'unauthorized', type: 'authentication_error' } });
    }
    expect((await app.request('/metrics')).status).toBe(401);
    expect((await app.request('/health')).status).toBe(200);
    expect((await post('/v1/chat/completions', chat, { authorization: 'Bearer sesame-open' })).status).toBe(200);
  });

  it('sends no CORS headers unless told to', async () => {
    const headers = { origin: 'https://app.example' };
    expect(
      (await createTestApp().app.request('/health', { headers })).headers.get('access-control-allow-origin'),
    ).toBeNull();
    const open = createTestApp({ corsOrigin: 'https://app.example', apiKey: 'sesame-open' });
    const response = await open.app.request('/v1/models', { headers });
    expect(response.headers.get('access-control-allow-origin')).toBe('https://app.example');
    const preflight = await open.app.request('/v1/chat/completions', { method: 'OPTIONS', headers });
    expect(preflight.status).toBe(204);
  });

  it('is ready until it stops or the engine fails, and live all along', async () => {
    const test = createTestApp();
    expect(await (await test.app.request('/health')).json()).toMatchObject({
      status: 'ok',
      ready: true,
      live: true,
      steps: 7,
    });
    expect((await test.app.request('/health/ready')).status).toBe(200);
    test.engine.failure = new KvasirError('device-lost', 'expected the device, found it gone');
    expect((await test.app.request('/health')).status).toBe(503);
    test.engine.failure = null;
    test.stopping = true;
    const ready = await test.app.request('/health/ready');
    expect([ready.status, await ready.json()]).toEqual([503, expect.objectContaining({ reason: 'shutting down' })]);
    expect((await test.app.request('/health/live')).status).toBe(200);
  });

  it('lists its model and finds it by both names', async () => {
    const { app } = createTestApp();
    expect(await (await app.request('/v1/models')).json()).toMatchObject({
      object: 'list',
      data: [{ id: 'test-model', object: 'model', context_length: 1024 }],
    });
    for (const id of ['test-model', 'default']) expect((await app.request(`/v1/models/${id}`)).status).toBe(200);
    expect((await app.request('/v1/models/org%2Fother')).status).toBe(404);
  });

  it('counts requests and tokens', async () => {
    const { app, engine, post } = createTestApp();
    engine.script = say('abc');
    await post('/v1/chat/completions', chat);
    const text = await (await app.request('/metrics')).text();
    expect(text).toContain('kvasir_http_requests_total{route="/v1/chat/completions",status="200"} 1');
    expect(text).toContain('kvasir_generated_tokens_total 3');
    expect(text).toContain('kvasir_engine_steps_total 7');
    expect(text).toContain('kvasir_kv_pool_bytes 3');
    expect(text).toContain('kvasir_pinned_bytes 6');
    expect(text).toContain('kvasir_residency_checks_total 8');
    expect(text).toContain('kvasir_residency_failures_total 0');
    expect(text).toContain('kvasir_blocks{group="0",state="free"} 8');
  });

  it('describes itself', async () => {
    const response = await createTestApp().app.request('/openapi.json');
    const document = (await response.json()) as {
      openapi: string;
      paths: Record<string, object>;
      components: { schemas: Record<string, { properties: object }> };
    };
    expect(response.status, JSON.stringify(document)).toBe(200);
    expect(document.openapi).toBe('3.1.0');
    expect(Object.keys(document.paths)).toEqual([
      '/v1/chat/completions',
      '/v1/completions',
      '/v1/agents',
      '/v1/agents/{name}',
      '/v1/agents/{name}/fork',
      '/v1/agents/{name}/rewind',
      '/v1/agents/{name}/pin',
      '/v1/agents/{name}/export',
      '/v1/agents/{name}/import',
      '/v1/models',
      '/v1/models/{id}',
      '/health',
      '/health/live',
      '/health/ready',
      '/metrics',
    ]);
    const chatSchema = document.components.schemas['CreateChatCompletionRequest'];
    expect(Object.keys(chatSchema?.properties ?? {})).toContain('max_completion_tokens');
  });
});
