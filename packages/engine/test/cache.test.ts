import { importedNumerics, kvScopeOf } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { FakeAgentArchive, FakeBlockStore } from '@kvasir/adapter-fake';
import { IDENTITY, commitTurn, createAgent, createCacheFixture, generate, run } from './cache-fixture.ts';
import { promptOf, request } from './engine-fixture.ts';

const joined = (...parts: (Int32Array | readonly number[])[]): Int32Array =>
  Int32Array.from(parts.flatMap((part) => [...part]));

describe('prefix cache', () => {
  it('computes only what it does not know, and answers the same', async () => {
    const fixture = createCacheFixture();
    const fresh = createCacheFixture();
    const first = await generate(fixture, { promptIds: promptOf(13), maxTokens: 6 });
    expect([first.reused, first.prefilled]).toEqual([0, 13]);
    const next = joined(promptOf(13), first.tokenIds, [5, 6, 7]);
    const second = await generate(fixture, { promptIds: next, maxTokens: 6 });
    const expected = await generate(fresh, { promptIds: next, maxTokens: 6 });
    // The last sampled token was never an input: 13 + 5 have KV.
    expect([second.reused, second.prefilled]).toEqual([18, 4]);
    expect(second.hashes).toEqual(expected.hashes);
    expect(second.tokenIds).toEqual(expected.tokenIds);
  });

  it.each([1, 3, 4, 5, 8, 12, 13])(
    'runs only the last token of a prompt of %i tokens that is all there',
    async (length) => {
      const fixture = createCacheFixture();
      const first = await generate(fixture, { promptIds: promptOf(length), maxTokens: 4 });
      const again = await generate(fixture, { promptIds: promptOf(length), maxTokens: 4 });
      expect([again.reused, again.prefilled]).toEqual([length, 1]);
      expect(again.hashes).toEqual(first.hashes);
    },
  );

  it('never shows one tenant what another computed', async () => {
    const fixture = createCacheFixture();
    await generate(fixture, { promptIds: promptOf(20), tenant: 'one' });
    expect((await generate(fixture, { promptIds: promptOf(20), tenant: 'two' })).reused).toBe(0);
    expect((await generate(fixture, { promptIds: promptOf(20), tenant: 'one' })).reused).toBe(20);
  });

  it('says why no more was reused', async () => {
    const fixture = createCacheFixture({
      runner: { numBlocks: [6] },
      engine: { contextLength: 24 },
      cache: { cold: undefined as never },
    });
    const promptIds = promptOf(12);
    const causeOf = async (prompt: Int32Array): Promise<string | undefined> => {
      const generation = fixture.engine.submit(request({ promptIds: prompt, maxTokens: 1 }));
      void generation.collect();
      await run(fixture);
      return generation.reuse?.cause;
    };
    expect(await causeOf(promptIds)).toBe('never-seen');
    expect(await causeOf(promptIds)).toBe('complete');
    expect(await causeOf(promptOf(24, 9))).toBe('never-seen');
    expect(await causeOf(promptIds)).toBe('evicted');
  });

  it('shares a full block while the one who computed it still runs', async () => {
    const fixture = createCacheFixture();
    const system = promptOf(16);
    const one = fixture.engine.submit(request({ promptIds: joined(system, [1, 2]), maxTokens: 30 }));
    const outputOfOne = one.collect();
    for (let step = 0; step < 4; step++) await fixture.engine.step();
    const two = fixture.engine.submit(request({ promptIds: joined(system, [3, 4]), maxTokens: 3 }));
    const outputOfTwo = two.collect();
    await run(fixture);
    await Promise.all([outputOfOne, outputOfTwo]);
    expect(two.reuse?.reusedTokens).toBe(16);
  });
});

