import type { BlockMiss, BlockStore, CacheIdentity, Clock, ModelRunner, Narrator } from '@kvasir/domain';
import type { PrefixNode } from './prefix-node.ts';
import type { RestorePlanner } from './restore-planner.ts';
import type { Tiers } from './tiers.ts';

/** A node and the blocks its KV is to be written to. */
export interface NodeToLoad {
  readonly node: PrefixNode;
  readonly blockIds: Int32Array;
}

/** Read at once: enough to keep a disk busy, few enough that the first block does not wait for the last. */
const BATCH_BYTES = 16 * 1024 * 1024;
const MAX_BATCH = 16;
/** Buffers of loads that are over, kept for the next. */
const MAX_SPARE_BYTES = 64 * 1024 * 1024;
const DAMAGED: readonly BlockMiss[] = ['truncated', 'corrupt', 'foreign', 'other-tokens'];

/**
 * Brings KV from the warm and cold tiers into the pool, in order, while other sequences' steps go on: one batch is read
 * while the one before it is written to the device. A node that cannot be had is a miss, and so are those behind it.
 */
export class BlockLoader {
  readonly #runner: ModelRunner;
  readonly #clock: Clock;
  readonly #narrator: Narrator;
  readonly #tiers: Tiers;
  readonly #store: BlockStore | null;
  readonly #identity: CacheIdentity;
  readonly #planner: RestorePlanner;
  readonly #spare: Uint8Array[][] = [];
  /** Told when the device refused a write: what its pool holds is not what we believe. */
  onDeviceFailure: (error: unknown) => void = () => {};

  constructor(
    ports: { readonly runner: ModelRunner; readonly clock: Clock; readonly narrator: Narrator },
    tiers: Tiers,
    store: BlockStore | null,
    identity: CacheIdentity,
    planner: RestorePlanner,
  ) {
    this.#runner = ports.runner;
    this.#clock = ports.clock;
    this.#narrator = ports.narrator;
    this.#tiers = tiers;
    this.#store = store;
    this.#identity = identity;
    this.#planner = planner;
  }

  /**
   * Starts loading nodes that nobody loads yet; each node's `loading` tells when it is over. Never rejects. Blocks of
   * nodes that could not be loaded are given back.
   */
  load(items: readonly NodeToLoad[]): void {
    const settled = items.map((item) => {
      let settle: (isLoaded: boolean) => void = () => {};
      item.node.loading = new Promise((resolve) => {
        settle = resolve;
      });
      return { ...item, settle };
    });
    void this.#run(settled);
  }

