import {
  type AgentArchive,
  type BlockKey,
  type BlockPayload,
  type BlockReference,
  type BlockStore,
  type CacheIdentity,
  type Clock,
  isKvasirError,
  type Narrator,
} from '@kvasir/domain';
import type { AgentTrail } from './agent-trail.ts';
import type { ColdEvictor } from './cold-evictor.ts';
import type { PrefixNode } from './prefix-node.ts';
import type { Tiers } from './tiers.ts';

/** Read from the pool and written at once. */
const BATCH_BYTES = 16 * 1024 * 1024;

/**
 * Writes agents' KV behind, one agent after the other, a batch between two turns of the event loop. Reading a batch from
 * the device is the only thing a running step can notice of it. References are noted before blocks are put, so that a
 * crash leaves no block that deleting the agent would overlook.
 */
export class ColdSaver {
  readonly #tiers: Tiers;
  readonly #store: BlockStore;
  readonly #archive: AgentArchive;
  readonly #identity: CacheIdentity;
  readonly #clock: Clock;
  readonly #narrator: Narrator;
  readonly #evictor: ColdEvictor;
  readonly #queue = new Set<AgentTrail>();
  #current: AgentTrail | null = null;
  #running: Promise<void> | null = null;
  #isStopped = false;
  readonly #watchers: (() => void)[] = [];
  /** Memory for a batch, one entry a node: the store's threads read where the device wrote. One batch is on its way at a time. */
  readonly #memory: Uint8Array[][] = [];

  constructor(
    tiers: Tiers,
    cold: { readonly blocks: BlockStore; readonly agents: AgentArchive },
    identity: CacheIdentity,
    ports: { readonly clock: Clock; readonly narrator: Narrator },
    evictor: ColdEvictor,
  ) {
    this.#tiers = tiers;
    this.#store = cold.blocks;
    this.#archive = cold.agents;
    this.#identity = identity;
    this.#clock = ports.clock;
    this.#narrator = ports.narrator;
    this.#evictor = evictor;
  }

