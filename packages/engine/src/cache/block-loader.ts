import type { BlockMiss, BlockStore, CacheIdentity, Clock, ModelRunner, Narrator } from '@kvasir/domain';
import { Pace } from './pace.ts';
import type { PrefixNode } from './prefix-node.ts';
import type { RestorePlanner } from './restore-planner.ts';
import type { Tiers } from './tiers.ts';

/** A node and the blocks its KV is to be written to. */
export interface NodeToLoad {
  readonly node: PrefixNode;
  readonly blockIds: Int32Array;
}

/** @property isOurs the payloads are this loader's own memory, to be given back to it */
interface Fetched {
  readonly payloads: readonly Uint8Array[] | null;
  readonly isOurs: boolean;
}

interface LoadingNode extends NodeToLoad {
  readonly settle: (isLoaded: boolean) => void;
}

/** Read by one call: little, so that the first blocks are written to the device while the last are read. */
const FETCH_BYTES = 4 * 1024 * 1024;
const MAX_FETCHED = 16;
/** Read at the same time, which keeps a disk and the store's threads busy: so much memory, but two calls at least. */
const BYTES_UNDER_WAY = 32 * 1024 * 1024;
/** Buffers of loads that are over, kept for the next. */
const MAX_SPARE_BYTES = 64 * 1024 * 1024;
const DAMAGED: readonly BlockMiss[] = ['truncated', 'corrupt', 'foreign', 'other-tokens'];

/**
 * Brings KV from the warm and cold tiers into the pool, in order, while other sequences' steps go on: some blocks are read
 * while those before them are written to the device. A node that cannot be had is a miss, and so are those behind it.
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

  async #run(items: readonly LoadingNode[]): Promise<void> {
    const { nodeBytes } = this.#tiers;
    const fetchSize = Math.max(1, Math.min(MAX_FETCHED, Math.floor(FETCH_BYTES / nodeBytes)));
    const maxUnderWay = Math.max(2, Math.floor(BYTES_UNDER_WAY / (fetchSize * nodeBytes)));
    const pace = new Pace(this.#clock);
    const underWay: { readonly batch: typeof items; readonly fetching: Promise<readonly Fetched[]> }[] = [];
    let numAsked = 0;
    let isBroken = false;
    const writing: Promise<unknown>[] = [];
    const ask = (): void => {
      if (isBroken) return;
      while (numAsked < items.length && underWay.length < maxUnderWay) {
        const batch = items.slice(numAsked, numAsked + fetchSize);
        numAsked += batch.length;
        const nodes = batch.map(({ node }) => node);
        underWay.push({ batch, fetching: this.#fetch(nodes, pace) });
      }
    };
    for (ask(); underWay.length > 0; ask()) {
      const { batch, fetching } = underWay.shift() as (typeof underWay)[number];
      const fetched = await fetching;
      const writes: Promise<unknown>[] = [];
      for (const [index, item] of batch.entries()) {
        const { payloads, isOurs } = fetched[index] as Fetched;
        isBroken ||= payloads === null;
        if (payloads === null || isBroken) {
          if (payloads !== null && isOurs) this.#giveBack(payloads);
          this.#fail(item);
          continue;
        }
        const write = this.write(item.blockIds, payloads);
        writes.push(isOurs ? write.then(() => this.#giveBack(payloads)) : write);
        this.#tiers.hot.attachAllocated(item.node, item.blockIds);
        this.#tiers.counters.loads++;
        this.#settle(item, true);
      }
      // As much waits for the device as is being read, so that it has the next batch when it is done with one.
      writing.push(Promise.all(writes));
      if (writing.length > maxUnderWay) await writing.shift();
    }
    for (const item of items.slice(numAsked)) this.#fail(item);
    await Promise.all(writing);
  }

  #fail(item: LoadingNode): void {
    this.#tiers.hot.giveBack(item.blockIds);
    this.#tiers.counters.loadFailures++;
    this.#settle(item, false);
  }

  #settle({ node, settle }: LoadingNode, isLoaded: boolean): void {
    node.loading = null;
    this.#tiers.settle(node);
    settle(isLoaded);
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

  async #fetch(nodes: readonly PrefixNode[], pace = new Pace(this.#clock)): Promise<readonly Fetched[]> {
    const results: Fetched[] = nodes.map(() => ({ payloads: null, isOurs: false }));
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
    const lap = pace.start();
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
      this.#planner.sawLoad('cold', bytes, lap());
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
    return this.#spare.pop() ?? this.#tiers.sharedPayloads();
  }

  #giveBack(payloads: readonly Uint8Array[]): void {
    if ((this.#spare.length + 1) * this.#tiers.nodeBytes <= MAX_SPARE_BYTES) this.#spare.push([...payloads]);
  }
}
