import { KvasirError, type PrefixReuse } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import type { AppOptions } from '../src/http/app-environment.ts';
import { createTestAgents, createTestApp, readEvents, say, type TestApp } from './test-app.ts';

const fresh = async (options: Partial<AppOptions> = {}) => createTestApp(options, await createTestAgents());
const chat = (content = 'hi') => ({ model: 'default', messages: [{ role: 'user', content }] });
const ADA = { 'x-agent-id': 'ada' };

interface Shown {
  readonly name: string;
  readonly tokens: number;
  readonly turns: number;
  readonly busy?: boolean;
  readonly pinned_tokens?: number | 'all';
}

async function get<Body = Shown>(app: TestApp, path: string, headers: Record<string, string> = {}): Promise<Body> {
  const response = await app.app.request(path, { headers });
  expect(response.status).toBe(200);
  return (await response.json()) as Body;
}

async function problemOf(response: Response): Promise<{ status: number; code: string; param: string | null }> {
  const { error } = (await response.json()) as { error: { code: string; param: string | null } };
  return { status: response.status, code: error.code, param: error.param };
}

describe('a turn of an agent', () => {
  it('makes the agent, keeps prompt and answer, and goes on from there', async () => {
    const app = await fresh();
    app.engine.script = say('hello');
    expect((await app.post('/v1/chat/completions', chat(), ADA)).status).toBe(200);
    // "user: hi\n" and "hello": a byte a token.
    expect(await get(app, '/v1/agents/ada')).toMatchObject({ name: 'ada', tokens: 14, turns: 1, busy: false });
    const messages = [...chat().messages, { role: 'assistant', content: 'hello' }, { role: 'user', content: 'and?' }];
    await app.post('/v1/completions', { model: 'default', prompt: 'user: hi\nhello more', agent_id: 'ada' });
    expect(await get(app, '/v1/agents/ada')).toMatchObject({ tokens: 24, turns: 2 });
    await app.post('/v1/chat/completions', { model: 'default', messages, agent_id: 'ada' }, ADA);
    const { manifest } = await app.agents.inspect({ tenant: 'default', name: 'ada' });
    // The template writes a line feed's role after "hi": the third turn leaves the first's answer and rewinds.
    expect(manifest.turns.at(-1)?.isCut).toBe(false);
    expect(app.engine.requests.map(({ tenant, owner }) => [tenant, owner])).toEqual(
      [1, 2, 3].map(() => ['default', manifest.agentId]),
    );
  });

  it('is committed before the last event, and its answer fails when it cannot be', async () => {
    const app = await fresh();
    app.engine.script = say('ab');
    const order: string[] = [];
    const commit = app.archive.commit.bind(app.archive);
    app.archive.commit = async (...entry) => {
      order.push('begun');
      await new Promise((resolve) => setTimeout(resolve, 20));
      const summary = await commit(...entry);
      order.push('committed');
      return summary;
    };
    const response = await app.post('/v1/chat/completions', { ...chat(), stream: true }, ADA);
    const decoder = new TextDecoder();
    for await (const piece of response.body ?? []) {
      if (decoder.decode(piece).includes('"finish_reason":"stop"')) order.push('finish');
    }
    expect(order).toEqual(['begun', 'committed', 'finish']);
    app.archive.refuse('disk-full');
    const failed = await app.post('/v1/chat/completions', chat('again'), ADA);
    expect(await problemOf(failed)).toMatchObject({ status: 503, code: 'disk_full' });
    const events = await app.post('/v1/chat/completions', { ...chat('again'), stream: true }, ADA);
    expect(await events.text()).toMatch(/event: error\ndata: .*disk_full/);
    app.archive.refuse(null);
    expect(await get(app, '/v1/agents/ada')).toMatchObject({ turns: 1, busy: false });
  });

  it('changes nothing when it fails or its client leaves, and lets the next one in', async () => {
    const app = await fresh();
    app.engine.script = () => ({
      tokenIds: [97],
      end: { reason: 'error', error: new KvasirError('device-lost', 'x') },
    });
    expect((await app.post('/v1/chat/completions', chat(), ADA)).status).toBe(503);
    app.engine.script = say('abc', 'hang');
    const response = await app.post('/v1/chat/completions', { ...chat(), stream: true }, ADA);
    const reader = response.body?.getReader();
    await reader?.read();
    expect(await get(app, '/v1/agents/ada')).toMatchObject({ tokens: 0, busy: true });
    await reader?.cancel();
    app.engine.failure = new KvasirError('overloaded', 'expected fewer');
    expect((await app.post('/v1/chat/completions', chat(), ADA)).status).toBe(429);
    app.engine.failure = null;
    app.template.write = () => {
      throw new KvasirError('template-failed', 'no');
    };
    expect((await app.post('/v1/chat/completions', chat(), ADA)).status).toBe(400);
    app.engine.script = say('ok');
    await app.post('/v1/completions', { model: 'default', prompt: 'x' }, ADA);
    expect(await get(app, '/v1/agents/ada')).toMatchObject({ tokens: 3, turns: 1, busy: false });
  });

  it('waits for the turn before, and a waiting client that leaves does not run', async () => {
    const app = await fresh();
    app.engine.script = say('a', 'hang');
    const first = await app.post('/v1/chat/completions', { ...chat(), stream: true }, ADA);
    const reader = first.body?.getReader();
    await reader?.read();
    app.engine.script = say('b');
    const controller = new AbortController();
    const body = JSON.stringify(chat());
    const headers = { 'content-type': 'application/json', ...ADA };
    const request = (signal?: AbortSignal) =>
      app.app.request(
        new Request('http://localhost/v1/chat/completions', {
          method: 'POST',
          headers,
          body,
          ...(signal === undefined ? {} : { signal }),
        }),
      );
    const leaving = request(controller.signal);
    const waiting = request();
    controller.abort();
    expect((await leaving).status).toBe(499);
    expect(app.engine.requests).toHaveLength(1);
    app.engine.generations[0]?.finish();
    expect((await waiting).status).toBe(200);
    await reader?.cancel();
  });

  it('keeps the tokens wholly before a stop string', async () => {
    const app = await fresh();
    app.engine.script = say('one STOP two');
    const body = { ...chat(), stop: 'STOP' };
    const response = await app.post('/v1/chat/completions', body, ADA);
    expect(await response.json()).toMatchObject({ choices: [{ message: { content: 'one ' } }] });
    expect(await get(app, '/v1/agents/ada')).toMatchObject({ tokens: 9 + 4 });
  });

  it('names what it does not take', async () => {
    const app = await fresh();
    const post = (path: string, body: object, headers = {}) => app.post(path, { model: 'default', ...body }, headers);
    const refused: [string, object, object, string, string][] = [
      ['/v1/chat/completions', { ...chat(), agent_id: 'bob' }, ADA, 'agent_id', 'invalid_argument'],
      ['/v1/chat/completions', { ...chat(), n: 2 }, ADA, 'n', 'unsupported_parameter'],
      ['/v1/completions', { prompt: ['a', 'b'] }, ADA, 'prompt', 'unsupported_parameter'],
      ['/v1/completions', { prompt: 'a', best_of: 2 }, ADA, 'best_of', 'unsupported_parameter'],
      ['/v1/completions', { prompt: 'a', agent_id: '../x' }, {}, 'name', 'invalid_argument'],
    ];
    for (const [path, body, headers, param, code] of refused) {
      expect(await problemOf(await post(path, body, headers))).toEqual({ status: 400, code, param });
    }
    expect(await get(app, '/v1/agents')).toMatchObject({ data: [] });
  });

  it('uses the ids of its tokens again after a restart', async () => {
    const kept = await createTestAgents();
    const before = createTestApp({}, kept);
    const write = ({ messages }: { messages: readonly { role: string; content: unknown }[] }) => [
      {
        text: messages.map(({ role, content }) => `${role}:${String(content)}<end>`).join('') + 'assistant:',
        special: true,
      },
    ];
    before.template.write = write;
    before.engine.script = say('é!');
    await before.post('/v1/chat/completions', chat(), ADA);
    await before.post('/v1/agents/ada/fork', { name: 'fork' });
    const after = createTestApp({}, await createTestAgents(kept));
    after.template.write = write;
    after.engine.script = say('x');
    const messages = [...chat().messages, { role: 'assistant', content: 'é!' }, { role: 'user', content: 'more' }];
    await after.post('/v1/chat/completions', { model: 'default', messages }, ADA);
    const first = before.engine.requests[0]?.promptIds ?? new Int32Array();
    const second = after.engine.requests[0]?.promptIds ?? new Int32Array();
    expect([...second.subarray(0, first.length + 3)]).toEqual([...first, 0xc3, 0xa9, 0x21]);
    expect(await get(after, '/v1/agents/ada')).toMatchObject({ turns: 2 });
    const { manifest } = await kept.agents.inspect({ tenant: 'default', name: 'ada' });
    expect(manifest.turns.map(({ isCut }) => isCut)).toEqual([false, false]);
    // A fork's turns came with it: its next one keeps their ids, also where the agent it came from is gone.
    const later = createTestApp({}, await createTestAgents(kept));
    later.template.write = write;
    later.engine.script = say('x');
    await later.app.request('/v1/agents/ada', { method: 'DELETE' });
    await later.post('/v1/chat/completions', { model: 'default', messages, agent_id: 'fork' });
    expect([...(later.engine.requests[0]?.promptIds ?? [])]).toEqual([...second]);
    expect(await get(later, '/v1/agents/fork')).toMatchObject({
      turns: 2,
      turn_ends: [{ cut: false }, { cut: false }],
    });
  });
});

