import type { BlockPool, CacheStats, PrefixReuse, ReuseLimit, Sequence } from '@kvasir/domain';
import type { BatchEnginePorts } from '../engine-options.ts';
import { BlockLoader, type NodeToLoad } from './block-loader.ts';
import { type CacheOptions, resolveCacheSettings } from './cache-options.ts';
import type { PrefixNode } from './prefix-node.ts';
import { type ChosenPrefix, choosePrefix, tierOf } from './prefix-choice.ts';
import type { PrefixMatch } from './prefix-trie.ts';
import { RestorePlanner } from './restore-planner.ts';
import type { SequenceCache } from './sequence-cache.ts';
import { ReuseRecord, type SequenceLease, type Tier } from './sequence-lease.ts';
import { Tiers } from './tiers.ts';

export interface SequenceOwner {
  readonly tenant: string;
  /** The agent it is a turn of, or a name nobody else has. */
  readonly owner: string;
}

/** Told of what happens outside of the engine's own calls. */
export interface CacheListeners {
  /** A sequence's prefix has been found, and brought in. Once per admission, so again after a preemption. */
  readonly onReuse: (sequence: Sequence, reuse: PrefixReuse) => void;
  /** Something that was being waited for has happened: planning may go on. */
  readonly onReady: () => void;
  readonly onDeviceFailure: (error: unknown) => void;
}

/**
 * KV that outlives the sequence that computed it. A waiting sequence is given the longest prefix of its tokens that is
 * known to its tenant, from whichever tier has it; a sequence that leaves gives its blocks to the trie, and nothing is
 * copied but the leading slots of a block that a match ends in.
 *
 * All state belongs to the engine's thread.
 */
export class AgentCacheStore implements SequenceCache {
  readonly tiers: Tiers;
  readonly planner: RestorePlanner;
  readonly loader: BlockLoader;
  readonly #ports: BatchEnginePorts;
  readonly #pools: readonly BlockPool[];
  readonly #options: CacheOptions;
  readonly #listeners: CacheListeners;
  readonly #blockTokens: number;
  readonly #leases = new Map<number, SequenceLease>();
  /** Sequences for which the cold tier was asked already. */
  readonly #asked = new WeakSet<Sequence>();
  readonly #whoseOf: (sequence: Sequence) => SequenceOwner;
  /** Told of every node a sequence gave its block to, and whose sequence it was. */
  onShared: (node: PrefixNode, owner: string) => void = () => {};
  #numLoading = 0;

  constructor(
    ports: BatchEnginePorts,
    pools: readonly BlockPool[],
    options: CacheOptions,
    whoseOf: (sequence: Sequence) => SequenceOwner,
    listeners: CacheListeners,
  ) {
    const settings = resolveCacheSettings(options);
    this.#ports = ports;
    this.#pools = pools;
    this.#options = options;
    this.#whoseOf = whoseOf;
    this.#listeners = listeners;
    this.#blockTokens = ports.runner.info.cacheSpec.blockTokens;
    this.tiers = new Tiers(ports, pools, options, settings);
    this.planner = new RestorePlanner(settings.restore, ports.runner.info.attentionParityTokens);
    this.loader = new BlockLoader(ports, this.tiers, options.cold?.blocks ?? null, options.identity, this.planner);
    this.loader.onDeviceFailure = (error) => listeners.onDeviceFailure(error);
  }

  get numFree(): number {
    return this.tiers.hot.numFree;
  }

  get numFreeSoon(): number {
    return this.tiers.hot.numFreeSoon;
  }

  get numEvictable(): number {
    return this.tiers.hot.evictable.size;
  }

  get numLoading(): number {
    return this.#numLoading;
  }

  evictFor(count: number): void {
    this.tiers.evictFor(count);
  }

  evictPinned(count: number): boolean {
    return this.tiers.evictPinned(count);
  }

