import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Generation, GREEDY } from '@kvasir/domain';
import { FakeAgentArchive, FakeBlockStore, expectedOutputs } from '@kvasir/adapter-fake';
import { type CacheFixture, commitTurn, createAgent, createCacheFixture, run } from './cache-fixture.ts';
import { promptOf, request } from './engine-fixture.ts';

const MAX_TOKENS = 40;
const AGENTS = ['a', 'b', 'c', 'd'] as const;

/** What each agent's tokens must be, and what runs. */
interface Model {
  fixture: CacheFixture;
  readonly store: FakeBlockStore;
  readonly archive: FakeAgentArchive;
  readonly agents: Map<string, { id: string; tokens: Int32Array }>;
  readonly flying: {
    generation: Generation;
    output: Promise<unknown>;
    promptIds: Int32Array;
    agent: string;
    maxTokens: number;
  }[];
}

type Command = (model: Model) => Promise<void>;

const runner = { numBlocks: [14], maxBatchSequences: 4, maxBatchTokens: 24 };

function begin(model: Pick<Model, 'store' | 'archive'>, warmBytes: number): CacheFixture {
  return createCacheFixture({
    runner,
    engine: { contextLength: 56 },
    cache: { warmBytes },
    cold: { blocks: model.store, agents: model.archive },
  });
}

const submit =
  (agent: string, added: number, seed: number, maxTokens: number): Command =>
  async (model) => {
    if (model.flying.some((flying) => flying.agent === agent)) return;
    const known = model.agents.get(agent);
    if (known === undefined) {
      model.agents.set(agent, { id: await createAgent(model.fixture, agent), tokens: new Int32Array(0) });
    }
    const before = model.agents.get(agent)?.tokens ?? new Int32Array(0);
    const room = MAX_TOKENS - before.length - maxTokens;
    // A conversation that is full begins again from its first tokens: a branch.
    const kept = room < added ? before.subarray(0, 7) : before;
    const promptIds = Int32Array.from([...kept, ...promptOf(added, seed)]);
    const generation = model.fixture.engine.submit(request({ promptIds, maxTokens, sampling: GREEDY }));
    const output = generation.collect().catch(() => null);
    model.flying.push({ generation, output, promptIds, agent, maxTokens });
  };

const steps =
  (count: number): Command =>
  async ({ fixture }) => {
    for (let step = 0; step < count; step++) {
      await fixture.engine.step();
      fixture.engine.checkIntegrity();
    }
  };

const finishAll: Command = async (model) => {
  await run(model.fixture);
  for (const { generation, output, promptIds, agent, maxTokens } of model.flying.splice(0)) {
    const result = (await output) as { tokens: readonly { tokenId: number }[] } | null;
    if (result === null) continue;
    const tokenIds = result.tokens.map(({ tokenId }) => tokenId);
    expect(tokenIds).toEqual(expectedOutputs(promptIds, { sampling: GREEDY, maxTokens }));
    expect(generation.reuse).not.toBeNull();
    const known = model.agents.get(agent);
    if (known === undefined) continue;
    known.tokens = Int32Array.from([...promptIds, ...tokenIds]);
    await commitTurn(model.fixture, known.id, known.tokens);
  }
};

const abort =
  (index: number): Command =>
  async ({ flying }) => {
    flying[index % Math.max(1, flying.length)]?.generation.abort();
  };

const remove =
  (agent: string): Command =>
  async (model) => {
    const known = model.agents.get(agent);
    if (known === undefined || model.flying.some((flying) => flying.agent === agent)) return;
    const memory = model.fixture.engine.agentMemory;
    await memory?.quiesce(known.id);
    await model.archive.delete(known.id);
    memory?.forget(known.id);
    model.agents.delete(agent);
  };

const fork =
  (from: string, to: string, share: number): Command =>
  async (model) => {
    const known = model.agents.get(from);
    if (known === undefined || model.agents.has(to)) return;
    const tokens = known.tokens.slice(0, Math.floor(known.tokens.length * share));
    const id = await createAgent(model.fixture, to);
    if (tokens.length > 0) await commitTurn(model.fixture, id, tokens);
    model.agents.set(to, { id, tokens });
  };

const rewind =
  (agent: string, share: number): Command =>
  async (model) => {
    const known = model.agents.get(agent);
    if (known === undefined || model.flying.some((flying) => flying.agent === agent)) return;
    known.tokens = known.tokens.slice(0, Math.floor(known.tokens.length * share));
    await model.archive.commit(known.id, { kind: 'rewind', numTokens: known.tokens.length, atMs: 2 });
    model.fixture.engine.agentMemory?.follow({ agentId: known.id, tenant: 'default' }, known.tokens);
  };