describe('tiers', () => {
  it('brings back from the warm tier what the pool had no room for', async () => {
    const fixture = createCacheFixture({
      runner: { numBlocks: [8] },
      engine: { contextLength: 32 },
      cache: { warmBytes: 1 << 20 },
    });
    const first = await generate(fixture, { promptIds: promptOf(22), maxTokens: 4 });
    await generate(fixture, { promptIds: promptOf(28, 2), maxTokens: 4 });
    const again = await generate(fixture, { promptIds: promptOf(22), maxTokens: 4 });
    expect(again.hashes).toEqual(first.hashes);
    expect([again.reused, again.prefilled]).toEqual([22, 1]);
    expect(fixture.engine.stats().cache?.movedBytes.warmToHot).toBeGreaterThan(0);
  });

  it('brings an agent back from the cold tier, in this engine and in the next', async () => {
    const fixture = createCacheFixture({ runner: { numBlocks: [8] }, engine: { contextLength: 32 } });
    const agentId = await createAgent(fixture, 'ada');
    const first = await generate(fixture, { promptIds: promptOf(18), maxTokens: 4 });
    const tokens = joined(promptOf(18), first.tokenIds);
    await commitTurn(fixture, agentId, tokens);
    await fixture.engine.agentMemory?.flush();
    await generate(fixture, { promptIds: promptOf(28, 2), maxTokens: 4 });
    const next = joined(tokens, [9]);
    const resumed = await generate(fixture, { promptIds: next, maxTokens: 4 });
    expect([resumed.reused, resumed.prefilled]).toEqual([21, 2]);
    expect(fixture.engine.stats().cache?.movedBytes.coldToHot).toBeGreaterThan(0);

    const later = createCacheFixture({ cold: fixture });
    later.engine.agentMemory?.adopt(await fixture.agents.read(agentId));
    const restarted = await generate(later, { promptIds: next, maxTokens: 4 });
    expect([restarted.reused, restarted.prefilled]).toEqual([21, 2]);
    expect(restarted.hashes).toEqual(resumed.hashes);
    expect((await generate(createCacheFixture(), { promptIds: next, maxTokens: 4 })).hashes).toEqual(resumed.hashes);
  });

  it('finds full blocks by their hashes though no manifest was read', async () => {
    const fixture = createCacheFixture();
    const agentId = await createAgent(fixture, 'ada');
    await generate(fixture, { promptIds: promptOf(18), maxTokens: 1 });
    await commitTurn(fixture, agentId, promptOf(18));
    await fixture.engine.agentMemory?.flush();
    const later = createCacheFixture({ cold: fixture });
    expect((await generate(later, { promptIds: joined(promptOf(16), [60, 61]), maxTokens: 2 })).reused).toBe(16);
    expect((await generate(later, { promptIds: promptOf(16), tenant: 'other', maxTokens: 2 })).reused).toBe(0);
  });

  it('leaves nothing of a deleted agent on any tier, and what others share in place', async () => {
    const fixture = createCacheFixture({ cache: { warmBytes: 1 << 20 } });
    const [ada, bob] = [await createAgent(fixture, 'ada'), await createAgent(fixture, 'bob')];
    const shared = promptOf(8);
    for (const [agentId, end] of [
      [ada, [1, 2, 3, 4, 5]],
      [bob, [7, 8, 9, 10, 11]],
    ] as const) {
      await generate(fixture, { promptIds: joined(shared, end), maxTokens: 1 });
      await commitTurn(fixture, agentId, joined(shared, end));
    }
    await fixture.engine.agentMemory?.flush();
    await fixture.engine.agentMemory?.quiesce(ada);
    await fixture.agents.delete(ada);
    fixture.engine.agentMemory?.forget(ada);
    fixture.engine.checkIntegrity();
    expect((await generate(fixture, { promptIds: joined(shared, [1, 2, 3, 4, 5]), maxTokens: 1 })).reused).toBe(8);
    expect((await generate(fixture, { promptIds: joined(shared, [7, 8, 9, 10, 11]), maxTokens: 1 })).reused).toBe(13);
  });
});

