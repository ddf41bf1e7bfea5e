import { createHash } from 'node:crypto';
import {
  FakeAgentArchive,
  FakeBlockStore,
  FakeClock,
  FakeModelRunner,
  type FakeRunnerOptions,
  RecordingNarrator,
} from '@kvasir/adapter-fake';
import type { AgentArchive, AgentManifest, BlockStore, CacheIdentity, GenerationRequest } from '@kvasir/domain';
import { BatchEngine, type BatchEngineOptions, type CacheOptions } from '../src/index.ts';
import { request } from './engine-fixture.ts';

export const IDENTITY: CacheIdentity = {
  modelFingerprint: 'fake',
  kvDType: 'f32',
  layoutVersion: '1',
  numericsId: 'fake-1',
};

export const sha256 = (text: string, bytes: Uint8Array): string =>
  createHash('sha256').update(text).update(bytes).digest('hex');

export interface CacheFixture {
  readonly engine: BatchEngine;
  readonly runner: FakeModelRunner;
  readonly blocks: BlockStore;
  readonly agents: AgentArchive;
  readonly narrator: RecordingNarrator;
}

export interface CacheFixtureOptions {
  readonly runner?: FakeRunnerOptions;
  readonly engine?: Partial<BatchEngineOptions>;
  readonly cache?: Partial<CacheOptions>;
  /** Files of an engine before this one. */
  readonly cold?: { readonly blocks: BlockStore; readonly agents: AgentArchive };
}

/** An engine that keeps what it computed, on a fake runner with blocks of 4 tokens and a cold tier in memory. */
export function createCacheFixture(options: CacheFixtureOptions = {}): CacheFixture {
  const runner = new FakeModelRunner(options.runner);
  const narrator = new RecordingNarrator();
  const blocks = options.cold?.blocks ?? new FakeBlockStore();
  const agents = options.cold?.agents ?? new FakeAgentArchive(blocks as FakeBlockStore);
  const engine = new BatchEngine(
    { runner, clock: new FakeClock(), narrator },
    {
      contextLength: 1024,
      ...options.engine,
      cache: { identity: IDENTITY, sha256, restore: 'always', cold: { blocks, agents }, ...options.cache },
    },
  );
  return { engine, runner, blocks, agents, narrator };
}

/** Runs one request to its end, checking the books after every step. */
export async function generate(
  fixture: CacheFixture,
  overrides: Partial<GenerationRequest>,
): Promise<{
  readonly tokenIds: number[];
  readonly hashes: (bigint | null)[];
  readonly reused: number;
  readonly prefilled: number;
}> {
  const before = fixture.engine.stats().prefillTokens;
  const generation = fixture.engine.submit(request({ reportHashes: true, ...overrides }));
  const output = generation.collect();
  await run(fixture);
  const { tokens } = await output;
  return {
    tokenIds: tokens.map(({ tokenId }) => tokenId),
    hashes: tokens.map(({ logitsHash }) => logitsHash),
    reused: generation.reuse?.reusedTokens ?? -1,
    prefilled: fixture.engine.stats().prefillTokens - before,
  };
}

export async function run({ engine }: CacheFixture, most = 10_000): Promise<void> {
  for (let steps = 0; steps < most; steps++) {
    const report = await engine.step();
    engine.checkIntegrity();
    if (report.kind === 'idle') return;
    if (report.kind === 'failed') throw report.error;
  }
  throw new Error(`expected the engine to run dry within ${most} steps`);
}

/** A finished turn, as AgentService ends one: archive first, then memory. */
export async function commitTurn(fixture: CacheFixture, agentId: string, tokenIds: Int32Array): Promise<AgentManifest> {
  const { engine, agents } = fixture;
  const before = await agents.read(agentId);
  let common = 0;
  while (common < before.tokenIds.length && before.tokenIds[common] === tokenIds[common]) common++;
  if (common < before.tokenIds.length) await agents.commit(agentId, { kind: 'rewind', numTokens: common, atMs: 1 });
  await agents.commit(agentId, {
    kind: 'turn',
    startTokens: common,
    tokenIds: tokenIds.slice(common),
    segments: '[]',
    atMs: 1,
  });
  engine.agentMemory?.follow({ agentId, tenant: before.tenant }, tokenIds);
  return await agents.read(agentId);
}

export async function createAgent({ agents, engine }: CacheFixture, name: string, tenant = 'default'): Promise<string> {
  const { agentId } = await agents.create({ tenant, name, identity: IDENTITY, atMs: 0 });
  engine.agentMemory?.adopt(await agents.read(agentId));
  return agentId;
}