  prepare(sequence: Sequence, numPromised: number): 'ready' | 'loading' | 'short' {
    if (sequence.goal.kind !== 'generate') return 'ready';
    const known = this.#leases.get(sequence.id);
    if (known !== undefined) return known.isLoading ? 'loading' : 'ready';
    const { tokenIds } = sequence.blocks;
    const { tenant } = this.#whoseOf(sequence);
    const match = this.tiers.trie.match(tenant, tokenIds);
    if (this.#mayBeCold(sequence, match)) {
      this.#ask(sequence, tenant, match);
      return 'loading';
    }
    const found = choosePrefix(match, tokenIds.length, this.tiers, this.planner);
    const notLoaded = found.cause === 'recompute-faster' ? match.nodes[found.numNodes] : undefined;
    if (notLoaded !== undefined && this.planner.mayProbe(this.#ports.clock.now())) void this.loader.probe(notLoaded);
    return this.#bringIn(sequence, tenant, found, numPromised);
  }

  drop(sequence: Sequence): boolean {
    if (!this.#leases.has(sequence.id)) return false;
    this.leave(sequence);
    sequence.blocks.releaseBlocks();
    return true;
  }

  progress(sequence: Sequence): void {
    const lease = this.#leases.get(sequence.id);
    if (lease !== undefined) this.#publishFull(lease);
  }

  leave(sequence: Sequence): void {
    const lease = this.#leases.get(sequence.id);
    if (lease === undefined) return;
    this.#leases.delete(sequence.id);
    if (lease.isLoading) {
      lease.isCancelled = true;
      return;
    }
    this.#publishFull(lease);
    this.#publishTail(lease);
    this.#unuse(lease);
  }

  stats(): CacheStats {
    const { trie, hot, warm, counters } = this.tiers;
    return {
      nodes: trie.numNodes,
      hotBlocks: hot.numHeld,
      evictableBlocks: hot.evictable.size,
      warmBlocks: warm.numBlocks,
      warmBytes: warm.bytes,
      loading: this.#numLoading,
      lookups: counters.lookups,
      promptTokens: counters.promptTokens,
      matchedTokens: counters.matchedTokens,
      reusedTokens: { ...counters.reusedTokens },
      slotCopies: counters.slotCopies,
      evictions: counters.evictions,
      losses: counters.losses,
      movedBytes: { ...counters.movedBytes },
      saves: counters.saves,
      savesRefused: counters.savesRefused,
      saveFailures: counters.saveFailures,
      loads: counters.loads,
      loadFailures: counters.loadFailures,
      loadMisses: Object.fromEntries(counters.loadMisses),
      bytesPerMs: { ...this.planner.bytesPerMs },
      prefillMsPerToken: this.planner.msPerToken,
    };
  }

  /**
   * Every block the trie refers to is in the pools under its name, and no evictable one is in use. Cost: O(nodes); for
   * tests. @returns what is wrong, or null
   */
  findProblem(): string | null {
    let numHot = 0;
    for (const node of this.tiers.trie.nodes()) {
      if (node.hot === null) continue;
      numHot++;
      const { evictable, pinned } = this.tiers.hot;
      const isUnused = node.numUsers === 0;
      if (
        evictable.has(node) !== (isUnused && node.numPins === 0) ||
        pinned.has(node) !== (isUnused && node.numPins > 0)
      )
        return `node at ${node.startToken} listed wrongly`;
      for (const [group, pool] of this.#pools.entries()) {
        if (!pool.isHeldBy(node.hot[group] as number, 0)) return `block ${node.hot[group]} is not the trie's`;
      }
    }
    if (numHot !== this.tiers.hot.numHeld) return `${this.tiers.hot.numHeld} hot nodes counted, ${numHot} in the trie`;
    return null;
  }

  // ------------------------------------------------------------------------------------------------------- beginning

  /** A full block behind what the trie knows may be on disk, from before a restart or a dormant agent. */
  #mayBeCold(sequence: Sequence, match: PrefixMatch): boolean {
    if (this.#options.cold === undefined || this.#asked.has(sequence)) return false;
    const firstUnknown = match.nodes.length * this.#blockTokens;
    return sequence.blocks.numTokens - firstUnknown >= this.#blockTokens;
  }

  #ask(sequence: Sequence, tenant: string, match: PrefixMatch): void {
    this.#asked.add(sequence);
    const lease = this.#open(sequence, tenant, []);
    lease.isLoading = true;
    this.#numLoading++;
    void this.#askStore(tenant, sequence.blocks.tokenIds.slice(), match)
      .catch((error: unknown) => {
        this.#ports.narrator.narrate({ level: 'warn', name: 'cold-lookup-failed', facts: { message: String(error) } });
      })
      .finally(() => {
        this.#numLoading--;
        lease.isLoading = false;
        if (this.#leases.get(sequence.id) === lease) this.#leases.delete(sequence.id);
        this.#listeners.onReady();
      });
  }

  /** Hangs the blocks behind a match that the cold tier has into the trie. The hashes carry the tenant. */
  async #askStore(tenant: string, tokenIds: Int32Array, match: PrefixMatch): Promise<void> {
    const store = this.#options.cold?.blocks;
    if (store === undefined) return;
    const { hashes, trie } = this.tiers;
    const last = match.nodes.at(-1);
    let predecessor = last === undefined ? null : hashes.of(last);
    const parts: { readonly tokenIds: Int32Array; readonly hash: string }[] = [];
    const numFull = Math.floor(tokenIds.length / this.#blockTokens);
    for (let index = match.nodes.length; index < numFull; index++) {
      const part = tokenIds.subarray(index * this.#blockTokens, (index + 1) * this.#blockTokens);
      predecessor = hashes.hash(tenant, predecessor, part);
      parts.push({ tokenIds: part, hash: predecessor });
    }
    // The first answers for most prompts that were never seen.
    for (const some of [parts.slice(0, 1), parts.slice(1)]) {
      if (some.length === 0) return;
      const present = await store.has(some.map(({ hash }) => ({ hash, group: 0 })));
      const numPresent = present.includes(false) ? present.indexOf(false) : present.length;
      const path = trie.cover(tenant, tokenIds);
      for (const { tokenIds: part, hash } of some.slice(0, numPresent)) {
        const index = parts.findIndex((candidate) => candidate.hash === hash) + match.nodes.length;
        const parent: PrefixNode | undefined = index === 0 ? trie.root(tenant) : path[index - 1];
        if (parent === undefined) return;
        const node = trie.child(parent, part);
        node.hash = hash;
        node.isCold = true;
        path[index] = node;
        this.tiers.settle(node);
      }
      if (numPresent < some.length) return;
    }
  }

  #bringIn(
    sequence: Sequence,
    tenant: string,
    found: ChosenPrefix,
    numPromised: number,
  ): 'ready' | 'loading' | 'short' {
    const { hot } = this.tiers;
    const nodes = found.match.nodes.slice(0, found.numNodes);
    const lease = this.#open(sequence, tenant, nodes);
    for (const node of nodes) hot.use(node);
    const tail = found.usesTail ? found.match.tail : null;
    if (tail !== null) hot.use(tail);
    const giveUp = (): 'short' => {
      if (tail !== null) hot.unuse(tail);
      this.#unuse(lease);
      this.#leases.delete(sequence.id);
      return 'short';
    };
    // Blocks of nodes in use are neither free nor evictable any more, so these figures are about the others.
    const numShared = nodes.filter((node) => node.hot !== null || node.loading !== null).length;
    const numNew = Math.ceil(sequence.blocks.numTokens / this.#blockTokens) - numShared;
    if (numNew > this.numFree + this.numEvictable - numPromised) return giveUp();
    const toLoad = nodes.filter((node) => node.hot === null && node.loading === null);
    const numAtOnce = toLoad.length + (tail === null ? 0 : 1);
    if (numAtOnce > 0) {
      this.tiers.evictFor(numAtOnce);
      // Evicted blocks are retired while a step is in flight: asked again after it.
      if (this.numFree < numAtOnce) return giveUp();
    }
    const { counters } = this.tiers;
    counters.lookups++;
    counters.promptTokens += sequence.blocks.numTokens;
    counters.matchedTokens += found.match.numTokens;
    const record = new ReuseRecord(found.match.numTokens, this.#ports.clock.now());
    const tiers = nodes.map((node) => tierOf(node, this.tiers));
    const items: NodeToLoad[] = toLoad.map((node) => ({ node, blockIds: hot.allocate() as Int32Array }));
    if (tail !== null) {
      lease.tail = tail;
      lease.tailTokens = found.match.tailTokens;
      lease.own = this.#allocateOwn(sequence.id);
    }
    const tailTier = tail === null ? 'hot' : tierOf(tail, this.tiers);
    if (nodes.every((node) => node.hot !== null) && tailTier === 'hot') {
      this.#finish(lease, tiers, tailTier, null, record, found.cause);
      return 'ready';
    }
    lease.isLoading = true;
    this.#numLoading++;
    if (items.length > 0) this.loader.load(items);
    void this.#await(lease, tiers, tailTier, record, found.cause);
    return 'loading';
  }

  async #await(
    lease: SequenceLease,
    tiers: readonly Tier[],
    tailTier: Tier,
    record: ReuseRecord,
    cause: ReuseLimit,
  ): Promise<void> {
    const tailPayloads = lease.tail !== null && tailTier !== 'hot' ? this.loader.fetchOne(lease.tail) : null;
    for (const node of lease.nodes) if (node.loading !== null) await node.loading;
    const payloads = tailPayloads === null ? null : await tailPayloads;
    this.#numLoading--;
    lease.isLoading = false;
    if (lease.isCancelled) {
      this.#freeOwn(lease);
      if (lease.tail !== null) this.tiers.hot.unuse(lease.tail);
      this.#unuse(lease);
    } else this.#finish(lease, tiers, tailTier, payloads, record, cause);
    this.#listeners.onReady();
  }

  /** Everything that could be had is in the pool: the sequence begins with it. */
  #finish(
    lease: SequenceLease,
    tiers: readonly Tier[],
    tailTier: Tier,
    tailPayloads: readonly Uint8Array[] | null,
    record: ReuseRecord,
    cause: ReuseLimit,
  ): void {
    const { sequence, nodes, tail } = lease;
    const { hot, counters } = this.tiers;
    const firstMissing = nodes.findIndex((node) => node.hot === null);
    const numThere = firstMissing < 0 ? nodes.length : firstMissing;
    for (const node of nodes.slice(numThere).reverse()) hot.unuse(node);
    const missed = nodes[numThere];
    lease.nodes = nodes.slice(0, numThere);
    let isTailThere = false;
    if (tail !== null && lease.own !== null && missed === undefined) {
      if (tail.hot !== null) {
        this.#copySlots(tail.hot, lease.own, lease.tailTokens);
        isTailThere = true;
      } else if (tailPayloads !== null) {
        void this.loader.write(lease.own, tailPayloads);
        isTailThere = true;
      }
    }
    if (tail !== null) hot.unuse(tail);
    if (!isTailThere) {
      this.#freeOwn(lease);
      lease.tail = null;
    }
    for (const [index, node] of lease.nodes.entries()) {
      const tier = tiers[index] as Tier;
      record.add(tier, node.tokenIds.length, this.tiers.nodeBytes);
      counters.reusedTokens[tier] += node.tokenIds.length;
    }
    if (isTailThere) {
      record.add(tailTier, lease.tailTokens, this.tiers.nodeBytes);
      counters.reusedTokens[tailTier] += lease.tailTokens;
    }
    const kvLength = numThere * this.#blockTokens + (isTailThere ? lease.tailTokens : 0);
    const shared = this.#pools.map((_, group) => {
      const blockIds = new Int32Array(lease.nodes.length);
      for (const [index, node] of lease.nodes.entries()) blockIds[index] = (node.hot as Int32Array)[group] as number;
      return blockIds;
    });
    sequence.blocks.adopt(shared, lease.own, kvLength);
    lease.own = null;
    const lostTail = tail !== null && !isTailThere ? tail : null;
    this.#listeners.onReuse(sequence, record.finish(lossOf(missed ?? lostTail) ?? cause, this.#ports.clock.now()));
  }

  #copySlots(source: Int32Array, destination: Int32Array, numTokens: number): void {
    this.tiers.counters.slotCopies++;
    for (const group of this.#pools.keys()) {
      const copy = { source: source[group] as number, destination: destination[group] as number, numTokens };
      // Ordered with steps: the sequence's first one finds the slots filled.
      this.#ports.runner.copyBlocks(group, [copy]).catch((error: unknown) => this.#listeners.onDeviceFailure(error));
    }
  }