const pin =
  (agent: string, tokens: number): Command =>
  async (model) => {
    const known = model.agents.get(agent);
    if (known !== undefined) model.fixture.engine.agentMemory?.pin(known.id, tokens);
  };

const flush: Command = async ({ fixture }) => await fixture.engine.agentMemory?.flush();

/** What was not saved is lost; what the archive was told stands. */
const crash =
  (warmBytes: number): Command =>
  async (model) => {
    await model.fixture.engine.dispose();
    await Promise.all(model.flying.splice(0).map(({ output }) => output));
    await model.fixture.engine.agentMemory?.flush();
    model.fixture = begin(model, warmBytes);
    for (const { id, tokens } of model.agents.values()) {
      const manifest = await model.archive.read(id);
      expect(manifest.tokenIds).toEqual(tokens);
      model.fixture.engine.agentMemory?.adopt(manifest);
    }
  };

/** A disk that loses blocks. */
const lose =
  (index: number): Command =>
  async ({ store }) => {
    for await (const page of store.list()) {
      const listing = page[index % Math.max(1, page.length)];
      if (listing !== undefined) store.lose(listing.key);
    }
  };

const agent = fc.constantFrom(...AGENTS);
const warmBytes = fc.constantFrom(0, 100, 10_000);
const named = (name: string, act: Command) => ({ run: act, [fc.toStringMethod]: () => name });
const command = fc.oneof(
  {
    weight: 8,
    arbitrary: fc
      .tuple(agent, fc.integer({ min: 1, max: 18 }), fc.nat(3), fc.integer({ min: 1, max: 9 }))
      .map((args) => named(`submit ${args.join(' ')}`, submit(...args))),
  },
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 5 }).map((count) => named(`steps ${count}`, steps(count))) },
  { weight: 5, arbitrary: fc.constant(named('finish', finishAll)) },
  { weight: 1, arbitrary: fc.nat(3).map((index) => named(`abort ${index}`, abort(index))) },
  { weight: 1, arbitrary: agent.map((name) => named(`remove ${name}`, remove(name))) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(agent, agent, fc.double({ min: 0, max: 1, noNaN: true }))
      .map((args) => named(`fork ${args.join(' ')}`, fork(...args))),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(agent, fc.double({ min: 0, max: 1, noNaN: true }))
      .map((args) => named(`rewind ${args.join(' ')}`, rewind(...args))),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(agent, fc.constantFrom(0, 5, 12)).map((args) => named(`pin ${args.join(' ')}`, pin(...args))),
  },
  { weight: 2, arbitrary: fc.constant(named('flush', flush)) },
  { weight: 1, arbitrary: warmBytes.map((bytes) => named(`crash ${bytes}`, crash(bytes))) },
  { weight: 1, arbitrary: fc.nat(20).map((index) => named(`lose ${index}`, lose(index))) },
);

describe('agents over any history', () => {
  it('answer as if nothing had been kept, and every block stays accounted for', async () => {
    let reused = 0;
    let restored = 0;
    await fc.assert(
      fc.asyncProperty(
        warmBytes,
        fc.array(command, { minLength: 20, maxLength: 80, size: 'max' }),
        async (warm, commands) => {
          const store = new FakeBlockStore();
          const archive = new FakeAgentArchive(store);
          const model: Model = {
            fixture: begin({ store, archive }, warm),
            store,
            archive,
            agents: new Map(),
            flying: [],
          };
          for (const { run: act } of commands) await act(model);
          await finishAll(model);
          await model.fixture.engine.agentMemory?.flush();
          expect(model.fixture.narrator.events.filter(({ name }) => name === 'cold-save-failed')).toEqual([]);
          const { cache, blocks } = model.fixture.engine.stats();
          reused += (cache?.reusedTokens.hot ?? 0) + (cache?.reusedTokens.warm ?? 0) + (cache?.reusedTokens.cold ?? 0);
          restored += (cache?.reusedTokens.warm ?? 0) + (cache?.reusedTokens.cold ?? 0);
          // Without a sequence every block is free or the cache's.
          expect(blocks[0]?.used).toBe(cache?.hotBlocks);
          await model.fixture.engine.dispose();
        },
      ),
      { numRuns: 500 },
    );
    // A history that reuses nothing would prove nothing.
    expect(reused).toBeGreaterThan(10_000);
    expect(restored).toBeGreaterThan(1_000);
  });
});
