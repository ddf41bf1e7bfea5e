import type { BlockKey, CacheIdentity, PayloadShape } from '../ports/block-store.port.ts';
import type { AgentTiers } from '../ports/agent-directory.port.ts';
import type { CancellationSignal } from '../ports/cancellation-signal.ts';
import type { AgentManifest } from './agent-manifest.ts';

/**
 * The KV behind agents, as the agents' keeper sees it: what `AgentService` asks of the cache. All state belongs to the
 * engine's thread. Nothing here decides what an agent's tokens are.
 */
export interface AgentMemory {
  /** What blocks of this engine's model, dtype and numerics are marked with. */
  readonly identity: CacheIdentity;

  /** Makes what a manifest says is stored findable. Idempotent; O(blocks). */
  adopt(manifest: AgentManifest): void;

  /**
   * The agent's tokens are now these (a finished turn, a rewind, a fork, an import): what KV there is of them is saved
   * behind and noted in the archive; what the agent had beyond is abandoned and evicted first.
   */
  follow(agent: { readonly agentId: string; readonly tenant: string }, tokenIds: Int32Array): void;

  /** Leading tokens of the agent that are not to be evicted. */
  pin(agentId: string, pinnedTokens: number): void;

  /**
   * Nothing of the agent is saved any more from now on; resolves when what was on its way to the cold tier has arrived or
   * was dropped, so that a deletion of the archive's misses nothing.
   */
  quiesce(agentId: string): Promise<void>;

  /** Drops an agent, and from hot and warm tiers whatever of it no other agent refers to. */
  forget(agentId: string): void;

  tiersOf(agentId: string): AgentTiers;

  /**
   * The blocks `readBlocks` would give now, without their payloads: an export writes their sizes before their bytes.
   * Nothing is read or moved; O(blocks).
   */
  listBlocks(
    agent: { readonly agentId: string; readonly tenant: string },
    tokenIds: Int32Array,
  ): readonly MemoryBlockListing[];

  /** The agent's KV, block by block in order, from whichever tier has it; ends at the first block nobody has. */
  readBlocks(
    agent: { readonly agentId: string; readonly tenant: string },
    tokenIds: Int32Array,
    signal?: CancellationSignal,
  ): AsyncIterable<MemoryBlock>;

  /**
   * Puts an imported block behind those already there. Its key is the exporter's: the hash chains the tenant and the
   * numerics, so the memory works out its own from the tokens. @returns whether it was taken
   */
  writeBlock(agent: { readonly agentId: string; readonly tenant: string }, block: MemoryBlock): Promise<boolean>;

  /** Waits until everything that `follow` queued is saved. Rejects with `aborted` when the signal comes first. */
  flush(signal?: CancellationSignal): Promise<void>;
}

export interface MemoryBlockListing {
  readonly key: BlockKey;
  readonly startToken: number;
  readonly numTokens: number;
  readonly shape: PayloadShape;
}

/** One block's KV in the canonical layout. */
export interface MemoryBlock {
  readonly key: BlockKey;
  readonly startToken: number;
  /** (n) tokens of this block. */
  readonly tokenIds: Int32Array;
  readonly shape: PayloadShape;
  /** A whole payload of `shape`; slots from n on are unspecified. */
  readonly payload: Uint8Array;
}
