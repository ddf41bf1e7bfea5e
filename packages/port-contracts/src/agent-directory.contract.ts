import type { AgentDirectory, AgentName, AgentTurnInProgress, FinishedTurn } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';

export interface OpenedDirectory {
  readonly agents: AgentDirectory;
  /** Ids below it are tokens. */
  readonly vocabularySize: number;
  close(): Promise<void>;
}

export interface AgentDirectoryHarness {
  /** Fresh and empty. */
  open(): Promise<OpenedDirectory>;
  /** As if by another server on another machine: another model, or another backend of the same. */
  openOther(which: 'model' | 'numerics'): Promise<OpenedDirectory>;
  /** Closes it and opens what it left; null for directories that keep nothing. */
  readonly reopen: ((opened: OpenedDirectory) => Promise<OpenedDirectory>) | null;
}

const ADA: AgentName = { tenant: 'default', name: 'ada' };
const TOKENS = Int32Array.from({ length: 100 }, (_, index) => (7 * index) % 250);
const BAD_NAMES = ['', '-a', '.a', 'a/b', '../a', 'a b', 'ä', 'a\n', 'x'.repeat(129)];

/** What every AgentDirectory owes its callers. */
export function describeAgentDirectory(name: string, harness: AgentDirectoryHarness): void {
  describe(`${name} as an AgentDirectory`, () => {
    const using = async (work: (opened: OpenedDirectory) => Promise<OpenedDirectory | void>): Promise<void> => {
      const opened = await harness.open();
      let last = opened;
      try {
        last = (await work(opened)) ?? opened;
      } finally {
        await last.close();
      }
    };
    const turnOf = (tokenIds: Int32Array, segments = '{}'): FinishedTurn => ({
      tokenIds,
      segments,
      promptTokens: tokenIds.length,
      cachedTokens: 0,
    });
    const live = async (agents: AgentDirectory, agent: AgentName, tokenIds: Int32Array, segments?: string) => {
      const turn = await agents.beginTurn(agent, { createAbsent: true });
      return turn.commit(turnOf(tokenIds, segments));
    };
    const tokensOf = async (agents: AgentDirectory, agent: AgentName) => [
      ...(await agents.inspect(agent)).manifest.tokenIds,
    ];

    it('creates, lists by name and page, inspects and deletes, each tenant by itself', () =>
      using(async ({ agents }) => {
        for (const one of ['b', 'a', 'C', 'd']) await agents.create({ tenant: 'default', name: one });
        await agents.create({ tenant: 'other', name: 'a' });
        const names = async (page: { after?: string; limit: number }, tenant = 'default') =>
          (await agents.list(tenant, page)).map((summary) => summary.name);
        expect(await names({ limit: 10 })).toEqual(['C', 'a', 'b', 'd']);
        expect(await names({ limit: 2 })).toEqual(['C', 'a']);
        expect(await names({ after: 'a', limit: 2 })).toEqual(['b', 'd']);
        expect(await names({ after: 'aa', limit: 1 })).toEqual(['b']);
        expect(await names({ limit: 9 }, 'other')).toEqual(['a']);
        expect(await names({ limit: 9 }, 'nobody')).toEqual([]);
        expect(await agents.inspect({ tenant: 'other', name: 'a' })).toMatchObject({
          manifest: { name: 'a', tenant: 'other', turns: [] },
          isBusy: false,
        });
        await agents.delete({ tenant: 'default', name: 'a' });
        expect(await names({ limit: 10 })).toEqual(['C', 'b', 'd']);
        expect(await names({ limit: 9 }, 'other')).toEqual(['a']);
        await agents.create({ tenant: 'default', name: 'a' });
      }));

    it('knows no agent of another tenant, whatever is asked', () =>
      using(async ({ agents }) => {
        await agents.create(ADA);
        const stranger = { tenant: 'other', name: 'ada' };
        const asking = [
          () => agents.inspect(stranger),
          () => agents.fork(stranger, 'x'),
          () => agents.rewind(stranger, { tokens: 0 }),
          () => agents.pin(stranger, 1),
          () => agents.delete(stranger),
          () => agents.export(stranger),
          () => agents.beginTurn(stranger, { createAbsent: false }),
        ];
        for (const ask of asking) await expect(ask()).rejects.toMatchObject({ code: 'agent-not-found' });
      }));

    it('refuses names that are none, and names that are taken', () =>
      using(async ({ agents }) => {
        for (const bad of BAD_NAMES) {
          const agent = { tenant: 'default', name: bad };
          await expect(agents.create(agent)).rejects.toMatchObject({ code: 'invalid-argument' });
          await expect(agents.beginTurn(agent, { createAbsent: true })).rejects.toMatchObject({
            code: 'invalid-argument',
          });
        }
        const made = await Promise.allSettled([agents.create(ADA), agents.create(ADA)]);
        expect(made.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
        await expect(agents.create(ADA)).rejects.toMatchObject({ code: 'agent-exists' });
        await agents.create({ tenant: 'default', name: 'b' });
        await expect(agents.fork(ADA, 'b')).rejects.toMatchObject({ code: 'agent-exists' });
        await expect(agents.fork(ADA, 'no/name')).rejects.toMatchObject({ code: 'invalid-argument' });
      }));

    it('keeps what a turn commits, and nothing of one that is released', () =>
      using(async ({ agents }) => {
        const turn = await agents.beginTurn(ADA, { createAbsent: true });
        expect(turn.manifest.tokenIds).toHaveLength(0);
        const summary = await turn.commit({ ...turnOf(TOKENS.slice(0, 20), '{"a":1}'), cachedTokens: 5 });
        expect(summary).toMatchObject({ numTokens: 20, numTurns: 1, useCount: 1, promptTokens: 20, cachedTokens: 5 });
        turn.release();
        await expect(turn.commit(turnOf(TOKENS))).rejects.toMatchObject({ code: 'invalid-argument' });
        const dropped = await agents.beginTurn(ADA, { createAbsent: false });
        dropped.release();
        dropped.release();
        const { manifest } = await agents.inspect(ADA);
        expect(manifest.turns).toMatchObject([{ endTokens: 20, segments: '{"a":1}', isCut: false }]);
        expect([...manifest.tokenIds]).toEqual([...TOKENS.subarray(0, 20)]);
      }));

    it('rewinds by itself to where a turn leaves the earlier ones', () =>
      using(async ({ agents }) => {
        await live(agents, ADA, TOKENS.slice(0, 20));
        await live(agents, ADA, TOKENS.slice(0, 40));
        const other = Int32Array.of(...TOKENS.slice(0, 30), 249, 248);
        await live(agents, ADA, other);
        expect(await tokensOf(agents, ADA)).toEqual([...other]);
        const { manifest } = await agents.inspect(ADA);
        expect(manifest.turns.map(({ endTokens, isCut }) => [endTokens, isCut])).toEqual([
          [20, false],
          [30, true],
          [32, false],
        ]);
        await live(agents, ADA, TOKENS.slice(0, 10));
        expect(await tokensOf(agents, ADA)).toEqual([...TOKENS.subarray(0, 10)]);
      }));

    it('lets one turn of an agent run at a time, in the order they came, and others beside it', () =>
      using(async ({ agents }) => {
        const order: string[] = [];
        const first = await agents.beginTurn(ADA, { createAbsent: true });
        const waiting = ['second', 'third'].map(async (label) => {
          const turn = await agents.beginTurn(ADA, { createAbsent: false });
          order.push(label);
          await turn.commit(turnOf(Int32Array.of(...turn.manifest.tokenIds, order.length)));
        });
        const rewound = agents.rewind(ADA, { tokens: 1 }).then(() => order.push('rewound'));
        await live(agents, { tenant: 'default', name: 'beside' }, TOKENS);
        expect((await agents.inspect(ADA)).isBusy).toBe(true);
        expect(order).toEqual([]);
        await first.commit(turnOf(Int32Array.of(100)));
        await Promise.all([...waiting, rewound]);
        expect(order).toEqual(['second', 'third', 'rewound']);
        expect(await tokensOf(agents, ADA)).toEqual([100]);
        expect((await agents.inspect(ADA)).isBusy).toBe(false);
      }));

    it('lets who waits leave', () =>
      using(async ({ agents }) => {
        const turn = await agents.beginTurn(ADA, { createAbsent: true });
        const controller = new AbortController();
        const { signal } = controller;
        const waiting = [
          agents.beginTurn(ADA, { createAbsent: false, signal }),
          agents.delete(ADA, signal),
          agents.rewind(ADA, { tokens: 0 }, signal),
          agents.fork(ADA, 'b', undefined, signal),
        ];
        controller.abort();
        for (const one of waiting) await expect(one).rejects.toMatchObject({ code: 'aborted' });
        await turn.commit(turnOf(TOKENS));
        expect(await tokensOf(agents, ADA)).toHaveLength(100);
        await expect(agents.beginTurn(ADA, { createAbsent: false, signal })).rejects.toMatchObject({ code: 'aborted' });
      }));

    it('deletes after the turn that runs; who waits then finds nothing', () =>
      using(async ({ agents }) => {
        const turn = await agents.beginTurn(ADA, { createAbsent: true });
        const deleted = agents.delete(ADA);
        const late = agents.beginTurn(ADA, { createAbsent: false });
        const fresh = agents.beginTurn(ADA, { createAbsent: true });
        await turn.commit(turnOf(TOKENS));
        await deleted;
        await expect(late).rejects.toMatchObject({ code: 'agent-not-found' });
        const again: AgentTurnInProgress = await fresh;
        expect(again.manifest.tokenIds).toHaveLength(0);
        again.release();
      }));

    it('rewinds to tokens and to turns, and no further', () =>
      using(async ({ agents }) => {
        for (const end of [20, 40, 60]) await live(agents, ADA, TOKENS.slice(0, end));
        expect(await agents.rewind(ADA, { turns: 2 })).toMatchObject({ numTokens: 40, numTurns: 2 });
        expect(await agents.rewind(ADA, { tokens: 30 })).toMatchObject({ numTokens: 30, numTurns: 2 });
        for (const cut of [{ tokens: 31 }, { turns: 3 }, { tokens: -1 }, { turns: 0.5 }]) {
          await expect(agents.rewind(ADA, cut)).rejects.toMatchObject({ code: 'invalid-argument' });
        }
        expect(await agents.rewind(ADA, { turns: 0 })).toMatchObject({ numTokens: 0, numTurns: 0 });
      }));

    it('forks what came before the cut, and each goes its way', () =>
      using(async ({ agents }) => {
        await live(agents, ADA, TOKENS.slice(0, 20), '{"turn":1}');
        await live(agents, ADA, TOKENS.slice(0, 40), '{"turn":2}');
        expect(await agents.fork(ADA, 'whole')).toMatchObject({ name: 'whole', numTokens: 40, numTurns: 2 });
        expect(await agents.fork(ADA, 'first', { turns: 1 })).toMatchObject({ numTokens: 20, numTurns: 1 });
        expect(await agents.fork(ADA, 'inside', { tokens: 25 })).toMatchObject({ numTokens: 25, numTurns: 2 });
        expect(await agents.fork(ADA, 'empty', { tokens: 0 })).toMatchObject({ numTokens: 0, numTurns: 0 });
        await expect(agents.fork(ADA, 'more', { tokens: 41 })).rejects.toMatchObject({ code: 'invalid-argument' });
        const inside = { tenant: 'default', name: 'inside' };
        expect((await agents.inspect(inside)).manifest.turns).toMatchObject([
          { endTokens: 20, segments: '{"turn":1}', isCut: false },
          { endTokens: 25, segments: '{"turn":2}', isCut: true },
        ]);
        await live(agents, inside, Int32Array.of(...TOKENS.slice(0, 25), 1, 2));
        await agents.delete(ADA);
        expect(await tokensOf(agents, inside)).toEqual([...TOKENS.slice(0, 25), 1, 2]);
        expect(await tokensOf(agents, { tenant: 'default', name: 'whole' })).toEqual([...TOKENS.subarray(0, 40)]);
      }));

    it('forks there and back at once without standing in its own way', () =>
      using(async ({ agents }) => {
        await live(agents, ADA, TOKENS.slice(0, 8));
        const other = { tenant: 'default', name: 'other' };
        await live(agents, other, TOKENS.slice(0, 9));
        const both = await Promise.allSettled([agents.fork(ADA, 'other'), agents.fork(other, 'ada')]);
        expect(both.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
        expect(await tokensOf(agents, other)).toHaveLength(9);
      }));

    it('pins tokens, all and none', () =>
      using(async ({ agents }) => {
        await live(agents, ADA, TOKENS);
        for (const pinnedTokens of [16, Number.MAX_SAFE_INTEGER, 0]) {
          expect(await agents.pin(ADA, pinnedTokens)).toMatchObject({ pinnedTokens });
        }
        await expect(agents.pin(ADA, -1)).rejects.toMatchObject({ code: 'invalid-argument' });
      }));

    it('exports an agent and imports it under a new name', () =>
      using(async ({ agents }) => {
        await live(agents, ADA, TOKENS.slice(0, 20), '{"turn":"eins ä \u2028"}');
        await live(agents, ADA, TOKENS.slice(0, 41), '{"turn":2}');
        const file = await collect(await agents.export(ADA));
        const copy = { tenant: 'other', name: 'copy' };
        const imported = await agents.import(copy, inPieces(file, 37));
        expect(imported.agent).toMatchObject({ tenant: 'other', name: 'copy', numTokens: 41, numTurns: 2 });
        const { manifest } = await agents.inspect(copy);
        const source = (await agents.inspect(ADA)).manifest;
        expect([manifest.tokenIds, manifest.turns]).toEqual([source.tokenIds, source.turns]);
        await expect(agents.import(copy, inPieces(file, 1000))).rejects.toMatchObject({ code: 'agent-exists' });
        await live(agents, copy, TOKENS.slice(0, 50));
        await agents.create({ tenant: 'default', name: 'nothing' });
        const empty = await collect(await agents.export({ tenant: 'default', name: 'nothing' }));
        expect((await agents.import({ tenant: 'default', name: 'e' }, inPieces(empty, 7))).agent.numTokens).toBe(0);
      }));

    it('takes no damaged file and leaves nothing of one behind', () =>
      using(async ({ agents }) => {
        await live(agents, ADA, TOKENS.slice(0, 41), '{}');
        const file = await collect(await agents.export(ADA));
        const copy = { tenant: 'default', name: 'copy' };
        const broken: Uint8Array[] = [];
        for (let at = 0; at < file.length; at += Math.max(1, Math.floor(file.length / 150))) {
          broken.push(file.slice(0, at), file.with(at, (file[at] as number) ^ 1));
        }
        broken.push(Uint8Array.of(...file, 0), file.slice(0, -1), new Uint8Array(9).fill(0xff));
        for (const bytes of broken) {
          await expect(agents.import(copy, inPieces(bytes, 64))).rejects.toMatchObject({
            code: expect.stringMatching(/^file-(corrupt|foreign|truncated)$/),
          });
        }
        expect(await agents.list('default', { limit: 10 })).toHaveLength(1);
        await expect(agents.inspect(copy)).rejects.toMatchObject({ code: 'agent-not-found' });
        expect((await agents.import(copy, inPieces(file, 64))).agent.numTokens).toBe(41);
      }));

    it('takes no file whose tokens or header are made up', () =>
      using(async ({ agents, vocabularySize }) => {
        const copy = { tenant: 'default', name: 'copy' };
        await live(agents, ADA, Int32Array.of(1, vocabularySize));
        const file = await collect(await agents.export(ADA));
        await expect(agents.import(copy, inPieces(file, 99))).rejects.toMatchObject({ code: 'file-corrupt' });
        const header = (text: string) => {
          const bytes = new TextEncoder().encode(text);
          const whole = new Uint8Array(8 + bytes.length + 64);
          new DataView(whole.buffer).setBigUint64(0, BigInt(bytes.length), true);
          whole.set(bytes, 8);
          return whole;
        };
        const metadata = (agent: object) => ({
          __metadata__: { format: 'kvasir-agent', version: '1', agent: JSON.stringify(agent) },
        });
        const hostile = [
          'null',
          '[]',
          '{}',
          '{"__metadata__":3}',
          '{"__metadata__":{"format":"kvasir-agent","version":"1"}}',
          '{"__metadata__":{"format":"kvasir-agent","version":"2","agent":"{}"}}',
          JSON.stringify(metadata({ numTokens: 2 ** 31, turns: [], blocks: [] })),
          JSON.stringify(metadata({ numTokens: 1e300, turns: [], blocks: [] })),
          `{"__metadata__":{"format":"kvasir-agent","version":"1","agent":"${'['.repeat(10_000)}"}}`,
        ];
        for (const text of hostile) {
          await expect(agents.import(copy, inPieces(header(text), 99))).rejects.toMatchObject({
            code: expect.stringMatching(/^file-(corrupt|foreign)$/),
          });
        }
      }));

    it('leaves nothing behind when its sender goes or fails', () =>
      using(async ({ agents }) => {
        await live(agents, ADA, TOKENS);
        const file = await collect(await agents.export(ADA));
        const copy = { tenant: 'default', name: 'copy' };
        const controller = new AbortController();
        let isClosed = false;
        const leaving = async function* (): AsyncGenerator<Uint8Array> {
          try {
            yield file.slice(0, file.length / 2);
            controller.abort();
            yield file.slice(file.length / 2);
          } finally {
            isClosed = true;
          }
        };
        await expect(agents.import(copy, leaving(), { signal: controller.signal })).rejects.toMatchObject({
          code: 'aborted',
        });
        expect(isClosed).toBe(true);
        const failing = async function* (): AsyncGenerator<Uint8Array> {
          yield file.slice(0, file.length / 2);
          throw new Error('connection lost');
        };
        await expect(agents.import(copy, failing())).rejects.toThrow('connection lost');
        expect(await agents.list('default', { limit: 10 })).toHaveLength(1);
      }));

    it('refuses the agents of another model, and takes the tokens alone of another numerics', () =>
      using(async ({ agents }) => {
        await live(agents, ADA, TOKENS);
        const file = await collect(await agents.export(ADA));
        const model = await harness.openOther('model');
        await expect(model.agents.import(ADA, inPieces(file, 500))).rejects.toMatchObject({
          code: 'agent-other-model',
        });
        expect(await model.agents.list('default', { limit: 5 })).toEqual([]);
        await model.close();
        const other = await harness.openOther('numerics');
        const without = await other.agents.import(ADA, inPieces(file, 500));
        expect(without.blocks).toBe(0);
        expect(without.agent.numTokens).toBe(100);
        const marked = { tenant: 'default', name: 'marked' };
        await other.agents.import(marked, inPieces(file, 500), { acceptNumerics: true });
        const identities = [ADA, marked].map(async (agent) => (await other.agents.inspect(agent)).manifest.identity);
        const [plain, mark] = await Promise.all(identities);
        expect(mark?.numericsId).not.toBe(plain?.numericsId);
        (await other.agents.beginTurn(marked, { createAbsent: false })).release();
        await other.close();
      }));

    const { reopen } = harness;
    if (reopen === null) return;
    it('finds everything again, and runs no turn of what another model left', () =>
      using(async (opened) => {
        await live(opened.agents, ADA, TOKENS.slice(0, 20), '{"turn":1}');
        await live(opened.agents, ADA, TOKENS.slice(0, 10), '{"turn":2}');
        await opened.agents.fork(ADA, 'fork');
        await opened.agents.pin(ADA, 4);
        await opened.agents.create({ tenant: 'other', name: 'gone' });
        await opened.agents.delete({ tenant: 'other', name: 'gone' });
        const before = (await opened.agents.inspect(ADA)).manifest;
        const again = await reopen(opened);
        expect((await again.agents.inspect(ADA)).manifest).toEqual(before);
        expect((await again.agents.list('default', { limit: 5 })).map((summary) => summary.name)).toEqual([
          'ada',
          'fork',
        ]);
        expect(await again.agents.list('other', { limit: 5 })).toEqual([]);
        return again;
      }));
  });
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of stream) pieces.push(piece);
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let length = 0;
  for (const piece of pieces) {
    whole.set(piece, length);
    length += piece.length;
  }
  return whole;
}

async function* inPieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) yield bytes.slice(start, start + size);
}