describe('eviction', () => {
  const small = { runner: { numBlocks: [8] }, engine: { contextLength: 32 } };

  it('spares pinned tokens and an agent’s first blocks while anything else can go', async () => {
    const fixture = createCacheFixture({ ...small, cache: { minBlocksPerAgent: 1 } });
    const [ada, bob] = [await createAgent(fixture, 'ada'), await createAgent(fixture, 'bob')];
    for (const [agentId, seed] of [
      [ada, 1],
      [bob, 2],
    ] as const) {
      await generate(fixture, { promptIds: promptOf(11, seed), maxTokens: 1 });
      await commitTurn(fixture, agentId, promptOf(11, seed));
    }
    await fixture.engine.agentMemory?.flush();
    fixture.engine.agentMemory?.pin(ada, 8);
    await generate(fixture, { promptIds: promptOf(18, 3), maxTokens: 1 });
    const hotTokens = (agentId: string): number | undefined => fixture.engine.agentMemory?.tiersOf(agentId).hot.tokens;
    expect([hotTokens(ada), hotTokens(bob)]).toEqual([8, 4]);
    fixture.engine.agentMemory?.pin(ada, 0);
    await generate(fixture, { promptIds: promptOf(30, 4), maxTokens: 1 });
    expect([hotTokens(ada), hotTokens(bob)]).toEqual([0, 0]);
  });

  it('gives up pinned blocks when nothing else is left to wait for', async () => {
    const fixture = createCacheFixture(small);
    const ada = await createAgent(fixture, 'ada');
    await generate(fixture, { promptIds: promptOf(20), maxTokens: 1 });
    await commitTurn(fixture, ada, promptOf(20));
    await fixture.engine.agentMemory?.flush();
    fixture.engine.agentMemory?.pin(ada, Number.MAX_SAFE_INTEGER);
    expect((await generate(fixture, { promptIds: promptOf(28, 5), maxTokens: 4 })).tokenIds).toHaveLength(4);
  });

  it('takes what was superseded before what is merely old', async () => {
    const fixture = createCacheFixture({ ...small, cache: { cold: undefined as never } });
    await generate(fixture, { promptIds: promptOf(6, 2), maxTokens: 1 });
    const first = await generate(fixture, { promptIds: promptOf(9), maxTokens: 2 });
    await generate(fixture, { promptIds: joined(promptOf(9), first.tokenIds), maxTokens: 1 });
    // 2 + 4 blocks, one of them superseded. Three more: two are free.
    await generate(fixture, { promptIds: promptOf(9, 3), maxTokens: 1 });
    expect((await generate(fixture, { promptIds: promptOf(6, 2), maxTokens: 1 })).reused).toBe(6);
  });

  it('keeps two agents that are each bigger than half of the pool going', async () => {
    const fixture = createCacheFixture(small);
    const fresh = createCacheFixture();
    const talks = [
      { id: await createAgent(fixture, 'ada'), tokens: promptOf(18, 1) },
      { id: await createAgent(fixture, 'bob'), tokens: promptOf(18, 2) },
    ];
    for (let round = 0; round < 5; round++) {
      for (const talk of talks) {
        const promptIds = joined(talk.tokens, [round]);
        const answer = await generate(fixture, { promptIds, maxTokens: 1 });
        expect(answer.hashes).toEqual((await generate(fresh, { promptIds, maxTokens: 1 })).hashes);
        expect(answer.reused).toBe(round === 0 ? 0 : talk.tokens.length - 1);
        talk.tokens = joined(promptIds, answer.tokenIds);
        await commitTurn(fixture, talk.id, talk.tokens);
        await fixture.engine.agentMemory?.flush();
      }
    }
  });
});

describe('what fails', () => {
  it('is a miss, said so, and computed again', async () => {
    const fixture = createCacheFixture();
    const ada = await createAgent(fixture, 'ada');
    const first = await generate(fixture, { promptIds: promptOf(14), maxTokens: 4 });
    await commitTurn(fixture, ada, promptOf(14));
    await fixture.engine.agentMemory?.flush();
    const manifest = await fixture.agents.read(ada);
    const store = fixture.blocks as FakeBlockStore;
    store.damage({ hash: manifest.blocks[0]?.[1]?.hash as string, group: 0 }, 'corrupt');
    const later = createCacheFixture({ cold: fixture });
    later.engine.agentMemory?.adopt(manifest);
    const generation = later.engine.submit(request({ promptIds: promptOf(14), maxTokens: 4, reportHashes: true }));
    const output = generation.collect();
    await run(later);
    expect((await output).tokens.map(({ logitsHash }) => logitsHash)).toEqual(first.hashes);
    expect(generation.reuse).toMatchObject({ reusedTokens: 4, cause: 'damaged' });
    expect(later.engine.stats().cache?.loadMisses).toEqual({ corrupt: 1 });
    expect(later.narrator.events.map(({ name }) => name)).toContain('cold-block-missed');
  });

  it('never reaches a request when the store itself fails', async () => {
    const fixture = createCacheFixture();
    const ada = await createAgent(fixture, 'ada');
    await generate(fixture, { promptIds: promptOf(14), maxTokens: 4 });
    await commitTurn(fixture, ada, promptOf(14));
    await fixture.engine.agentMemory?.flush();
    await fixture.blocks.close();
    const later = createCacheFixture({ cold: fixture });
    later.engine.agentMemory?.adopt(await fixture.agents.read(ada));
    expect(await generate(later, { promptIds: promptOf(18), maxTokens: 1 })).toMatchObject({
      reused: 0,
      prefilled: 18,
    });
    expect(later.narrator.events.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['cold-lookup-failed', 'cold-read-failed']),
    );
  });

  it('saves out of the same shared memory batch after batch, which the store’s threads need not copy', async () => {
    const store = new FakeBlockStore();
    const seen = new Set<ArrayBufferLike>();
    const put = store.put.bind(store);
    store.put = (blocks, signal) => {
      for (const { payload } of blocks) seen.add(payload.buffer);
      return put(blocks, signal);
    };
    const fixture = createCacheFixture({ cold: { blocks: store, agents: new FakeAgentArchive(store) } });
    const tokens = promptOf(18);
    for (const name of ['ada', 'bob', 'carl']) {
      const agentId = await createAgent(fixture, name);
      const { tokenIds } = await generate(fixture, { promptIds: joined([name.length + 20], tokens), maxTokens: 2 });
      await commitTurn(fixture, agentId, joined([name.length + 20], tokens, tokenIds));
      await fixture.engine.agentMemory?.flush();
    }
    const { saves } = fixture.engine.stats().cache as { saves: number };
    const pieces = [...seen];
    expect(pieces.every((buffer) => buffer instanceof SharedArrayBuffer)).toBe(true);
    expect(pieces.length).toBeLessThan(saves);
  });

  it('makes room on a full disk at the cost of who was away longest', async () => {
    const store = new FakeBlockStore({ keptBytes: 500 });
    const fixture = createCacheFixture({ cold: { blocks: store, agents: new FakeAgentArchive(store) } });
    const agents: string[] = [];
    for (let seed = 1; seed <= 6; seed++) {
      const agentId = await createAgent(fixture, `agent-${seed}`);
      agents.push(agentId);
      await generate(fixture, { promptIds: promptOf(12, seed), maxTokens: 1 });
      await commitTurn(fixture, agentId, promptOf(12, seed));
      await fixture.engine.agentMemory?.flush();
    }
    const coldTokens = agents.map((agentId) => fixture.engine.agentMemory?.tiersOf(agentId).cold.tokens);
    expect(coldTokens.at(-1)).toBe(12);
    expect(coldTokens[0]).toBeLessThan(12);
    expect((await store.usage()).bytes).toBeLessThanOrEqual(500);
  });
});

