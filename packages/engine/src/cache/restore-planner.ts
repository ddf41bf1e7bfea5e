/** How much of a known prefix is restored: `auto` takes what is faster, `always` all of it, `never` only what is hot. */
export type RestorePolicy = 'auto' | 'always' | 'never';

export interface RestorableBlock {
  readonly tier: 'hot' | 'warm' | 'cold';
  readonly tokens: number;
  readonly bytes: number;
}

/** A new figure weighs this much against what was known, if it comes from at least so many bytes. */
const SMOOTHING = 0.3;
const TELLING_BYTES = 4 * 1024 * 1024;
/** Fewer tokens cost what a step costs at least: they say nothing of a long prompt. */
const TELLING_TOKENS = 64;
/** Until something was measured: figures of an ordinary machine. */
const UNMEASURED_BYTES_PER_MS = { warm: 4e6, cold: 0.8e6 } as const;
/** While nothing is loaded because loading was slow, a block is read this often to see whether it still is. */
const PROBE_INTERVAL_MS = 10_000;

/**
 * Chooses between loading KV and computing it, by the speeds seen on this machine. The head is loaded and the tail
 * computed: a token can be computed only after all before it are there.
 */
export class RestorePlanner {
  readonly #policy: RestorePolicy;
  readonly #attentionParityTokens: number;
  /** Times, not rates, are smoothed: one slow load weighs as much as the time it took. */
  readonly #msPerByte = { warm: 1 / UNMEASURED_BYTES_PER_MS.warm, cold: 1 / UNMEASURED_BYTES_PER_MS.cold };
  /** A token at position 0; deeper ones cost more by attention. null: never seen. */
  #msPerToken: number | null = null;
  #probedAt = Number.NEGATIVE_INFINITY;

  constructor(policy: RestorePolicy, attentionParityTokens: number) {
    this.#policy = policy;
    this.#attentionParityTokens = attentionParityTokens;
  }

  get bytesPerMs(): { readonly warm: number; readonly cold: number } {
    return { warm: 1 / this.#msPerByte.warm, cold: 1 / this.#msPerByte.cold };
  }

  get msPerToken(): number | null {
    return this.#msPerToken;
  }

  sawLoad(tier: 'warm' | 'cold', bytes: number, elapsedMs: number): void {
    if (bytes <= 0 || elapsedMs <= 0) return;
    const weight = SMOOTHING * Math.min(1, bytes / TELLING_BYTES);
    this.#msPerByte[tier] += weight * (elapsedMs / bytes - this.#msPerByte[tier]);
  }

  /** A step that computed nothing but `count` tokens of one prompt from `position` on. */
  sawPrefill(position: number, count: number, elapsedMs: number): void {
    const weight = this.#weight(position, count);
    if (count < TELLING_TOKENS || elapsedMs <= 0) return;
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
      if (next.tier !== 'hot') loadMs += next.bytes * this.#msPerByte[next.tier];
    }
    return best.count;
  }

  /** Whether a block that is not restored should be read all the same, to learn of a disk that has become faster. */
  mayProbe(now: number): boolean {
    if (this.#policy !== 'auto' || now - this.#probedAt < PROBE_INTERVAL_MS) return false;
    this.#probedAt = now;
    return true;
  }

  /** What `count` tokens from `position` on cost, in tokens at position 0. */
  #weight(position: number, count: number): number {
    return count * (1 + (position + count / 2) / this.#attentionParityTokens);
  }
}
