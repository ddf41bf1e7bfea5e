// One conversation, brought back in every way there is. Shared by the test and by EXP-005.
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type ColdTier, openColdTier } from '@kvasir/block-store-fs';
import type { AgentMemory, CacheIdentity, GenerationRequest, ModelRunner, SamplingParams } from '@kvasir/domain';
import { BatchEngine, type CacheOptions } from '@kvasir/engine';
import { type Sabotage, WatchedRunner } from './watched-runner.ts';

export const SCENARIOS = ['hot', 'warm', 'cold', 'restart', 'fork', 'rewind', 'preempted', 'in a batch of 8'] as const;
export type Scenario = (typeof SCENARIOS)[number];

export interface Case {
  readonly scenario: Scenario;
  readonly promptTokens: number;
  readonly sampling: SamplingParams;
}

export interface Outcome {
  /** Hashes of the raw logits of every output, and the outputs. */
  readonly fresh: readonly Output[];
  readonly resumed: readonly Output[];
  /** Tokens the resumed run gave the device before its first output, and how many it had to. */
  readonly computedTokens: number;
  readonly expectedTokens: number;
  readonly reusedTokens: number;
  readonly restoredBytes: number;
  readonly writtenBytes: number;
}

export interface Output {
  readonly tokenId: number;
  readonly hash: string;
}

const OUTPUTS = 16;
const ADDED = 9;
const silent = { narrate: () => {} };
const clock = { now: () => performance.now(), turn: () => new Promise<void>((resolve) => setImmediate(resolve)) };
const sha256 = (text: string, bytes: Uint8Array): string =>
  createHash('sha256').update(text).update(bytes).digest('hex');

/** Deterministic token ids that no other seed shares. */
export function tokensOf(count: number, seed: number, vocabularySize: number): Int32Array {
  let state = (seed * 2_654_435_761) >>> 0;
  return Int32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return 3 + (state % (vocabularySize - 3));
  });
}

/** One runner for what is computed afresh and one for what is brought back: they share nothing but the weights. */
export class Bench {
  readonly watched: WatchedRunner;
  /** Made while the conversation is brought back, not while it is first computed. */
  sabotage: Sabotage = 'none';
  readonly #fresh: ModelRunner;
  readonly #contextLength: number;
  readonly #identity: CacheIdentity;

  constructor(fresh: ModelRunner, resumed: ModelRunner, contextLength: number) {
    this.#fresh = fresh;
    this.watched = new WatchedRunner(resumed);
    this.#contextLength = contextLength;
    const { numericsId, cacheSpec } = resumed.info;
    this.#identity = { modelFingerprint: 'test', kvDType: cacheSpec.kvDType, layoutVersion: '1', numericsId };
  }

