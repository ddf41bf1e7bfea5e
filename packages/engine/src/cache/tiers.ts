import type { BlockPool, ModelRunner, Narrator, PayloadShape } from '@kvasir/domain';
import { BlockHashes } from './block-hashes.ts';
import { CacheCounters } from './cache-counters.ts';
import type { CacheOptions, CacheSettings } from './cache-options.ts';
import { HotTier } from './hot-tier.ts';
import type { PrefixNode } from './prefix-node.ts';
import { PrefixTrie } from './prefix-trie.ts';
import { WarmTier } from './warm-tier.ts';

/** Nodes kept though no upper tier has them: cold ones, and those whose absence a diagnosis can explain. About 1 KB each. */
const MAX_DORMANT_NODES = 32_768;
/** KV of agents that is read for saving because the pool needs its block at once: no more than this waits in memory. */
const MAX_RESCUED_BYTES = 256 * 1024 * 1024;

/** The trie and where its nodes' KV lies; what moves down a tier, and what is forgotten. */
export class Tiers {
  readonly trie: PrefixTrie;
  readonly hot: HotTier;
  readonly warm: WarmTier;
  readonly hashes: BlockHashes;
  readonly counters = new CacheCounters();
  readonly shapes: readonly PayloadShape[];
  /** Bytes of one node's payloads over all layer groups. */
  readonly nodeBytes: number;
  readonly #runner: ModelRunner;
  readonly #narrator: Narrator;
  readonly #hasCold: boolean;
  readonly #protectedTokens: number;
  readonly #dormant = new Set<PrefixNode>();
  /** KV being read, or read and not saved yet, of nodes that have left the pool. */
  readonly #leaving = new Map<PrefixNode, Promise<readonly Uint8Array[] | null>>();
  #rescuedBytes = 0;
  /** Told of agents whose nodes were dropped from the trie; what they had is found again from their manifests. */
  onForgotten: (agentId: string) => void = () => {};

  constructor(
    ports: { readonly runner: ModelRunner; readonly narrator: Narrator },
    pools: readonly BlockPool[],
    options: CacheOptions,
    settings: CacheSettings,
  ) {
    const { cacheSpec } = ports.runner.info;
    this.#runner = ports.runner;
    this.#narrator = ports.narrator;
    this.trie = new PrefixTrie(cacheSpec.blockTokens);
    this.hot = new HotTier(pools);
    this.warm = new WarmTier(settings.warmBytes);
    this.hashes = new BlockHashes(options.sha256, options.identity);
    this.shapes = cacheSpec.groups.map((_, group) => cacheSpec.payloadShape(group));
    this.nodeBytes = cacheSpec.groups.reduce((sum, _, group) => sum + cacheSpec.bytesPerBlock(group), 0);
    this.#hasCold = options.cold !== undefined;
    this.#protectedTokens = settings.minBlocksPerAgent * cacheSpec.blockTokens;
  }

  /** Memory for one node's payloads that threads can be given without a copy. */
  sharedPayloads(): Uint8Array[] {
    return this.shapes.map(
      ({ dtype, layers, components, heads, blockTokens, dim }) =>
        new Uint8Array(new SharedArrayBuffer(layers * components * heads * blockTokens * dim * BYTES_OF_DTYPE[dtype])),
    );
  }

  /** Evicts until `count` blocks are free now or soon, or nothing is left to evict. */
  evictFor(count: number): void {
    while (this.hot.numFreeSoon < count) {
      const victim = this.#nextVictim();
      if (victim === null) return;
      this.#evict(victim);
    }
  }

  /** As `evictFor`, of pinned blocks. @returns whether any was evicted */
  evictPinned(count: number): boolean {
    let hasEvicted = false;
    for (const node of this.hot.pinned) {
      if (this.hot.numFreeSoon >= count) break;
      this.#evict(node);
      hasEvicted = true;
    }
    return hasEvicted;
  }

