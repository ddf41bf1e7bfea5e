import type { PrefixReuse, ReuseLimit, Sequence } from '@kvasir/domain';
import type { PrefixNode } from './prefix-node.ts';

/** What a sequence has of the trie: the path it uses, and how it came to it. */
export interface SequenceLease {
  readonly sequence: Sequence;
  readonly tenant: string;
  /** In use, from the first block on. Grows as its own blocks fill and are shared. */
  nodes: PrefixNode[];
  /** Whose leading slots were copied into a block of its own. */
  tail: PrefixNode | null;
  tailTokens: number;
  /** A block per layer group under the sequence's owner id, until its AgentBlocks has it. */
  own: Int32Array | null;
  isLoading: boolean;
  /** The sequence left while blocks were on their way. */
  isCancelled: boolean;
}

export type Tier = 'hot' | 'warm' | 'cold';

/** Sums up what a prompt reused while its prefix is brought in. */
export class ReuseRecord {
  readonly matchedTokens: number;
  readonly startedAt: number;
  readonly #fromTier = { hot: 0, warm: 0, cold: 0 };
  readonly #restoredBytes = { warm: 0, cold: 0 };

  constructor(matchedTokens: number, startedAt: number) {
    this.matchedTokens = matchedTokens;
    this.startedAt = startedAt;
  }

  add(tier: Tier, tokens: number, bytes: number): void {
    this.#fromTier[tier] += tokens;
    if (tier !== 'hot') this.#restoredBytes[tier] += bytes;
  }

  finish(cause: ReuseLimit, now: number): PrefixReuse {
    const { hot, warm, cold } = this.#fromTier;
    return {
      matchedTokens: this.matchedTokens,
      reusedTokens: hot + warm + cold,
      fromTier: { hot, warm, cold },
      restoredBytes: { ...this.#restoredBytes },
      restoreMs: now - this.startedAt,
      cause,
    };
  }
}
