import {
  type AgentArchive,
  type AgentManifest,
  type AgentMemory,
  type AgentTiers,
  type BlockReference,
  type BlockStore,
  type CacheIdentity,
  type CancellationSignal,
  isKvasirError,
  KvasirError,
  type MemoryBlock,
  type MemoryBlockListing,
  type PayloadShape,
} from '@kvasir/domain';

export interface FakeAgentMemoryOptions {
  readonly identity?: CacheIdentity;
  /** Blocks that are followed are noted here and put there, behind; without them they stay in memory. */
  readonly archive?: AgentArchive;
  readonly blocks?: BlockStore;
}

type Owner = { readonly agentId: string; readonly tenant: string };

const SHAPE: PayloadShape = {
  dtype: 'F16',
  layers: 2,
  components: 2,
  heads: 1,
  blockTokens: 16,
  dim: 4,
  isSliceable: true,
};
const PAYLOAD_BYTES = 2 * 2 * 1 * 16 * 4 * 2;
const IDENTITY: CacheIdentity = {
  modelFingerprint: 'fake-model',
  kvDType: 'f16',
  layoutVersion: '1',
  numericsId: 'fake',
};

/**
 * KV that follows from the tokens alone: block payloads are made up, so whether the right block comes back can be told from
 * its bytes. Saves behind like a real one, when it is given somewhere to.
 */
export class FakeAgentMemory implements AgentMemory {
  readonly identity: CacheIdentity;
  readonly #options: FakeAgentMemoryOptions;
  readonly #agents = new Map<string, Owner & { tokenIds: Int32Array }>();
  readonly #quiet = new Set<string>();
  readonly #lost = new Set<string>();
  readonly #saving = new Map<string, Promise<void>>();
  readonly adopted = new Set<string>();
  readonly pinned = new Map<string, number>();
  /** Hashes of blocks that were taken from imports. */
  readonly written = new Set<string>();

  constructor(options: FakeAgentMemoryOptions = {}) {
    this.identity = options.identity ?? IDENTITY;
    this.#options = options;
  }

  /** The KV of the block that begins there is gone, and of what follows it. */
  lose(agentId: string, startToken: number): void {
    this.#lost.add(`${agentId}.${startToken}`);
  }

  adopt(manifest: AgentManifest): void {
    this.adopted.add(manifest.agentId);
    const { agentId, tenant, tokenIds } = manifest;
    if (!this.#agents.has(agentId)) this.#agents.set(agentId, { agentId, tenant, tokenIds: tokenIds.slice() });
  }

  follow({ agentId, tenant }: Owner, tokenIds: Int32Array): void {
    this.#quiet.delete(agentId);
    this.#agents.set(agentId, { agentId, tenant, tokenIds: tokenIds.slice() });
    const before = this.#saving.get(agentId) ?? Promise.resolve();
    this.#saving.set(
      agentId,
      before.then(() => this.#save({ agentId, tenant }, tokenIds)),
    );
  }

  pin(agentId: string, pinnedTokens: number): void {
    this.pinned.set(agentId, pinnedTokens);
  }

  async quiesce(agentId: string): Promise<void> {
    this.#quiet.add(agentId);
    await this.#saving.get(agentId);
  }

  forget(agentId: string): void {
    this.#agents.delete(agentId);
    this.#saving.delete(agentId);
    this.adopted.delete(agentId);
    this.pinned.delete(agentId);
  }

  tiersOf(agentId: string): AgentTiers {
    const agent = this.#agents.get(agentId);
    const listings = agent === undefined ? [] : this.listBlocks(agent, agent.tokenIds);
    const tokens = listings.reduce((sum, { numTokens }) => sum + numTokens, 0);
    const none = { blocks: 0, tokens: 0, bytes: 0 };
    return { hot: { blocks: listings.length, tokens, bytes: listings.length * PAYLOAD_BYTES }, warm: none, cold: none };
  }

  listBlocks(agent: Owner, tokenIds: Int32Array): readonly MemoryBlockListing[] {
    const listings: MemoryBlockListing[] = [];
    for (const block of this.#blocksOf(agent, tokenIds)) {
      const { key, startToken, shape } = block;
      listings.push({ key, startToken, numTokens: block.tokenIds.length, shape });
    }
    return listings;
  }

  async *readBlocks(agent: Owner, tokenIds: Int32Array, signal?: CancellationSignal): AsyncGenerator<MemoryBlock> {
    for (const block of this.#blocksOf(agent, tokenIds)) {
      if (signal?.aborted === true) throw new KvasirError('aborted', 'agent memory: ended by its caller');
      await Promise.resolve();
      yield block;
    }
  }

  async writeBlock({ tenant }: Owner, block: MemoryBlock): Promise<boolean> {
    if (JSON.stringify(block.shape) !== JSON.stringify(SHAPE)) return false;
    this.written.add(this.#hash(tenant, block.tokenIds, block.startToken));
    return true;
  }

  async flush(signal?: CancellationSignal): Promise<void> {
    if (signal?.aborted === true) throw new KvasirError('aborted', 'agent memory: ended by its caller');
    await Promise.all(this.#saving.values());
  }

  *#blocksOf({ agentId, tenant }: Owner, tokenIds: Int32Array): Generator<MemoryBlock> {
    for (let startToken = 0; startToken < tokenIds.length; startToken += SHAPE.blockTokens) {
      if (this.#lost.has(`${agentId}.${startToken}`)) return;
      const end = Math.min(startToken + SHAPE.blockTokens, tokenIds.length);
      const hash = this.#hash(tenant, tokenIds.subarray(0, end), 0);
      // Unspecified slots are made to look like somebody's.
      const payload = new Uint8Array(PAYLOAD_BYTES).map(
        (_, index) => (Number.parseInt(hash.slice(0, 6), 16) + index) & 0xff,
      );
      yield { key: { hash, group: 0 }, startToken, tokenIds: tokenIds.slice(startToken, end), shape: SHAPE, payload };
    }
  }

  async #save(agent: Owner, tokenIds: Int32Array): Promise<void> {
    const { archive, blocks } = this.#options;
    if (archive === undefined || blocks === undefined || this.#quiet.has(agent.agentId)) return;
    const found = [...this.#blocksOf(agent, tokenIds)];
    const references: BlockReference[] = found.map(({ key, startToken, tokenIds: ids }) => ({
      startToken,
      numTokens: ids.length,
      hash: key.hash,
    }));
    try {
      await archive.note(agent.agentId, { kind: 'blocks', group: 0, keep: 0, blocks: references });
    } catch (error) {
      // The agent was rewound while the note was on its way: what it has now is followed next.
      if (isKvasirError(error) && error.code === 'invalid-argument') return;
      throw error;
    }
    await blocks.put(
      found.map(({ key, tokenIds: ids, shape, payload }, index) => ({
        key,
        identity: this.identity,
        predecessor: found[index - 1]?.key.hash ?? null,
        tokenIds: ids,
        shape,
        payload,
      })),
    );
  }

  /** 64 hex digits of the tenant, the numerics and the tokens. */
  #hash(tenant: string, tokenIds: Int32Array, seed: number): string {
    const text = `${tenant}/${this.identity.numericsId}/${seed}/${tokenIds.join()}`;
    const lanes = Array.from({ length: 8 }, (_, lane) => {
      let state = 0x811c9dc5 ^ (lane * 0x01000193);
      for (let index = 0; index < text.length; index += 1) {
        state = Math.imul(state ^ text.charCodeAt(index), 0x01000193 + 2 * lane);
      }
      return (state >>> 0).toString(16).padStart(8, '0');
    });
    return lanes.join('');
  }
}
