/** How much of a known prefix is restored: `auto` takes what is faster, `always` all of it, `never` only what is hot. */
export type RestorePolicy = 'auto' | 'always' | 'never';

export interface RestorableBlock {
  readonly tier: 'hot' | 'warm' | 'cold';
  readonly tokens: number;
  readonly bytes: number;
}

/** A new figure weighs this much against what was known. */
const SMOOTHING = 0.3;
/** Until something was measured: figures of an ordinary machine. */
const UNMEASURED_BYTES_PER_MS = { warm: 4e6, cold: 0.8e6 } as const;

/**
 * Chooses between loading KV and computing it, by the speeds seen on this machine. The head is loaded and the tail
 * computed: a token can be computed only after all before it are there.
 */
export class RestorePlanner {
  readonly #policy: RestorePolicy;
  readonly #attentionParityTokens: number;
  readonly #bytesPerMs: { warm: number; cold: number } = { ...UNMEASURED_BYTES_PER_MS };
  /** A token at position 0; deeper ones cost more by attention. null: never seen. */
  #msPerToken: number | null = null;

  constructor(policy: RestorePolicy, attentionParityTokens: number) {
    this.#policy = policy;
    this.#attentionParityTokens = attentionParityTokens;
  }

  get bytesPerMs(): { readonly warm: number; readonly cold: number } {
    return this.#bytesPerMs;
  }

  get msPerToken(): number | null {
    return this.#msPerToken;
  }

  sawLoad(tier: 'warm' | 'cold', bytes: number, elapsedMs: number): void {
    if (bytes <= 0 || elapsedMs <= 0) return;
    this.#bytesPerMs[tier] += SMOOTHING * (bytes / elapsedMs - this.#bytesPerMs[tier]);
  }

  /** A step that computed nothing but `count` tokens of one prompt from `position` on. */
  sawPrefill(position: number, count: number, elapsedMs: number): void {
    const weight = this.#weight(position, count);
    if (weight <= 0 || elapsedMs <= 0) return;
    const found = elapsedMs / weight;
    this.#msPerToken = this.#msPerToken === null ? found : this.#msPerToken + SMOOTHING * (found - this.#msPerToken);
  }

  /**
   * @param blocks the known prefix, block by block
   * @param numTokens tokens that must be there before the first output
   * @returns how many leading blocks to restore
   */
  plan(blocks: readonly RestorableBlock[], numTokens: number): number {
    if (this.#policy === 'always') return blocks.length;
    const firstToLoad = blocks.findIndex(({ tier }) => tier !== 'hot');
    if (firstToLoad < 0) return blocks.length;
    if (this.#policy === 'never') return firstToLoad;
    if (this.#msPerToken === null) return blocks.length;
    let position = 0;
    let loadMs = 0;
    let best = { count: 0, ms: Number.POSITIVE_INFINITY };
    for (let count = 0; count <= blocks.length; count++) {
      if (count >= firstToLoad) {
        const ms = loadMs + this.#msPerToken * this.#weight(position, numTokens - position);
        if (ms <= best.ms) best = { count, ms };
      }
      const next = blocks[count];
      if (next === undefined) break;
      position += next.tokens;
      if (next.tier !== 'hot') loadMs += next.bytes / this.#bytesPerMs[next.tier];
    }
    return best.count;
  }

  /** What `count` tokens from `position` on cost, in tokens at position 0. */
  #weight(position: number, count: number): number {
    return count * (1 + (position + count / 2) / this.#attentionParityTokens);
  }
}