  /** Payloads of one node for a sequence's own block; null when no tier has them. Never rejects. */
  async fetchOne(node: PrefixNode): Promise<readonly Uint8Array[] | null> {
    return (await this.#fetch([node]))[0]?.payloads ?? null;
  }

  /** Reads a node's payloads for what the planner learns of it, and keeps nothing. Never rejects. */
  async probe(node: PrefixNode): Promise<void> {
    const [result] = await this.#fetch([node]);
    if (result?.isOurs === true && result.payloads !== null) this.#giveBack(result.payloads);
  }

  async #run(items: readonly (NodeToLoad & { readonly settle: (isLoaded: boolean) => void })[]): Promise<void> {
    const batchSize = Math.max(1, Math.min(MAX_BATCH, Math.floor(BATCH_BYTES / this.#tiers.nodeBytes)));
    let isBroken = false;
    let reading = this.#fetch(items.slice(0, batchSize).map(({ node }) => node));
    let writing: Promise<unknown> = Promise.resolve();
    for (let first = 0; first < items.length; first += batchSize) {
      const batch = items.slice(first, first + batchSize);
      const fetched = await reading;
      const following = items.slice(first + batchSize, first + 2 * batchSize);
      if (!isBroken && following.length > 0) reading = this.#fetch(following.map(({ node }) => node));
      const writes: Promise<unknown>[] = [];
      for (const [index, { node, blockIds, settle }] of batch.entries()) {
        const payloads = isBroken ? null : (fetched[index]?.payloads ?? null);
        if (payloads === null) {
          isBroken = true;
          this.#tiers.hot.giveBack(blockIds);
          this.#tiers.counters.loadFailures++;
          node.loading = null;
          this.#tiers.settle(node);
          settle(false);
          continue;
        }
        const write = this.write(blockIds, payloads);
        const spare = fetched[index]?.isOurs === true ? payloads : null;
        writes.push(spare === null ? write : write.then(() => this.#giveBack(spare)));
        this.#tiers.hot.attachAllocated(node, blockIds);
        this.#tiers.counters.loads++;
        node.loading = null;
        this.#tiers.settle(node);
        settle(true);
      }
      // At most one batch waits for the device while the next is read.
      await writing;
      writing = Promise.all(writes);
    }
    await writing;
  }

  /** Ordered with steps: what is submitted afterwards finds the KV there. Never rejects. */
  async write(blockIds: Int32Array, payloads: readonly Uint8Array[]): Promise<void> {
    try {
      await Promise.all(
        payloads.map((payload, group) => this.#runner.writeBlocks(group, blockIds.subarray(group, group + 1), payload)),
      );
    } catch (error) {
      this.onDeviceFailure(error);
    }
  }

  async #fetch(
    nodes: readonly PrefixNode[],
  ): Promise<readonly { readonly payloads: readonly Uint8Array[] | null; readonly isOurs: boolean }[]> {
    const results = nodes.map(() => ({ payloads: null as readonly Uint8Array[] | null, isOurs: false }));
    const cold: { readonly index: number; readonly node: PrefixNode; readonly into: Uint8Array[] }[] = [];
    for (const [index, node] of nodes.entries()) {
      const startedAt = this.#clock.now();
      const above = this.#tiers.payloads(node);
      if (above !== null) {
        const payloads = await above;
        results[index] = { payloads, isOurs: false };
        this.#tiers.warm.touch(node);
        this.#tiers.counters.movedBytes.warmToHot += payloads === null ? 0 : this.#tiers.nodeBytes;
        this.#planner.sawLoad('warm', this.#tiers.nodeBytes, this.#clock.now() - startedAt);
      } else if (this.#store !== null && node.isCold) cold.push({ index, node, into: this.#take() });
    }
    if (this.#store === null || cold.length === 0) return results;
    const requests = cold.flatMap(({ node, into }) => {
      const hash = this.#tiers.hashes.of(node);
      return this.#tiers.shapes.map((shape, group) => ({
        key: { hash, group },
        identity: this.#identity,
        tokenIds: node.tokenIds,
        shape,
        into: into[group] as Uint8Array,
      }));
    });
    const startedAt = this.#clock.now();
    const numGroups = this.#tiers.shapes.length;
    try {
      const loads = await this.#store.get(requests);
      let bytes = 0;
      for (const [place, { index, node, into }] of cold.entries()) {
        const parts = loads.slice(place * numGroups, (place + 1) * numGroups);
        const miss = parts.find((part) => !part.isHit);
        if (miss === undefined) {
          results[index] = { payloads: into, isOurs: true };
          for (const part of parts) bytes += part.isHit ? part.bytesRead : 0;
        } else {
          this.#giveBack(into);
          if (!miss.isHit) this.#onMiss(node, miss.reason);
        }
      }
      this.#tiers.counters.movedBytes.coldToHot += bytes;
      this.#planner.sawLoad('cold', bytes, this.#clock.now() - startedAt);
    } catch (error) {
      this.#narrator.narrate({ level: 'warn', name: 'cold-read-failed', facts: { message: String(error) } });
    }
    return results;
  }

  #onMiss(node: PrefixNode, reason: BlockMiss): void {
    const { loadMisses } = this.#tiers.counters;
    loadMisses.set(reason, (loadMisses.get(reason) ?? 0) + 1);
    if (reason !== 'unreadable') node.isCold = false;
    if (DAMAGED.includes(reason)) node.wasDamaged = true;
    else node.wasEvicted = true;
    this.#narrator.narrate({
      level: reason === 'absent' ? 'info' : 'warn',
      name: 'cold-block-missed',
      facts: { reason, startToken: node.startToken, tokens: node.tokenIds.length },
    });
  }

  #take(): Uint8Array[] {
    const spare = this.#spare.pop();
    if (spare !== undefined) return spare;
    // Shared memory crosses to the store's threads without being copied.
    return this.#tiers.shapes.map(
      ({ dtype, layers, components, heads, blockTokens, dim }) =>
        new Uint8Array(new SharedArrayBuffer(layers * components * heads * blockTokens * dim * BYTES_OF_DTYPE[dtype])),
    );
  }

  #giveBack(payloads: readonly Uint8Array[]): void {
    if ((this.#spare.length + 1) * this.#tiers.nodeBytes <= MAX_SPARE_BYTES) this.#spare.push([...payloads]);
  }
}

const BYTES_OF_DTYPE = { F32: 4, F16: 2, BF16: 2, U8: 1 } as const;