describe('agent memory', () => {
  it('saves on after a rewind that came while references were being noted', async () => {
    const fixture = createCacheFixture();
    const ada = await createAgent(fixture, 'ada');
    await generate(fixture, { promptIds: promptOf(14), maxTokens: 1 });
    await commitTurn(fixture, ada, promptOf(14));
    await fixture.engine.agentMemory?.flush();
    // The memory is not told of this one before it saves again.
    await fixture.agents.commit(ada, { kind: 'rewind', numTokens: 5, atMs: 2 });
    const added = joined(promptOf(14), [3, 3, 3]);
    await fixture.agents.commit(ada, {
      kind: 'turn',
      startTokens: 5,
      tokenIds: added.slice(5),
      segments: '[]',
      atMs: 3,
    });
    await generate(fixture, { promptIds: added, maxTokens: 1 });
    fixture.engine.agentMemory?.follow({ agentId: ada, tenant: 'default' }, added);
    await fixture.engine.agentMemory?.flush();
    expect((await fixture.agents.read(ada)).blocks[0]?.map(({ numTokens }) => numTokens)).toEqual([4, 4, 4, 4, 1]);
    expect(fixture.engine.agentMemory?.tiersOf(ada).cold.tokens).toBe(17);
  });

  it('names no block behind a rewind whose turn is not written yet', async () => {
    const fixture = createCacheFixture();
    const ada = await createAgent(fixture, 'ada');
    await generate(fixture, { promptIds: promptOf(14), maxTokens: 1 });
    await commitTurn(fixture, ada, promptOf(14));
    await fixture.engine.agentMemory?.flush();
    const added = joined(promptOf(14), [3, 3, 3]);
    await generate(fixture, { promptIds: added, maxTokens: 1 });
    await fixture.agents.commit(ada, { kind: 'rewind', numTokens: 5, atMs: 2 });
    fixture.engine.agentMemory?.follow({ agentId: ada, tenant: 'default' }, added);
    await fixture.engine.agentMemory?.flush();
    expect((await fixture.agents.read(ada)).blocks[0]?.map(({ numTokens }) => numTokens)).toEqual([4]);
    expect(fixture.engine.stats().cache?.saveFailures).toBe(0);
  });

  it('hands an agent’s blocks out and takes them in elsewhere', async () => {
    const fixture = createCacheFixture();
    const ada = { agentId: await createAgent(fixture, 'ada'), tenant: 'default' };
    const first = await generate(fixture, { promptIds: promptOf(14), maxTokens: 3 });
    const blocks = [];
    for await (const block of fixture.engine.agentMemory?.readBlocks(ada, promptOf(14)) ?? []) blocks.push(block);
    expect(blocks.map(({ tokenIds }) => tokenIds.length)).toEqual([4, 4, 4]);
    const other = createCacheFixture();
    const bob = { agentId: await createAgent(other, 'bob', 'theirs'), tenant: 'theirs' };
    await other.agents.commit(bob.agentId, {
      kind: 'turn',
      startTokens: 0,
      tokenIds: promptOf(14),
      segments: '[]',
      atMs: 1,
    });
    for (const block of blocks) expect(await other.engine.agentMemory?.writeBlock(bob, block)).toBe(true);
    const wrong = { ...blocks[0], startToken: 400 } as (typeof blocks)[number];
    expect(await other.engine.agentMemory?.writeBlock(bob, wrong)).toBe(false);
    await other.engine.agentMemory?.flush();
    const resumed = await generate(other, { promptIds: promptOf(14), maxTokens: 3, tenant: 'theirs' });
    expect([resumed.reused, resumed.hashes]).toEqual([12, first.hashes]);
  });

  it('forgets with an agent what its earlier turns and its unfinished ones left behind', async () => {
    const fixture = createCacheFixture();
    const ada = await createAgent(fixture, 'ada');
    const first = await generate(fixture, { promptIds: promptOf(6), maxTokens: 2, owner: ada });
    await commitTurn(fixture, ada, joined(promptOf(6), first.tokenIds));
    const next = joined(promptOf(6), first.tokenIds, [9, 9]);
    await commitTurn(
      fixture,
      ada,
      joined(next, (await generate(fixture, { promptIds: next, maxTokens: 2, owner: ada })).tokenIds),
    );
    await generate(fixture, { promptIds: joined(promptOf(6), [7, 7, 7, 7, 7]), maxTokens: 2, owner: ada });
    await fixture.engine.agentMemory?.quiesce(ada);
    await fixture.agents.delete(ada);
    fixture.engine.agentMemory?.forget(ada);
    fixture.engine.checkIntegrity();
    expect(fixture.engine.stats().cache).toMatchObject({ hotBlocks: 0, nodes: 0 });
  });

  it('keeps KV of other numerics to the agent that took it', async () => {
    const fixture = createCacheFixture();
    const ada = { agentId: await createAgent(fixture, 'ada'), tenant: 'default' };
    await generate(fixture, { promptIds: promptOf(14), maxTokens: 1 });
    const blocks = [];
    for await (const block of fixture.engine.agentMemory?.readBlocks(ada, promptOf(14)) ?? []) blocks.push(block);
    const other = createCacheFixture();
    const identity = { ...IDENTITY, numericsId: importedNumerics('fake-1', 'fake-2') };
    const { agentId } = await other.agents.create({
      tenant: 'default',
      name: 'bob',
      identity,
      atMs: 0,
      tokenIds: promptOf(14),
    });
    const manifest = await other.agents.read(agentId);
    other.engine.agentMemory?.adopt(manifest);
    for (const block of blocks) await other.engine.agentMemory?.writeBlock(manifest, block);
    other.engine.agentMemory?.follow(manifest, promptOf(14));
    await other.engine.agentMemory?.flush();
    expect((await generate(other, { promptIds: promptOf(14), maxTokens: 1 })).reused).toBe(0);
    const own = await generate(other, { promptIds: promptOf(14), maxTokens: 1, tenant: kvScopeOf(manifest) });
    expect(own.reused).toBe(14);
  });

  it('waits for what is to be saved only as long as it is told', async () => {
    const fixture = createCacheFixture();
    const ada = await createAgent(fixture, 'ada');
    await generate(fixture, { promptIds: promptOf(14), maxTokens: 3 });
    await commitTurn(fixture, ada, promptOf(14));
    const controller = new AbortController();
    controller.abort();
    await expect(fixture.engine.agentMemory?.flush(controller.signal)).rejects.toMatchObject({ code: 'aborted' });
    await fixture.engine.agentMemory?.flush(new AbortController().signal);
    expect(fixture.engine.agentMemory?.tiersOf(ada).cold.tokens).toBe(12);
  });

  it('knows its own from another model’s', async () => {
    const fixture = createCacheFixture();
    const ada = await createAgent(fixture, 'ada');
    await generate(fixture, { promptIds: promptOf(14), maxTokens: 3 });
    await commitTurn(fixture, ada, promptOf(14));
    await fixture.engine.agentMemory?.flush();
    const later = createCacheFixture({ cold: fixture, cache: { identity: { ...IDENTITY, numericsId: 'fake-2' } } });
    later.engine.agentMemory?.adopt(await fixture.agents.read(ada));
    const generation = later.engine.submit(request({ promptIds: promptOf(14) }));
    void generation.collect();
    await run(later);
    expect(generation.reuse).toMatchObject({ reusedTokens: 0, cause: 'other-identity' });
  });
});