  async run({ scenario, promptTokens, sampling }: Case): Promise<Outcome> {
    const directory = await mkdtemp(path.join(tmpdir(), 'kvasir-equality-'));
    let cold: ColdTier | null = null;
    let engine: BatchEngine | null = null;
    const open = async (): Promise<BatchEngine> => {
      cold = await openColdTier({ directory });
      // As a server does; a restore that waits for a thread comes after the strangers of a preemption have ended.
      cold.startReaders();
      engine = this.#engine(this.watched, {
        cold: { blocks: cold.blocks, agents: cold.agents },
        warmBytes: scenario === 'warm' ? 1 << 30 : 0,
      });
      return engine;
    };
    try {
      const { vocabularySize } = this.watched.info;
      const promptIds = tokensOf(promptTokens, 1, vocabularySize);
      let running = await open();
      const archive = () => (cold as unknown as ColdTier).agents;
      const { agentId } = await archive().create({ tenant: 'default', name: 'ada', identity: this.#identity, atMs: 1 });
      const memory = (): AgentMemory => running.agentMemory as AgentMemory;
      memory().adopt(await archive().read(agentId));
      const first = await generate(running, { promptIds, sampling });
      const known = Int32Array.from([...promptIds, ...first.outputs.map(({ tokenId }) => tokenId)]);
      await archive().commit(agentId, { kind: 'turn', startTokens: 0, tokenIds: known, segments: '[]', atMs: 2 });
      memory().follow({ agentId, tenant: 'default' }, known);
      await memory().flush();

      // What the next prompt finds: all of the conversation, less where the scenario cuts it.
      let kept = known.length - 1;
      let base = known;
      if (scenario === 'fork' || scenario === 'rewind') {
        kept = Math.max(1, promptTokens - 3);
        base = known.slice(0, kept);
      }
      if (scenario === 'fork') {
        const manifest = await archive().read(agentId);
        const fork = await archive().create({
          tenant: 'default',
          name: 'bob',
          identity: this.#identity,
          atMs: 3,
          tokenIds: base,
        });
        memory().follow({ agentId: fork.agentId, tenant: manifest.tenant }, base);
        await memory().flush();
      }
      if (scenario === 'rewind') {
        await archive().commit(agentId, { kind: 'rewind', numTokens: kept, atMs: 3 });
        memory().follow({ agentId, tenant: 'default' }, base);
        await memory().flush();
      }
      if (scenario === 'warm' || scenario === 'cold') await this.#fillPool(running, agentId);
      if (scenario === 'restart') {
        await running.dispose();
        await (cold as unknown as ColdTier).close();
        running = await open();
        memory().adopt(await archive().read(agentId));
      }
      const next = Int32Array.from([...base, ...tokensOf(ADDED, 7, vocabularySize)]);
      const { traffic } = this.watched;
      const before = { ...traffic };
      const request = { promptIds: next, sampling, maxTokens: scenario === 'preempted' ? 4 : OUTPUTS };
      this.watched.sabotage = this.sabotage;
      let resumed: Generated;
      if (scenario === 'preempted') resumed = await this.#preempted(running, next, sampling);
      else if (scenario === 'in a batch of 8') resumed = await this.#inBatch(running, next, sampling);
      else resumed = await generate(running, request);
      this.watched.sabotage = 'none';
      const computed = traffic.tokens - before.tokens - (resumed.outputs.length - 1);
      const plain = this.#engine(this.#fresh, null);
      const fresh = await generate(plain, { promptIds: next, sampling, maxTokens: resumed.outputs.length });
      await plain.dispose();
      return {
        fresh: fresh.outputs,
        resumed: resumed.outputs,
        computedTokens: computed,
        expectedTokens: next.length - kept,
        reusedTokens: resumed.reusedTokens,
        restoredBytes: resumed.restoredBytes,
        writtenBytes: traffic.writtenBytes - before.writtenBytes,
      };
    } finally {
      await (engine as BatchEngine | null)?.dispose();
      await (cold as ColdTier | null)?.close();
      await rm(directory, { recursive: true, force: true });
    }
  }

  #engine(runner: ModelRunner, cache: Pick<CacheOptions, 'cold' | 'warmBytes'> | null): BatchEngine {
    return new BatchEngine(
      { runner, clock, narrator: silent },
      {
        contextLength: this.#contextLength,
        ...(cache === null ? {} : { cache: { identity: this.#identity, sha256, restore: 'always', ...cache } }),
      },
    );
  }

  /** Strangers until nothing of the conversation is left in the pool. */
  async #fillPool(engine: BatchEngine, agentId: string): Promise<void> {
    const { vocabularySize } = this.watched.info;
    const count = Math.min(engine.limits.poolTokens, this.#contextLength) - 8;
    for (let seed = 100; seed < 160; seed++) {
      if (engine.agentMemory?.tiersOf(agentId).hot.blocks === 0) return;
      await generate(engine, { promptIds: tokensOf(count, seed, vocabularySize), maxTokens: 1 });
    }
    throw new Error('expected strangers to displace the conversation, found it in the pool');
  }

  /** Runs beside strangers who came first and take the blocks it needs. */
  async #preempted(engine: BatchEngine, promptIds: Int32Array, sampling: SamplingParams): Promise<Generated> {
    const { vocabularySize, cacheSpec } = this.watched.info;
    const { blockTokens } = cacheSpec;
    const ownBlocks = Math.ceil(promptIds.length / blockTokens);
    const strangerBlocks = Math.floor((engine.limits.poolTokens / blockTokens - ownBlocks - 1) / 2);
    const strangers = [55, 56].map((seed) =>
      engine.submit({
        promptIds: tokensOf(strangerBlocks * blockTokens - 20, seed, vocabularySize),
        sampling: GREEDY_SAMPLING,
        maxTokens: 360,
        stopIds: [],
      }),
    );
    const strangersDone = Promise.all(strangers.map((stranger) => stranger.collect()));
    const own = engine.submit({ promptIds, sampling, maxTokens: 300, stopIds: [], reportHashes: true });
    const output = own.collect();
    engine.start();
    const [{ tokens }] = await Promise.all([output, strangersDone]);
    if (own.stats.preemptions === 0) throw new Error('expected a preemption, found none');
    return toGenerated(tokens, own.reuse);
  }

  async #inBatch(engine: BatchEngine, promptIds: Int32Array, sampling: SamplingParams): Promise<Generated> {
    const { vocabularySize } = this.watched.info;
    const strangers = Array.from({ length: 7 }, (_, index) =>
      engine
        .submit({
          promptIds: tokensOf(3 + 11 * index, 200 + index, vocabularySize),
          sampling: { ...sampling, seed: BigInt(index) },
          maxTokens: 20 + index,
          stopIds: [],
        })
        .collect(),
    );
    const own = await generate(engine, { promptIds, sampling, maxTokens: OUTPUTS });
    await Promise.all(strangers);
    return own;
  }
}

interface Generated {
  readonly outputs: readonly Output[];
  readonly reusedTokens: number;
  readonly restoredBytes: number;
}

async function generate(
  engine: BatchEngine,
  request: Pick<GenerationRequest, 'promptIds'> & Partial<GenerationRequest>,
): Promise<Generated> {
  engine.start();
  const generation = engine.submit({
    sampling: GREEDY_SAMPLING,
    maxTokens: OUTPUTS,
    stopIds: [],
    reportHashes: true,
    ...request,
  });
  const { tokens } = await generation.collect();
  return toGenerated(tokens, generation.reuse);
}

function toGenerated(
  tokens: readonly { readonly tokenId: number; readonly logitsHash: bigint | null }[],
  reuse: {
    readonly reusedTokens: number;
    readonly restoredBytes: { readonly warm: number; readonly cold: number };
  } | null,
): Generated {
  return {
    outputs: tokens.map(({ tokenId, logitsHash }) => ({ tokenId, hash: String(logitsHash) })),
    reusedTokens: reuse?.reusedTokens ?? 0,
    restoredBytes: (reuse?.restoredBytes.warm ?? 0) + (reuse?.restoredBytes.cold ?? 0),
  };
}

export const GREEDY_SAMPLING: SamplingParams = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  logitBias: new Map(),
  logprobs: null,
  seed: 0n,
};

export const SEEDED_SAMPLING: SamplingParams = {
  ...GREEDY_SAMPLING,
  temperature: 0.9,
  topP: 0.95,
  topK: 50,
  repetitionPenalty: 1.1,
  frequencyPenalty: 0.2,
  presencePenalty: 0.1,
  seed: 1234n,
};