describe('what a prompt reused', () => {
  const reuse: PrefixReuse = {
    matchedTokens: 12,
    reusedTokens: 10,
    fromTier: { hot: 4, warm: 5, cold: 1 },
    restoredBytes: { warm: 500, cold: 100 },
    restoreMs: 1.23456,
    cause: 'never-seen',
  };
  const messages = [
    { role: 'user', content: 'hi' },
    { role: 'assistant', content: 'hello' },
    { role: 'user', content: 'more' },
  ];
  // user: hi\n assistant: hello\n user: more\n
  it.each([
    [3, { where: 'template' }],
    [6, { where: 'message', message_index: 0 }],
    [12, { where: 'template' }],
    [22, { where: 'message', message_index: 1 }],
    [35, { where: 'message', message_index: 2 }],
    [36, { where: 'template' }],
    [37, { where: 'end' }],
  ])('is said with where it ends: %i', async (matchedTokens, where) => {
    const app = await fresh();
    app.engine.script = say('x');
    app.engine.reuse = () => ({ ...reuse, matchedTokens });
    const response = await app.post('/v1/chat/completions', { model: 'default', messages });
    const body = (await response.json()) as { usage: object; kvasir: object };
    expect(body.usage).toMatchObject({ prompt_tokens_details: { cached_tokens: 10 } });
    expect(body.kvasir).toEqual({
      prompt_hash: expect.stringMatching(/^[0-9a-f]{64}$/),
      cache: {
        matched_tokens: matchedTokens,
        reused_tokens: 10,
        from: { hot: 4, warm: 5, cold: 1 },
        restored_bytes: { warm: 500, cold: 100 },
        restore_ms: 1.235,
        diverged_at: { token: matchedTokens, ...where },
        cause: 'never-seen',
      },
    });
    const place = 'message_index' in where ? `message:${where.message_index}` : where.where;
    expect(response.headers.get('x-kvasir-cache')).toBe(
      `matched=${matchedTokens};reused=10;hot=4;warm=5;cold=1;at=${matchedTokens};where=${place};cause=never-seen`,
    );
  });

  it('comes once in a stream, with its first event after the opening one, and in its headers', async () => {
    const app = await fresh();
    app.engine.script = say('abc');
    app.engine.reuse = () => reuse;
    for (const [path, body] of [
      ['/v1/chat/completions', chat()],
      ['/v1/completions', { model: 'default', prompt: 'hi there', echo: true }],
    ] as const) {
      const response = await app.post(path, { ...body, stream: true });
      expect(response.headers.get('x-kvasir-cache')).toMatch(/^matched=12;/);
      const events = (await readEvents(response)).slice(0, -1);
      const told = events.map((event) => 'kvasir' in (JSON.parse(event) as object));
      expect(told).toEqual([false, true, ...told.slice(2).map(() => false)]);
    }
    const several = await app.post('/v1/completions', { model: 'default', prompt: ['a', 'b'], n: 2, stream: true });
    const events = (await readEvents(several)).slice(0, -1).map((event) => JSON.parse(event) as object);
    const reports = events.filter((event) => 'kvasir' in event);
    expect(reports).toHaveLength(2);
    const whole = await app.post('/v1/completions', { model: 'default', prompt: ['a', 'b'] });
    expect(((await whole.json()) as { kvasir: object[] }).kvasir).toHaveLength(2);
  });

  it('gives a failure before the first token its status, in a stream too', async () => {
    const app = await fresh();
    app.engine.script = () => ({
      tokenIds: [],
      end: { reason: 'error', error: new KvasirError('out-of-memory', 'x') },
    });
    const response = await app.post('/v1/chat/completions', { ...chat(), stream: true });
    expect(await problemOf(response)).toMatchObject({ status: 503, code: 'out_of_memory' });
  });

  it('sends headers without it when the first token is long in coming', async () => {
    const app = await fresh();
    app.engine.script = () => ({ tokenIds: [], end: 'hang' });
    const response = await app.post('/v1/chat/completions', { ...chat(), stream: true });
    expect(response.status).toBe(200);
    expect(response.headers.get('x-kvasir-cache')).toBeNull();
    await response.body?.cancel();
  });

  it('knows when the template left an answer out', async () => {
    const app = await fresh();
    app.template.write = ({ messages: all }) => [
      {
        text: `${all.map(({ role, content }) => `${role}:${String(content).split('</think>').at(-1)}<end>`).join('')}assistant:`,
        special: true,
      },
    ];
    app.engine.script = say('<think>hm</think>yes');
    app.engine.reuse = () => reuse;
    await app.post('/v1/chat/completions', chat());
    const asked = (content: string) => ({
      model: 'default',
      messages: [...chat().messages, { role: 'assistant', content }, { role: 'user', content: 'and' }],
    });
    const cause = async (body: object): Promise<string> => {
      const answer = (await (await app.post('/v1/chat/completions', body)).json()) as {
        kvasir: { cache: { cause: string } };
      };
      return answer.kvasir.cache.cause;
    };
    expect(await cause(asked('<think>hm</think>yes'))).toBe('template-stripped');
    expect(await cause(asked('<think>hm</think>no'))).toBe('never-seen');
    app.engine.reuse = () => ({ ...reuse, cause: 'evicted' });
    expect(await cause(asked('<think>hm</think>yes'))).toBe('evicted');
  });

  it('is counted', async () => {
    const app = await fresh();
    app.engine.script = say('x');
    app.engine.reuse = () => reuse;
    await app.post('/v1/chat/completions', chat(), ADA);
    await (await app.post('/v1/chat/completions', { ...chat(), stream: true }, ADA)).text();
    const metrics = await (await app.app.request('/metrics')).text();
    for (const line of [
      'kvasir_agent_turns_total 2',
      'kvasir_reused_tokens_total{tier="warm"} 10',
      'kvasir_restored_bytes_total{tier="cold"} 200',
      'kvasir_reuse_limits_total{cause="never-seen"} 2',
      'kvasir_agents 1',
    ]) {
      expect(metrics).toContain(`\n${line}\n`);
    }
  });
});

