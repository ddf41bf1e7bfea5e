import { describe, expect, it } from 'vitest';
import { commitTurn, createAgent, createCacheFixture, generate, run } from './cache-fixture.ts';
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
