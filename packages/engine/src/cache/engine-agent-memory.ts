import {
  type AgentManifest,
  type AgentMemory,
  type AgentTiers,
  type CacheIdentity,
  type CancellationSignal,
  type Clock,
  KvasirError,
  kvScopeOf,
  type MemoryBlock,
  type MemoryBlockListing,
  type Narrator,
} from '@kvasir/domain';
import type { AgentCacheStore } from './agent-cache-store.ts';
import { AgentTrail } from './agent-trail.ts';
import type { CacheOptions } from './cache-options.ts';
import { ColdEvictor } from './cold-evictor.ts';
import { ColdSaver } from './cold-saver.ts';
import type { PrefixNode } from './prefix-node.ts';
import type { Tiers } from './tiers.ts';

/** Nodes an agent has left are looked through when there are more than these beside its own. */
const MAX_LEFT = 64;

interface AgentOfTenant {
  readonly agentId: string;
  readonly tenant: string;
}

/** The agents' side of the cache: which nodes are whose, what is pinned, what is to be saved. */
export class EngineAgentMemory implements AgentMemory {
  readonly identity: CacheIdentity;
  readonly #cache: AgentCacheStore;
  readonly #tiers: Tiers;
  readonly #saver: ColdSaver | null;
  readonly #trails = new Map<string, AgentTrail>();

  constructor(
    cache: AgentCacheStore,
    options: CacheOptions,
    ports: { readonly clock: Clock; readonly narrator: Narrator },
  ) {
    const { identity, cold } = options;
    this.identity = identity;
    this.#cache = cache;
    this.#tiers = cache.tiers;
    this.#saver =
      cold === undefined
        ? null
        : new ColdSaver(cache.tiers, cold, identity, ports, new ColdEvictor(cache.tiers, cold, ports.narrator));
    cache.onShared = (node, owner) => {
      const trail = this.#trails.get(owner);
      if (trail !== undefined) this.#leave(trail, node);
    };
    // Its nodes are found again from its manifest.
    this.#tiers.onForgotten = (agentId) => this.#trails.delete(agentId);
  }

