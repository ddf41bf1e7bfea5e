import type { BlockPool } from '@kvasir/domain';
import { HotTier } from './hot-tier.ts';
import type { SequenceCache } from './sequence-cache.ts';

/** Nothing outlives its sequence. */
export class NoCache implements SequenceCache {
  readonly numEvictable = 0;
  readonly numLoading = 0;
  readonly #hot: HotTier;

  constructor(pools: readonly BlockPool[]) {
    this.#hot = new HotTier(pools);
  }

  get numFree(): number {
    return this.#hot.numFree;
  }

  get numFreeSoon(): number {
    return this.#hot.numFreeSoon;
  }

  evictFor(): void {}

  evictPinned(): boolean {
    return false;
  }

  prepare(): 'ready' {
    return 'ready';
  }

  drop(): boolean {
    return false;
  }

  progress(): void {}

  leave(): void {}
}