  /**
   * A node's payloads from host memory, or read from the pool in order with steps: the block may be released at once.
   * null: no tier above the cold one has them.
   * @param into memory for what is read, one entry a layer group; payloads that need no reading are returned where they lie
   */
  payloads(node: PrefixNode, into?: readonly Uint8Array[]): Promise<readonly Uint8Array[] | null> | null {
    if (node.warm !== null) return Promise.resolve(node.warm);
    const leaving = this.#leaving.get(node);
    if (leaving !== undefined) return leaving;
    if (node.hot === null) return null;
    const { hot } = node;
    return Promise.all(
      Array.from(hot, (blockId, group) => this.#runner.readBlocks(group, Int32Array.of(blockId), into?.[group])),
    ).catch((error: unknown) => {
      this.#narrator.narrate({
        level: 'warn',
        name: 'kv-unreadable',
        facts: { startToken: node.startToken, message: String(error) },
      });
      return null;
    });
  }

  /** Whether its payloads can be had without the cold tier. */
  isAboveCold(node: PrefixNode): boolean {
    return node.hot !== null || node.warm !== null || this.#leaving.has(node);
  }

  hasKv(node: PrefixNode): boolean {
    return node.hasKv || this.#leaving.has(node);
  }

  /** Payloads that came from outside: kept until they are saved, in the warm tier where it has room. */
  keep(node: PrefixNode, payloads: readonly Uint8Array[]): void {
    if (this.isAboveCold(node) || node.isCold) return;
    for (const dropped of this.warm.put(node, payloads)) this.#lostWarm(dropped);
    if (node.warm === null) {
      this.#rescuedBytes += this.nodeBytes;
      this.#leaving.set(node, Promise.resolve(payloads));
    }
    this.settle(node);
  }

  /** A saved or refused node's payloads are needed no longer. */
  released(node: PrefixNode): void {
    if (this.#leaving.delete(node)) this.#rescuedBytes -= this.nodeBytes;
    this.settle(node);
  }

  /** Nobody is expected to continue here: it goes before what is merely old. */
  abandon(node: PrefixNode): void {
    if (node.agents.size > 0 || node.numUsers > 0) return;
    this.hot.evictable.abandon(node);
    this.warm.abandon(node);
  }

  /** Drops a node's KV from the upper tiers, and the node where nobody needs it. */
  drop(node: PrefixNode): void {
    if (node.numUsers > 0 || node.loading !== null) return;
    this.hot.detach(node);
    this.warm.drop(node);
    if (this.#leaving.delete(node)) this.#rescuedBytes -= this.nodeBytes;
    this.#dormant.delete(node);
    this.trie.prune(node, (candidate) => this.#isNeeded(candidate));
  }

  /** To be called when a node's tiers or users changed: keeps count of nodes that are there for diagnosis only. */
  settle(node: PrefixNode): void {
    if (
      node.hot !== null ||
      node.warm !== null ||
      node.loading !== null ||
      node.numUsers > 0 ||
      this.#leaving.has(node)
    ) {
      this.#dormant.delete(node);
      return;
    }
    this.#dormant.delete(node);
    this.#dormant.add(node);
    if (this.#dormant.size <= MAX_DORMANT_NODES) return;
    for (const oldest of this.#dormant) {
      if (this.#dormant.size <= MAX_DORMANT_NODES) break;
      this.#dormant.delete(oldest);
      for (const agentId of oldest.agents) this.onForgotten(agentId);
      oldest.agents.clear();
      this.trie.prune(oldest, (candidate) => this.#isNeeded(candidate));
    }
  }

  #isNeeded(node: PrefixNode): boolean {
    return (
      node.hot !== null ||
      node.warm !== null ||
      node.loading !== null ||
      node.numUsers > 0 ||
      node.agents.size > 0 ||
      this.#leaving.has(node) ||
      this.#dormant.has(node)
    );
  }

  #nextVictim(): PrefixNode | null {
    let protectedOne: PrefixNode | null = null;
    for (const node of this.hot.evictable) {
      if (node.agents.size === 0 || node.startToken >= this.#protectedTokens) return node;
      protectedOne ??= node;
    }
    return protectedOne;
  }

  #evict(node: PrefixNode): void {
    this.counters.evictions++;
    const keepsWarm = this.warm.budgetBytes >= this.nodeBytes;
    const mustSave = this.#hasCold && node.agents.size > 0 && !node.isCold && !this.#leaving.has(node);
    const mayRescue = this.#rescuedBytes + this.nodeBytes <= MAX_RESCUED_BYTES;
    if (node.warm === null && (keepsWarm || (mustSave && mayRescue))) this.#carryDown(node, mustSave);
    this.hot.detach(node);
    if (node.warm === null && !node.isCold && !this.#leaving.has(node)) {
      this.counters.losses++;
      node.wasEvicted = true;
    }
    this.settle(node);
  }

  /** Reads a block that is about to leave the pool; later steps may overwrite it, the read comes first. */
  #carryDown(node: PrefixNode, mustSave: boolean): void {
    const reading = this.payloads(node);
    if (reading === null) return;
    this.#rescuedBytes += this.nodeBytes;
    this.#leaving.set(node, reading);
    void reading.then((payloads) => {
      if (!this.#leaving.has(node)) return;
      if (payloads === null) {
        node.wasEvicted = true;
        this.released(node);
        return;
      }
      this.counters.movedBytes.hotToWarm += this.nodeBytes;
      for (const dropped of this.warm.put(node, payloads)) this.#lostWarm(dropped);
      // What waits to be saved stays until the saver has it.
      if (node.warm !== null || !mustSave) this.released(node);
    });
  }

  #lostWarm(node: PrefixNode): void {
    if (node.hot === null && !node.isCold && !this.#leaving.has(node)) {
      this.counters.losses++;
      node.wasEvicted = true;
    }
    this.settle(node);
  }
}

const BYTES_OF_DTYPE = { F32: 4, F16: 2, BF16: 2, U8: 1 } as const;
