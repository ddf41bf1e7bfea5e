import type { AgentArchive, BlockStore, NewAgent } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { allOf, blockOf, hashOf, IDENTITY } from './stored-blocks.ts';

export interface OpenedArchive {
  readonly agents: AgentArchive;
  /** The store whose blocks agents refer to. */
  readonly blocks: BlockStore;
}

export interface AgentArchiveHarness {
  /** Fresh and empty. */
  open(): Promise<OpenedArchive>;
  /** Closes it and opens what it left; null for archives that keep nothing. */
  readonly reopen: ((opened: OpenedArchive) => Promise<OpenedArchive>) | null;
}

const NEW_AGENT: NewAgent = { tenant: 'default', name: 'ada', identity: IDENTITY, atMs: 1000 };
const TOKENS = Int32Array.from({ length: 40 }, (_, index) => 7 * index);

/** What every AgentArchive owes the engine. */
export function describeAgentArchive(name: string, harness: AgentArchiveHarness): void {
  describe(`${name} as an AgentArchive`, () => {
    const using = async (work: (opened: OpenedArchive) => Promise<OpenedArchive | void>): Promise<void> => {
      const opened = await harness.open();
      const last = (await work(opened)) ?? opened;
      await last.blocks.close();
      await last.agents.close();
    };
    const turn = (startTokens: number, count: number, atMs = 2000) =>
      ({
        kind: 'turn',
        startTokens,
        tokenIds: TOKENS.slice(startTokens, startTokens + count),
        segments: JSON.stringify({ said: `from ${startTokens}` }),
        atMs,
      }) as const;

    it('keeps turns with their tokens, text and ends', () =>
      using(async ({ agents }) => {
        const { agentId } = await agents.create(NEW_AGENT);
        await agents.commit(agentId, turn(0, 25));
        expect(await agents.commit(agentId, turn(25, 15, 3000))).toMatchObject({
          agentId,
          tenant: 'default',
          name: 'ada',
          identity: IDENTITY,
          numTokens: 40,
          numTurns: 2,
          createdAtMs: 1000,
          lastUsedAtMs: 3000,
        });
        const manifest = await agents.read(agentId);
        expect(manifest.tokenIds).toEqual(TOKENS);
        expect(manifest.turns).toEqual([
          { endTokens: 25, atMs: 2000, segments: '{"said":"from 0"}', isCut: false },
          { endTokens: 40, atMs: 3000, segments: '{"said":"from 25"}', isCut: false },
        ]);
      }));

    it('refuses a turn that starts elsewhere, and changes nothing', () =>
      using(async ({ agents }) => {
        const { agentId } = await agents.create(NEW_AGENT);
        await agents.commit(agentId, turn(0, 10));
        for (const start of [0, 9, 11]) {
          await expect(agents.commit(agentId, turn(start, 5))).rejects.toMatchObject({ code: 'invalid-argument' });
        }
        expect((await agents.read(agentId)).tokenIds).toEqual(TOKENS.slice(0, 10));
      }));

    it('takes turns of many agents at once, in the order of the calls', () =>
      using(async ({ agents }) => {
        const ids = await Promise.all(
          Array.from(
            { length: 8 },
            async (_, index) => (await agents.create({ ...NEW_AGENT, name: `n${index}` })).agentId,
          ),
        );
        await Promise.all(
          ids.flatMap((agentId) => [
            agents.commit(agentId, turn(0, 10)),
            agents.note(agentId, { kind: 'use', atMs: 2500, promptTokens: 10, cachedTokens: 4 }),
            agents.commit(agentId, turn(10, 30)),
          ]),
        );
        for (const agentId of ids) {
          const manifest = await agents.read(agentId);
          expect(manifest.tokenIds).toEqual(TOKENS);
          expect(manifest.uses).toEqual({
            count: 1,
            promptTokens: 10,
            cachedTokens: 4,
            recent: [{ atMs: 2500, promptTokens: 10, cachedTokens: 4 }],
          });
        }
        expect((await agents.usage()).commits).toBe(16);
      }));

    it('rewinds to a token inside a turn and goes on from there', () =>
      using(async ({ agents }) => {
        const { agentId } = await agents.create(NEW_AGENT);
        await agents.commit(agentId, turn(0, 20));
        await agents.commit(agentId, turn(20, 20));
        await agents.note(agentId, { kind: 'blocks', group: 0, keep: 0, blocks: references(0, 1, 2) });
        expect(await agents.commit(agentId, { kind: 'rewind', numTokens: 22, atMs: 4000 })).toMatchObject({
          numTokens: 22,
          numTurns: 2,
          numBlocks: [1],
        });
        await agents.commit(agentId, { ...turn(22, 1), tokenIds: Int32Array.of(999) });
        const manifest = await agents.read(agentId);
        expect([...manifest.tokenIds]).toEqual([...TOKENS.slice(0, 22), 999]);
        expect(manifest.turns.map(({ endTokens, isCut }) => [endTokens, isCut])).toEqual([
          [20, false],
          [22, true],
          [23, false],
        ]);
        expect(manifest.blocks).toEqual([references(0)]);
        expect(manifest.formerBlocks).toEqual([
          { hash: hashOf(1), group: 0 },
          { hash: hashOf(2), group: 0 },
        ]);
        await expect(agents.commit(agentId, { kind: 'rewind', numTokens: 24, atMs: 1 })).rejects.toMatchObject({
          code: 'invalid-argument',
        });
      }));

    it('takes a turn that rewinds as one change', () =>
      using(async ({ agents }) => {
        const { agentId } = await agents.create(NEW_AGENT);
        await agents.commit(agentId, turn(0, 20));
        await agents.commit(agentId, turn(20, 20));
        await agents.note(agentId, { kind: 'blocks', group: 0, keep: 0, blocks: references(0, 1) });
        const entry = { ...turn(22, 0), rewinds: true, tokenIds: Int32Array.of(998, 999) } as const;
        expect(await agents.commit(agentId, entry)).toMatchObject({ numTokens: 24, numTurns: 3, numBlocks: [1] });
        const manifest = await agents.read(agentId);
        expect([...manifest.tokenIds]).toEqual([...TOKENS.slice(0, 22), 998, 999]);
        expect(manifest.turns.map(({ endTokens, isCut }) => [endTokens, isCut])).toEqual([
          [20, false],
          [22, true],
          [24, false],
        ]);
        const beyond = { ...entry, startTokens: 25 } as const;
        await expect(agents.commit(agentId, beyond)).rejects.toMatchObject({ code: 'invalid-argument' });
      }));

    it('starts an agent from what a fork brings', () =>
      using(async ({ agents }) => {
        const first = await agents.create({ ...NEW_AGENT, tokenIds: TOKENS, blocks: [references(0, 1)] });
        const fork = await agents.create({
          ...NEW_AGENT,
          name: 'fork',
          tokenIds: TOKENS.slice(0, 30),
          turns: [{ endTokens: 30, atMs: 1, segments: '[]', isCut: true }],
          blocks: [references(0), references(5)],
        });
        expect([first.numTokens, fork.numTokens, fork.numTurns, fork.numBlocks]).toEqual([40, 30, 1, [1, 1]]);
        expect(await agents.read(fork.agentId)).toMatchObject({ blocks: [references(0), references(5)] });
      }));

    it('takes a name once a tenant', () =>
      using(async ({ agents }) => {
        const { agentId } = await agents.create(NEW_AGENT);
        await expect(agents.create(NEW_AGENT)).rejects.toMatchObject({ code: 'agent-exists' });
        await agents.create({ ...NEW_AGENT, tenant: 'other' });
        await agents.delete(agentId);
        await agents.create(NEW_AGENT);
        expect((await allOf(agents.list())).map(({ tenant }) => tenant).sort()).toEqual(['default', 'other']);
      }));

    it('takes any text as a name', () =>
      using(async ({ agents }) => {
        const names = ['../../../tmp/x', 'a/b\\c', 'ünï\u0000code 🎈', '.', 'CON', 'x'.repeat(1000)];
        for (const text of names) await agents.create({ ...NEW_AGENT, name: text });
        expect((await allOf(agents.list())).map((summary) => summary.name).sort()).toEqual(names.sort());
      }));

    it('gives back what no other agent refers to when it deletes one, and removes those blocks', () =>
      using(async ({ agents, blocks }) => {
        await blocks.put([0, 1, 2, 3].map((seed) => blockOf(seed)));
        const first = await agents.create({ ...NEW_AGENT, tokenIds: TOKENS });
        const second = await agents.create({ ...NEW_AGENT, name: 'b', tokenIds: TOKENS });
        await agents.note(first.agentId, { kind: 'blocks', group: 0, keep: 0, blocks: references(0, 1, 2) });
        await agents.note(first.agentId, { kind: 'blocks', group: 0, keep: 1, blocks: [at(1, 3)] });
        await agents.note(second.agentId, { kind: 'blocks', group: 0, keep: 0, blocks: references(0, 1) });
        const orphans = await agents.delete(first.agentId);
        expect(orphans.map(({ hash }) => hash).sort()).toEqual([hashOf(2), hashOf(3)].sort());
        const keys = [0, 1, 2, 3].map((seed) => ({ hash: hashOf(seed), group: 0 }));
        expect(await blocks.has(keys)).toEqual([true, true, false, false]);
        expect((await agents.delete(second.agentId)).map(({ hash }) => hash).sort()).toEqual(
          [hashOf(0), hashOf(1)].sort(),
        );
        expect(await blocks.has(keys)).toEqual([false, false, false, false]);
        for (const work of [() => agents.read(first.agentId), () => agents.delete(first.agentId)]) {
          await expect(work()).rejects.toMatchObject({ code: 'agent-not-found' });
        }
      }));

    it('knows no agent by an id that is none', () =>
      using(async ({ agents }) => {
        for (const agentId of ['', '../x', '0'.repeat(32), 'F'.repeat(32)]) {
          await expect(agents.read(agentId)).rejects.toMatchObject({ code: 'agent-not-found' });
          await expect(agents.commit(agentId, turn(0, 1))).rejects.toMatchObject({ code: 'agent-not-found' });
          await expect(agents.delete(agentId)).rejects.toMatchObject({ code: 'agent-not-found' });
        }
      }));

    it('refuses entries that do not fit', () =>
      using(async ({ agents }) => {
        const { agentId } = await agents.create({ ...NEW_AGENT, tokenIds: TOKENS });
        const bad = [
          { kind: 'blocks', group: 0, keep: 1, blocks: [] },
          { kind: 'blocks', group: -1, keep: 0, blocks: [] },
          { kind: 'blocks', group: 0, keep: 0, blocks: [at(3, 1)] },
          { kind: 'blocks', group: 0, keep: 0, blocks: [at(1, 1), at(0, 1)] },
          { kind: 'blocks', group: 0, keep: 0, blocks: [{ ...at(0, 1), hash: 'short' }] },
          { kind: 'use', atMs: 1, promptTokens: 3, cachedTokens: 4 },
        ] as const;
        for (const entry of bad) {
          await expect(agents.note(agentId, entry)).rejects.toMatchObject({ code: 'invalid-argument' });
        }
        expect(await agents.read(agentId)).toMatchObject({ blocks: [], uses: { count: 0 } });
      }));

    it('refuses everything once it is closed, which may be done twice', async () => {
      const { agents, blocks } = await harness.open();
      await blocks.close();
      await agents.close();
      await agents.close();
      await expect(agents.create(NEW_AGENT)).rejects.toMatchObject({ code: 'disposed' });
      await expect(agents.usage()).rejects.toMatchObject({ code: 'disposed' });
    });

    const { reopen } = harness;
    if (reopen === null) return;
    it('finds everything again', () =>
      using(async (opened) => {
        const { agentId } = await opened.agents.create(NEW_AGENT);
        await opened.agents.commit(agentId, turn(0, 40));
        await opened.agents.commit(agentId, { ...turn(30, 10), rewinds: true });
        await opened.agents.commit(agentId, { kind: 'pin', pinnedTokens: 16, atMs: 5 });
        await opened.agents.note(agentId, { kind: 'blocks', group: 1, keep: 0, blocks: references(0, 1) });
        await opened.agents.note(agentId, { kind: 'use', atMs: 9000, promptTokens: 40, cachedTokens: 16 });
        const gone = await opened.agents.create({ ...NEW_AGENT, name: 'gone' });
        await opened.agents.delete(gone.agentId);
        const before = await opened.agents.read(agentId);
        const again = await reopen(opened);
        expect(await allOf(again.agents.list())).toMatchObject([
          { agentId, numTokens: 40, pinnedTokens: 16, numBlocks: [0, 2], lastUsedAtMs: 9000, cachedTokens: 16 },
        ]);
        expect(await again.agents.read(agentId)).toEqual(before);
        expect(await again.agents.usage()).toMatchObject({ opening: 'clean', agents: 1 });
        return again;
      }));
  });
}

/** Block `index` of 16 tokens. */
function at(index: number, seed: number) {
  return { startToken: index * 16, numTokens: index === 2 ? 8 : 16, hash: hashOf(seed) };
}

function references(...seeds: readonly number[]) {
  return seeds.map((seed, index) => at(index, seed));
}
