// One conversation per length, kept by engines of which each finds it on another tier.
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { openColdTier } from '../../packages/block-store-fs/dist/index.js';
import { BUNDLED, GREEDY, identityOf, loadRunner, makeEngine, tokensOf } from '../support/engines.mjs';
import { dropPageCache } from '../support/page-cache.mjs';

/** Blocks of 256 tokens: the longest conversation fills the pool, so each one that is brought in displaces the others. */
const POOL_BLOCKS = 16;

/** @returns milliseconds from the submission to the first token's event, and what the prompt found */
export async function firstToken(engine, promptIds, maxTokens = 1) {
  const generation = engine.submit({ promptIds, sampling: GREEDY, maxTokens, stopIds: [] });
  const start = performance.now();
  let firstAt = null;
  let numTokens = 0;
  for await (const batch of generation) {
    if (firstAt === null && batch.tokens.length > 0) firstAt = performance.now();
    numTokens += batch.tokens.length;
  }
  const { reuse } = generation;
  const decodeMs = numTokens > 1 ? (performance.now() - firstAt) / (numTokens - 1) : null;
  return { ms: firstAt - start, decodeMs, reused: reuse?.reusedTokens ?? 0, fromTier: reuse?.fromTier ?? null };
}

/** An engine with agents whose conversations are given; `close` gives everything back. */
export class AgentEngine {
  #runner;
  #contextLength;
  #directory;
  #tier = null;
  engine = null;
  #agentIds = [];
  #prompts;
  #cache;

  /** Computes every conversation once. @param wrap puts a proxy before the block store */
  static async open(prompts, { cache = {}, hasCold = false, numBlocks = POOL_BLOCKS, directory, wrap } = {}) {
    const made = new AgentEngine();
    made.#prompts = prompts;
    made.#cache = cache;
    const { runner, contextLength } = await loadRunner(BUNDLED, numBlocks);
    made.#runner = runner;
    made.#contextLength = contextLength;
    made.wrap = wrap ?? ((blocks) => blocks);
    if (hasCold) {
      made.#directory =
        directory ?? (await mkdtemp(path.join(process.env.KVASIR_MEASURE ?? os.tmpdir(), 'kvasir-exp-007-')));
      made.#tier = await openColdTier({ directory: made.#directory });
      made.#tier.startReaders();
    }
    made.#start();
    for (const [index, promptIds] of prompts.entries()) {
      const name = `agent-${index}`;
      const identity = identityOf(runner);
      const summary = await made.#tier?.agents.create({ tenant: 'default', name, identity, atMs: 1 });
      const agentId = summary?.agentId ?? name;
      made.#agentIds.push(agentId);
      await firstToken(made.engine, promptIds);
      if (made.#tier === null) continue;
      await made.#tier.agents.commit(agentId, {
        kind: 'turn',
        startTokens: 0,
        tokenIds: promptIds,
        segments: '[]',
        atMs: 2,
      });
      made.engine.agentMemory.follow({ agentId, tenant: 'default' }, promptIds);
      await made.engine.agentMemory.flush();
    }
    return made;
  }

  #start(cache = {}) {
    const cold =
      this.#tier === null ? {} : { cold: { blocks: this.wrap(this.#tier.blocks), agents: this.#tier.agents } };
    this.engine = makeEngine(this.#runner, this.#contextLength, { ...this.#cache, ...cold, ...cache });
    this.engine.start();
  }

  async ask(index, maxTokens) {
    return await firstToken(this.engine, this.#prompts[index], maxTokens);
  }

  /** A new engine over the same files, which knows of its agents what their manifests say. */
  async replaceEngine(cache) {
    await this.engine.dispose();
    this.#start(cache);
    for (const agentId of this.#agentIds) this.engine.agentMemory.adopt(await this.#tier.agents.read(agentId));
  }

  /** As a server that was stopped and started: nothing of the files is in memory. @returns milliseconds to open */
  async restart() {
    await this.engine.dispose();
    await this.#tier.close();
    dropPageCache();
    const start = performance.now();
    this.#tier = await openColdTier({ directory: this.#directory });
    this.#tier.startReaders();
    this.#start();
    for (const agentId of this.#agentIds) this.engine.agentMemory.adopt(await this.#tier.agents.read(agentId));
    return performance.now() - start;
  }

  get directory() {
    return this.#directory;
  }

  get blockBytes() {
    return this.#runner.info.cacheSpec.bytesPerBlock(0);
  }

  async close() {
    await this.engine.dispose();
    await this.#tier?.close();
    await this.#runner.dispose();
    if (this.#directory !== undefined) await rm(this.#directory, { recursive: true });
  }
}

export function conversation(numTokens, seed) {
  return tokensOf(numTokens, seed, 4096);
}
