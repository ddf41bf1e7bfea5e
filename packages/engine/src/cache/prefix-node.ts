import { pairsOf } from './token-pairs.ts';

/**
 * The tokens of one block, below the blocks before it. A node says what is known; where its KV lies is `hot`, `warm` and
 * `isCold`, each of which may be absent. Only a full node has children.
 */
export class PrefixNode {
  /** null for a tenant's root, which holds no tokens. */
  readonly parent: PrefixNode | null;
  readonly tenant: string;
  /** (n) 1 ≤ n ≤ blockTokens; never changes. */
  readonly tokenIds: Int32Array;
  /** The same memory, two tokens a number. */
  readonly pairs: Float64Array;
  /** Position of its first token. */
  readonly startToken: number;
  /** Ascending by tokens; no two have the same. */
  readonly children: PrefixNode[] = [];
  /** Block id per layer group while the pool holds its KV. The trie has a reference to each. */
  hot: Int32Array | null = null;
  /** Payload per layer group in host memory. */
  warm: readonly Uint8Array[] | null = null;
  /** Whether the cold tier has been seen to hold it. It may have lost it since. */
  isCold = false;
  /** Chain hash, once somebody needed it. */
  hash: string | null = null;
  /** Sequences that attend to its block now: it is not evicted meanwhile. */
  numUsers = 0;
  /** Agents whose tokens it holds. */
  readonly agents = new Set<string>();
  /** Of these, the ones that pinned it. */
  numPins = 0;
  /** KV on its way into the pool; others who need it wait for the same. */
  loading: Promise<boolean> | null = null;
  /** Whether KV of it was served before and is gone from every tier. */
  wasEvicted = false;
  /** Whether its stored block failed verification. */
  wasDamaged = false;
  /** Whether an agent has it from another model, dtype or numerics only. */
  hasOtherIdentity = false;

  constructor(parent: PrefixNode | null, tenant: string, tokenIds: Int32Array) {
    this.parent = parent;
    this.tenant = tenant;
    this.tokenIds = tokenIds;
    this.pairs = pairsOf(tokenIds);
    this.startToken = parent === null ? 0 : parent.startToken + parent.tokenIds.length;
  }

  get endToken(): number {
    return this.startToken + this.tokenIds.length;
  }

  /** Whether any tier may have its KV. */
  get hasKv(): boolean {
    return this.hot !== null || this.warm !== null || this.isCold || this.loading !== null;
  }
}