  adopt(manifest: AgentManifest): void {
    const { agentId, tokenIds } = manifest;
    if (this.#trails.has(agentId)) return;
    const tenant = kvScopeOf(manifest);
    const trail = this.#trail({ agentId, tenant });
    const references = manifest.blocks[0] ?? [];
    trail.noted = references;
    trail.pinnedTokens = manifest.pinnedTokens;
    const nodes: PrefixNode[] = [];
    for (const { startToken, numTokens, hash } of references) {
      const parent: PrefixNode = nodes.at(-1) ?? this.#tiers.trie.root(tenant);
      if (startToken !== parent.endToken || startToken % this.#tiers.trie.blockTokens !== 0) break;
      const node = this.#tiers.trie.child(parent, tokenIds.subarray(startToken, startToken + numTokens));
      if (this.#tiers.hashes.of(node) === hash) node.isCold = true;
      else node.hasOtherIdentity = !this.#tiers.hasKv(node);
      nodes.push(node);
    }
    trail.notedNodes = nodes;
    this.#assign(trail, nodes);
  }

  follow(agent: AgentOfTenant, tokenIds: Int32Array): void {
    const trail = this.#trail(agent);
    // A deletion that failed left the agent as it was.
    trail.isQuiesced = false;
    // A rewind took references that reach beyond it out of the manifest.
    const firstCut = trail.notedNodes.findIndex((node) => !node.standsIn(tokenIds));
    if (firstCut >= 0) {
      trail.noted = trail.noted.slice(0, firstCut);
      trail.notedNodes = trail.notedNodes.slice(0, firstCut);
    }
    this.#assign(trail, this.#tiers.trie.cover(trail.tenant, tokenIds));
    this.#saver?.enqueue(trail);
  }

  pin(agentId: string, pinnedTokens: number): void {
    const trail = this.#trails.get(agentId);
    if (trail === undefined) return;
    const { nodes } = trail;
    this.#assign(trail, []);
    trail.pinnedTokens = pinnedTokens;
    this.#assign(trail, nodes);
    this.#saver?.enqueue(trail);
  }

  async quiesce(agentId: string): Promise<void> {
    const trail = this.#trails.get(agentId);
    if (trail !== undefined) await this.#saver?.quiesce(trail);
  }

  forget(agentId: string): void {
    const trail = this.#trails.get(agentId);
    if (trail === undefined) return;
    this.#trails.delete(agentId);
    this.#assign(trail, []);
    // Deepest first, so that what is left of a branch goes with its leaves.
    const nodes = [...trail.left].toSorted((one, other) => other.startToken - one.startToken);
    for (const node of nodes) {
      if (node.agents.size === 0) {
        node.isCold = false;
        this.#tiers.drop(node);
        continue;
      }
      // Others have it. Whether the archive knew that when it deleted the agent's blocks is not certain: save it again.
      for (const other of node.agents) {
        const theirs = this.#trails.get(other);
        if (theirs === undefined || theirs.noted.some(({ hash }) => hash === node.hash)) continue;
        node.isCold = false;
        this.#saver?.enqueue(theirs);
      }
    }
  }

  tiersOf(agentId: string): AgentTiers {
    const nodes = this.#trails.get(agentId)?.nodes ?? [];
    const holding = (has: (node: PrefixNode) => boolean): AgentTiers['hot'] => {
      const held = nodes.filter(has);
      return {
        blocks: held.length,
        tokens: held.reduce((sum, node) => sum + node.tokenIds.length, 0),
        bytes: held.length * this.#tiers.nodeBytes,
      };
    };
    return {
      hot: holding((node) => node.hot !== null),
      warm: holding((node) => node.warm !== null),
      cold: holding((node) => node.isCold),
    };
  }

  listBlocks(agent: AgentOfTenant, tokenIds: Int32Array): readonly MemoryBlockListing[] {
    const listings: MemoryBlockListing[] = [];
    for (const node of this.#tiers.trie.cover(this.#scopeOf(agent), tokenIds)) {
      if (!this.#tiers.hasKv(node)) break;
      const hash = this.#tiers.hashes.of(node);
      for (const [group, shape] of this.#tiers.shapes.entries()) {
        listings.push({ key: { hash, group }, startToken: node.startToken, numTokens: node.tokenIds.length, shape });
      }
    }
    return listings;
  }

  async *readBlocks(
    agent: AgentOfTenant,
    tokenIds: Int32Array,
    signal?: CancellationSignal,
  ): AsyncIterable<MemoryBlock> {
    for (const node of this.#tiers.trie.cover(this.#scopeOf(agent), tokenIds)) {
      if (signal?.aborted === true)
        throw new KvasirError('aborted', 'export: expected to reach its end, it was aborted');
      const payloads = await this.#cache.loader.fetchOne(node);
      if (payloads === null) return;
      const hash = this.#tiers.hashes.of(node);
      for (const [group, payload] of payloads.entries()) {
        const shape = this.#tiers.shapes[group] as MemoryBlock['shape'];
        yield { key: { hash, group }, startToken: node.startToken, tokenIds: node.tokenIds, shape, payload };
      }
    }
  }

  async writeBlock(agent: AgentOfTenant, block: MemoryBlock): Promise<boolean> {
    const trail = this.#trail(agent);
    const { group } = block.key;
    const shape = this.#tiers.shapes[group];
    if (shape === undefined || JSON.stringify(shape) !== JSON.stringify(block.shape)) return false;
    // One layer group is one payload; several are several calls, of which the last completes the node.
    const parent =
      trail.nodes.find((node) => node.endToken === block.startToken) ??
      (block.startToken === 0 ? this.#tiers.trie.root(trail.tenant) : null);
    if (parent === null || this.#tiers.shapes.length > 1) return false;
    const node = this.#tiers.trie.child(parent, block.tokenIds);
    this.#tiers.keep(node, [block.payload]);
    if (!trail.nodes.includes(node)) this.#assign(trail, [...trail.nodes, node]);
    this.#saver?.enqueue(trail);
    return true;
  }

  async flush(signal?: CancellationSignal): Promise<void> {
    if (this.#saver === null) return;
    if (signal === undefined) return await this.#saver.idle();
    let onAbort = (): void => {};
    const aborted = new Promise<never>((_, reject) => {
      onAbort = () => reject(new KvasirError('aborted', 'flush: expected everything saved in time, found some left'));
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort);
    });
    try {
      await Promise.race([this.#saver.idle(), aborted]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Saves nothing more; resolves when what was being written is. */
  async stop(): Promise<void> {
    await this.#saver?.stop();
  }

  #scopeOf({ agentId, tenant }: AgentOfTenant): string {
    return this.#trails.get(agentId)?.tenant ?? tenant;
  }

  #trail({ agentId, tenant }: AgentOfTenant): AgentTrail {
    let trail = this.#trails.get(agentId);
    if (trail === undefined) {
      trail = new AgentTrail(agentId, tenant);
      this.#trails.set(agentId, trail);
    }
    return trail;
  }

  /** These are the agent's nodes now; what it leaves behind is abandoned, its last block first. */
  #assign(trail: AgentTrail, nodes: readonly PrefixNode[]): void {
    const { agentId, pinnedTokens } = trail;
    const before = trail.nodes;
    const after = new Set(nodes);
    trail.version++;
    trail.nodes = nodes;
    for (const node of nodes) {
      if (node.agents.has(agentId)) continue;
      node.agents.add(agentId);
      if (node.startToken < pinnedTokens) this.#changePins(node, 1);
    }
    for (const node of [...before].reverse()) {
      if (after.has(node)) continue;
      node.agents.delete(agentId);
      if (node.startToken < pinnedTokens) this.#changePins(node, -1);
      this.#tiers.abandon(node);
      this.#leave(trail, node);
    }
  }

  #leave(trail: AgentTrail, node: PrefixNode): void {
    trail.left.add(node);
    if (trail.left.size <= 2 * trail.nodes.length + MAX_LEFT) return;
    for (const left of trail.left) if (!this.#tiers.hasKv(left)) trail.left.delete(left);
  }

  #changePins(node: PrefixNode, change: number): void {
    node.numPins += change;
    this.#tiers.hot.settle(node);
  }
}