  /** Its nodes are to be saved, as they are when its turn comes. */
  enqueue(trail: AgentTrail): void {
    if (trail.isQuiesced || this.#isStopped) return;
    this.#queue.add(trail);
    this.#running ??= this.#run();
  }

  /** Resolves when nothing of the agent is being saved any more. */
  async quiesce(trail: AgentTrail): Promise<void> {
    trail.isQuiesced = true;
    this.#queue.delete(trail);
    while (this.#current === trail) await this.#change();
  }

  /** Begins nothing more; resolves when what was being written is. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#queue.clear();
    await this.idle();
  }

  /** Resolves when nothing is left to save. */
  async idle(): Promise<void> {
    while (this.#running !== null) await this.#running;
  }

  async #run(): Promise<void> {
    for (const trail of this.#queue) {
      this.#queue.delete(trail);
      this.#current = trail;
      try {
        await this.#save(trail);
      } catch (error) {
        if (!trail.isQuiesced) this.#onFailure(trail, error);
      } finally {
        this.#current = null;
        for (const wake of this.#watchers.splice(0)) wake();
      }
    }
    this.#running = null;
  }

  async #save(trail: AgentTrail): Promise<void> {
    const { version } = trail;
    const nodes = await this.#note(trail, this.#savable(trail.nodes));
    const todo = nodes.filter((node) => !node.isCold);
    const batchSize = Math.max(1, Math.floor(BATCH_BYTES / this.#tiers.nodeBytes));
    for (let first = 0; first < todo.length; first += batchSize) {
      const isStale = this.#isStopped || trail.isQuiesced || trail.version !== version;
      if (isStale || !(await this.#put(todo.slice(first, first + batchSize)))) return;
      await this.#clock.turn();
    }
  }

  /** The leading nodes whose KV is somewhere. */
  #savable(nodes: readonly PrefixNode[]): readonly PrefixNode[] {
    const end = nodes.findIndex((node) => !node.isCold && !this.#tiers.isAboveCold(node));
    return end < 0 ? nodes : nodes.slice(0, end);
  }

  /** @returns the nodes the manifest now names: all of them, or fewer where it was rewound */
  async #note(trail: AgentTrail, nodes: readonly PrefixNode[]): Promise<readonly PrefixNode[]> {
    try {
      await this.#noteReferences(trail, nodes);
      return nodes;
    } catch (error) {
      if (!isKvasirError(error) || error.code !== 'invalid-argument') throw error;
    }
    // A rewind came in between: what the manifest says now is what counts, until the turn behind it is followed.
    const { blocks, tokenIds } = await this.#archive.read(trail.agentId);
    trail.noted = blocks[0] ?? [];
    trail.notedNodes = [];
    const firstCut = nodes.findIndex((node) => !node.standsIn(tokenIds));
    const left = firstCut < 0 ? nodes : nodes.slice(0, firstCut);
    await this.#noteReferences(trail, left);
    return left;
  }

  async #noteReferences(trail: AgentTrail, nodes: readonly PrefixNode[]): Promise<void> {
    const references = nodes.map(
      (node): BlockReference => ({
        startToken: node.startToken,
        numTokens: node.tokenIds.length,
        hash: this.#tiers.hashes.of(node),
      }),
    );
    const before = trail.noted;
    let keep = 0;
    while (keep < references.length && before[keep]?.hash === references[keep]?.hash) keep++;
    if (keep === references.length && keep === before.length) return;
    for (const group of this.#tiers.shapes.keys()) {
      await this.#archive.note(trail.agentId, { kind: 'blocks', group, keep, blocks: references.slice(keep) });
    }
    const superseded = trail.notedNodes.slice(keep);
    trail.noted = references;
    trail.notedNodes = nodes;
    await this.#removeSuperseded(superseded);
  }

  /** A last block that grew is stored anew; what it was before is nobody's. */
  async #removeSuperseded(nodes: readonly PrefixNode[]): Promise<void> {
    const unused = nodes.filter(
      (node) => node.isCold && node.agents.size === 0 && node.tokenIds.length < this.#tiers.trie.blockTokens,
    );
    if (unused.length === 0) return;
    for (const node of unused) node.isCold = false;
    const keysOf = (node: PrefixNode): BlockKey[] =>
      this.#tiers.shapes.map((_, group) => ({ hash: this.#tiers.hashes.of(node), group }));
    await this.#store.delete(unused.flatMap(keysOf));
  }

  /** @returns whether to go on */
  async #put(nodes: readonly PrefixNode[]): Promise<boolean> {
    while (this.#memory.length < nodes.length) this.#memory.push(this.#tiers.sharedPayloads());
    const reads = await Promise.all(nodes.map((node, index) => this.#tiers.payloads(node, this.#memory[index])));
    const blocks: BlockPayload[] = [];
    const owners: PrefixNode[] = [];
    let isWhole = true;
    for (const [index, node] of nodes.entries()) {
      const payloads = reads[index] as readonly Uint8Array[] | null;
      if (payloads === null) {
        isWhole = false;
        break;
      }
      for (const [group, payload] of payloads.entries()) {
        owners.push(node);
        blocks.push({
          key: { hash: this.#tiers.hashes.of(node), group },
          identity: this.#identity,
          predecessor: this.#tiers.hashes.predecessorOf(node),
          tokenIds: node.tokenIds,
          shape: this.#tiers.shapes[group] as BlockPayload['shape'],
          payload,
        });
      }
    }
    let storings = await this.#store.put(blocks);
    if (storings.includes('over-budget') && (await this.#evictor.makeRoom(blocks.length * this.#tiers.nodeBytes))) {
      storings = await this.#store.put(blocks);
    }
    const { counters } = this.#tiers;
    const refused = new Set<PrefixNode>();
    for (const [index, storing] of storings.entries()) {
      const node = owners[index] as PrefixNode;
      if (storing === 'stored') counters.movedBytes.hotToCold += (blocks[index] as BlockPayload).payload.length;
      else if (storing !== 'present') refused.add(node);
    }
    for (const node of new Set(owners)) {
      if (refused.has(node)) counters.savesRefused++;
      else {
        node.isCold = true;
        counters.saves++;
      }
      this.#tiers.released(node);
    }
    if (refused.size > 0) {
      this.#narrator.narrate({
        level: 'warn',
        name: 'cold-save-refused',
        facts: { blocks: refused.size, reason: storings.find((storing) => storing !== 'stored') ?? '' },
      });
    }
    return isWhole && refused.size === 0;
  }

  #onFailure(trail: AgentTrail, error: unknown): void {
    this.#tiers.counters.saveFailures++;
    this.#narrator.narrate({
      level: 'warn',
      name: 'cold-save-failed',
      facts: {
        agentId: trail.agentId,
        code: isKvasirError(error) ? error.code : 'internal',
        message: error instanceof Error ? error.message : String(error),
      },
    });
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#watchers.push(resolve));
  }
}
