// An agent's blocks brought into the pool from a lower tier by the engine, against the plain movement of as many bytes.
import { randomFillSync } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { openColdTier } from '../../packages/block-store-fs/dist/index.js';
import { generatedModel, GREEDY, identityOf, loadRunner, makeEngine, tokensOf } from '../support/engines.mjs';
import { dropPageCache, readPlainFile, writePlainFile } from '../support/page-cache.mjs';

/** A runner that notes when the last block had been written to its pool. It does not own the other. */
class TimedRunner {
  lastWriteAt = 0;
  writtenBytes = 0;
  #runner;
  constructor(runner) {
    this.#runner = runner;
  }
  get info() {
    return this.#runner.info;
  }
  submit(batch) {
    return this.#runner.submit(batch);
  }
  copyBlocks(group, copies) {
    return this.#runner.copyBlocks(group, copies);
  }
  readBlocks(group, blockIds) {
    return this.#runner.readBlocks(group, blockIds);
  }
  async writeBlocks(group, blockIds, payloads) {
    await this.#runner.writeBlocks(group, blockIds, payloads);
    this.writtenBytes += payloads.length;
    this.lastWriteAt = performance.now();
  }
}

/** Two agents of `numBlocks` whole blocks and a pool for one of them: each that runs displaces the other. */
export class RestoreBench {
  #runner;
  #timed;
  #engine;
  #cold = null;
  #directory;
  #agents = [];
  #next = 0;
  #sources = [];
  #target;

  static async open({ numBlocks, numLayers, tier, readers }) {
    const bench = new RestoreBench();
    bench.numBlocks = numBlocks;
    const file = generatedModel({
      family: 'qwen3',
      numLayers,
      hiddenSize: 128,
      numHeads: 2,
      numKvHeads: 2,
      headDim: 64,
      feedForwardSize: 128,
      contextLength: numBlocks * 256,
    });
    const { runner, contextLength } = await loadRunner(file, numBlocks);
    bench.#runner = runner;
    bench.#timed = new TimedRunner(runner);
    bench.blockBytes = runner.info.cacheSpec.bytesPerBlock(0);
    bench.bytes = bench.blockBytes * numBlocks;
    bench.#directory = await mkdtemp(path.join(process.env.KVASIR_MEASURE ?? os.tmpdir(), 'kvasir-exp-006-'));
    if (tier === 'cold') {
      bench.#cold = await openColdTier({ directory: bench.#directory, ...(readers === undefined ? {} : { readers }) });
      bench.#cold.startReaders();
    }
    bench.#engine = makeEngine(bench.#timed, contextLength, {
      ...(tier === 'warm' ? { warmBytes: 3 * bench.bytes } : {}),
      ...(bench.#cold === null ? {} : { cold: { blocks: bench.#cold.blocks, agents: bench.#cold.agents } }),
    });
    bench.#engine.start();
    for (const seed of [1, 2]) await bench.#bear(seed);
    await bench.#engine.agentMemory.flush();
    if (tier === 'warm') {
      bench.#sources = Array.from({ length: numBlocks }, () => payloadOf(bench.blockBytes));
      bench.#target = new Uint8Array(bench.bytes).fill(1);
    } else writePlainFile(bench.#plain, bench.bytes, payloadOf(bench.blockBytes));
    return bench;
  }

  /** KV of its own, put where an import puts it: into the warm tier, else saved to the cold one. */
  async #bear(seed) {
    const { vocabularySize, cacheSpec } = this.#runner.info;
    const promptIds = tokensOf(this.numBlocks * 256, seed, vocabularySize);
    const identity = identityOf(this.#runner);
    const name = `agent-${seed}`;
    const summary = await this.#cold?.agents.create({ tenant: 'default', name, identity, atMs: 1 });
    const agent = { agentId: summary?.agentId ?? name, tenant: 'default' };
    const { agentMemory } = this.#engine;
    for (let block = 0; block < this.numBlocks; block++) {
      const taken = await agentMemory.writeBlock(agent, {
        key: { hash: '', group: 0 },
        startToken: block * 256,
        tokenIds: promptIds.slice(block * 256, (block + 1) * 256),
        shape: cacheSpec.payloadShape(0),
        payload: payloadOf(this.blockBytes),
      });
      if (!taken) throw new Error('expected the block to be taken');
      // One by one: what waits for the disk waits in memory.
      if (this.#cold !== null) await agentMemory.flush();
    }
    this.#agents.push(promptIds);
  }

  /** @returns milliseconds from the submission to the last block in the pool, the lookup and the eviction included */
  async restore() {
    const promptIds = this.#agents[this.#next];
    this.#next = 1 - this.#next;
    const before = this.#timed.writtenBytes;
    const start = performance.now();
    const generation = this.#engine.submit({ promptIds, sampling: GREEDY, maxTokens: 1, stopIds: [] });
    await generation.collect();
    const moved = this.#timed.writtenBytes - before;
    if (moved !== this.bytes) throw new Error(`expected ${this.bytes} bytes moved, found ${moved}`);
    return this.#timed.lastWriteAt - start;
  }

  /** @returns milliseconds; as many bytes from as many buffers into memory that is there */
  copyPlainly() {
    const start = performance.now();
    for (const [block, source] of this.#sources.entries()) this.#target.set(source, block * this.blockBytes);
    return performance.now() - start;
  }

  readPlainly() {
    return readPlainFile(this.#plain);
  }

  /** One round from disk: the plain read and the agent, each from the disk itself and then from the page cache. */
  async coldRound() {
    dropPageCache();
    const plainCold = this.readPlainly();
    const plainCached = this.readPlainly();
    dropPageCache();
    const cold = await this.restore();
    // The agents displace each other: this is the other one, whose files are read ahead.
    await this.restore();
    const cached = await this.restore();
    return { plainCold, plainCached, cold, cached };
  }

  get #plain() {
    return path.join(this.#directory, 'plain');
  }

  async close() {
    await this.#engine.dispose();
    await this.#cold?.close();
    await this.#runner.dispose();
    await rm(this.#directory, { recursive: true });
  }
}

/** Noise that is finite in every float format. */
function payloadOf(bytes) {
  const payload = new Uint8Array(bytes);
  randomFillSync(payload);
  for (let index = 1; index < bytes; index += 2) payload[index] &= 0xb3;
  return payload;
}