describe('/v1/agents', () => {
  it('creates, lists in pages, inspects and deletes', async () => {
    const app = await fresh();
    for (const name of ['b', 'a', 'c:x@y']) {
      const made = await app.post('/v1/agents', { name });
      expect(made.status).toBe(201);
      expect(await made.json()).toMatchObject({ object: 'agent', name, tokens: 0, pinned_tokens: 0 });
    }
    expect(await problemOf(await app.post('/v1/agents', { name: 'a' }))).toEqual({
      status: 409,
      code: 'agent_exists',
      param: 'name',
    });
    const page = await get<{ data: Shown[]; has_more: boolean }>(app, '/v1/agents?limit=2');
    expect([page.data.map(({ name }) => name), page.has_more]).toEqual([['a', 'b'], true]);
    const rest = await get<{ data: Shown[]; has_more: boolean }>(app, '/v1/agents?limit=2&after=b');
    expect([rest.data.map(({ name }) => name), rest.has_more]).toEqual([['c:x@y'], false]);
    expect(await get(app, '/v1/agents/c%3Ax%40y')).toMatchObject({ name: 'c:x@y', turn_ends: [] });
    const deleted = await app.app.request('/v1/agents/c%3Ax%40y', { method: 'DELETE' });
    expect(await deleted.json()).toEqual({ object: 'agent.deleted', name: 'c:x@y', deleted: true });
    const gone = await app.app.request('/v1/agents/c%3Ax%40y');
    expect(await problemOf(gone)).toMatchObject({ status: 404, code: 'agent_not_found' });
  });

  it('forks, rewinds and pins', async () => {
    const app = await fresh();
    app.engine.script = say('hello');
    await app.post('/v1/chat/completions', chat(), ADA);
    await app.post('/v1/completions', { model: 'default', prompt: 'user: hi\nhello again' }, ADA);
    expect(await get(app, '/v1/agents/ada')).toMatchObject({
      tokens: 25,
      turn_ends: [
        { tokens: 14, cut: false },
        { tokens: 25, cut: false },
      ],
    });
    const fork = await app.post('/v1/agents/ada/fork', { name: 'fork', turns: 1 });
    expect([fork.status, await fork.json()]).toMatchObject([201, { name: 'fork', tokens: 14, turns: 1 }]);
    expect(await (await app.post('/v1/agents/ada/fork', { name: 'all' })).json()).toMatchObject({ tokens: 25 });
    expect(await (await app.post('/v1/agents/ada/rewind', { tokens: 20 })).json()).toMatchObject({ tokens: 20 });
    expect(await (await app.post('/v1/agents/ada/pin', { tokens: 'all' })).json()).toMatchObject({
      pinned_tokens: 'all',
    });
    expect(await (await app.post('/v1/agents/ada/pin', { tokens: 0 })).json()).toMatchObject({ pinned_tokens: 0 });
  });

  it('says what is wrong with a request, all of it', async () => {
    const app = await fresh();
    await app.post('/v1/agents', { name: 'ada' });
    const wrong: [string, string, object | null, number, string | null][] = [
      ['POST', '/v1/agents', {}, 400, 'name'],
      ['POST', '/v1/agents', { name: 'x', nam: 1 }, 400, 'nam'],
      ['POST', '/v1/agents', { name: 'a/b' }, 400, 'name'],
      ['POST', '/v1/agents/ada/fork', { name: 'b', tokens: 1, turns: 1 }, 400, 'turns'],
      ['POST', '/v1/agents/ada/fork', { name: 'b', tokens: 1 }, 400, 'tokens'],
      ['POST', '/v1/agents/ada/rewind', {}, 400, 'tokens'],
      ['POST', '/v1/agents/ada/rewind', { turns: -1 }, 400, 'turns'],
      ['POST', '/v1/agents/ada/pin', { tokens: 'some' }, 400, 'tokens'],
      ['GET', '/v1/agents?limit=0', null, 400, 'limit'],
      ['GET', '/v1/agents?limits=1', null, 400, 'limits'],
      ['GET', '/v1/agents/%2e%2e%2fx', null, 400, 'name'],
      ['GET', '/v1/agents/none', null, 404, 'agent'],
      ['DELETE', '/v1/agents/none', null, 404, 'agent'],
      ['POST', '/v1/agents/none/rewind', { tokens: 0 }, 404, 'agent'],
    ];
    for (const [method, path, body, status, param] of wrong) {
      const headers = { 'content-type': 'application/json' };
      const init = body === null ? { method } : { method, headers, body: JSON.stringify(body) };
      expect(await problemOf(await app.app.request(path, init)), path).toMatchObject({ status, param });
    }
    expect((await app.app.request('/v1/agents/ada', { method: 'PATCH' })).status).toBe(405);
  });

  it('moves an agent as a file, and takes no damaged or too large one', async () => {
    const app = await fresh({ maxImportBytes: 100_000 });
    app.engine.script = say('hello');
    await app.post('/v1/chat/completions', chat(), ADA);
    const exported = await app.app.request('/v1/agents/ada/export');
    expect(exported.headers.get('content-disposition')).toBe('attachment; filename="ada.safetensors"');
    const file = new Uint8Array(await exported.arrayBuffer());
    const upload = (name: string, body: Uint8Array | ReadableStream, query = '') =>
      app.app.request(
        new Request(`http://localhost/v1/agents/${name}/import${query}`, {
          method: 'POST',
          body,
          duplex: 'half',
        } as RequestInit),
      );
    const imported = await upload('copy', file);
    expect([imported.status, await imported.json()]).toMatchObject([
      201,
      { agent: { name: 'copy', tokens: 14, turns: 1 }, blocks: 1, refused: [] },
    ]);
    expect(await problemOf(await upload('copy', file))).toMatchObject({ status: 409, code: 'agent_exists' });
    const truncated = await upload('b', file.slice(0, -1));
    expect(await problemOf(truncated)).toMatchObject({ status: 400, code: 'file_truncated' });
    const foreign = await upload('b', new Uint8Array(1000).fill(7));
    expect(await problemOf(foreign)).toMatchObject({ status: 400, code: 'file_foreign' });
    const corrupt = await upload('b', file.with(file.length - 20, (file.at(-20) as number) ^ 1));
    expect(await problemOf(corrupt)).toMatchObject({ status: 400, code: 'file_corrupt' });
    let sent = 0;
    const endless = new ReadableStream({
      pull(controller) {
        const piece = sent === 0 ? file.slice(0, 8) : new Uint8Array(10_000).fill(0x20);
        sent += piece.length;
        controller.enqueue(sent === 8 ? Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 0) : piece);
      },
    });
    expect((await upload('b', endless)).status).toBe(413);
    expect(sent).toBeLessThan(200_000);
    expect(await problemOf(await upload('b', file, '?accept=1'))).toMatchObject({ status: 400, param: 'accept' });
    expect((await get<{ data: unknown[] }>(app, '/v1/agents')).data).toHaveLength(2);
  });

  it('is refused by name where none are kept', async () => {
    const kept = await createTestAgents();
    const app = createTestApp({}, { ...kept, agents: null as never });
    for (const response of [await app.app.request('/v1/agents'), await app.post('/v1/chat/completions', chat(), ADA)]) {
      expect(await problemOf(response)).toEqual({ status: 400, code: 'unsupported_parameter', param: 'agent_id' });
    }
    expect((await app.post('/v1/chat/completions', chat())).status).toBe(200);
  });
});