  #open(sequence: Sequence, tenant: string, nodes: readonly PrefixNode[]): SequenceLease {
    const lease: SequenceLease = {
      sequence,
      tenant,
      nodes: [...nodes],
      tail: null,
      tailTokens: 0,
      own: null,
      isLoading: false,
      isCancelled: false,
    };
    this.#leases.set(sequence.id, lease);
    return lease;
  }

  #allocateOwn(owner: number): Int32Array {
    return Int32Array.from(this.#pools, (pool) => (pool.allocate(1, owner) as Int32Array)[0] as number);
  }

  #freeOwn(lease: SequenceLease): void {
    if (lease.own === null) return;
    for (const [group, pool] of this.#pools.entries()) pool.release(lease.own[group] as number, lease.sequence.id);
    lease.own = null;
  }

  // ---------------------------------------------------------------------------------------------------------- leaving

  /** Shares the sequence's full blocks. Where another computed the same first, that one stays the trie's. */
  #publishFull(lease: SequenceLease): void {
    const { blocks } = lease.sequence;
    const numFull = Math.floor(blocks.kvLength / this.#blockTokens);
    for (let index = lease.nodes.length; index < numFull; index++) {
      const parent = lease.nodes[index - 1] ?? this.tiers.trie.root(lease.tenant);
      const start = index * this.#blockTokens;
      const node = this.tiers.trie.child(parent, blocks.tokenIds.subarray(start, start + this.#blockTokens));
      this.tiers.hot.use(node);
      this.#give(lease, node, index);
      lease.nodes.push(node);
    }
  }

  /** Keeps the last block, which is not full: the sequence writes to it no more. */
  #publishTail(lease: SequenceLease): void {
    const { blocks } = lease.sequence;
    const index = Math.floor(blocks.kvLength / this.#blockTokens);
    const start = index * this.#blockTokens;
    if (blocks.kvLength > start && lease.nodes.length === index) {
      const parent = lease.nodes[index - 1] ?? this.tiers.trie.root(lease.tenant);
      const node = this.tiers.trie.child(parent, blocks.tokenIds.subarray(start, blocks.kvLength));
      this.#give(lease, node, index);
      this.tiers.hot.settle(node);
      this.tiers.settle(node);
      if (node === lease.tail) return;
    }
    const { tail } = lease;
    // The sequence went on from all of it: whoever comes next continues from the longer one.
    if (tail !== null && blocks.kvLength > tail.endToken && lease.tailTokens === tail.tokenIds.length) {
      this.tiers.abandon(tail);
    }
  }

  #give(lease: SequenceLease, node: PrefixNode, index: number): void {
    if (node.hot !== null || node.loading !== null) return;
    this.onShared(node, this.#whoseOf(lease.sequence).owner);
    const { blocks } = lease.sequence;
    this.tiers.hot.attach(
      node,
      Int32Array.from(this.#pools, (_, group) => blocks.table(group).blockIds[index] as number),
    );
    node.wasDamaged = false;
    node.hasOtherIdentity = false;
    this.tiers.settle(node);
  }

  #unuse(lease: SequenceLease): void {
    for (const node of lease.nodes.reverse()) {
      this.tiers.hot.unuse(node);
      this.tiers.settle(node);
    }
    lease.nodes = [];
  }
}

/** Why a node that was expected could not be had. */
function lossOf(node: PrefixNode | null): ReuseLimit | null {
  if (node === null) return null;
  return node.wasDamaged ? 'damaged' : 'evicted';
}