describe('tenants', () => {
  const apiKeys = { acme: ['sesame-acme', 'sesame-acme-2'], umbrella: ['sesame-umbrella'] };
  const as = (key: string) => ({ authorization: `Bearer ${key}` });

  it('have agents and prefixes of their own', async () => {
    const app = await fresh({ apiKeys, apiKey: 'sesame-default' });
    app.engine.script = say('x');
    const { acme, umbrella } = { acme: as('sesame-acme'), umbrella: as('sesame-umbrella') };
    await app.post('/v1/chat/completions', chat('for acme alone'), { ...ADA, ...acme });
    await app.post('/v1/chat/completions', chat(), { ...ADA, ...umbrella });
    await app.post('/v1/chat/completions', chat(), { ...ADA, ...as('sesame-default') });
    expect(app.engine.requests.map(({ tenant }) => tenant)).toEqual(['acme', 'umbrella', 'default']);
    expect(await get(app, '/v1/agents/ada', as('sesame-acme-2'))).toMatchObject({ tokens: 22 });
    expect(await get(app, '/v1/agents/ada', umbrella)).toMatchObject({ tokens: 10 });
    await app.post('/v1/agents', { name: 'secret' }, acme);
    for (const path of ['/v1/agents/secret', '/v1/agents/secret/export']) {
      const strange = await app.app.request(path, { headers: umbrella });
      expect(await problemOf(strange)).toMatchObject({ status: 404, code: 'agent_not_found' });
    }
    const listed = await get<{ data: Shown[] }>(app, '/v1/agents', umbrella);
    expect(listed.data.map(({ name }) => name)).toEqual(['ada']);
  });

  it('need a key once there is one', async () => {
    const app = await fresh({ apiKeys });
    for (const headers of [{}, as('sesame'), as('sesame-acme-'), { authorization: 'sesame-acme' }]) {
      const response = await app.app.request('/v1/agents', { headers });
      expect(response.status).toBe(401);
      expect(await response.text()).not.toMatch(/sesame/);
    }
    expect((await app.app.request('/health/live')).status).toBe(200);
  });
});
