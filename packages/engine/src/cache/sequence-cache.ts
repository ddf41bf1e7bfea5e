import type { Sequence } from '@kvasir/domain';

/**
 * What the scheduler knows of memory: blocks to be had, and sequences that begin with KV of their own. All calls come
 * from the engine's thread, between steps.
 */
export interface SequenceCache {
  /** Blocks free now, in the pool that has the fewest. */
  readonly numFree: number;
  /** These and the retired ones: free when the steps in flight have completed. */
  readonly numFreeSoon: number;
  /** Blocks that hold cached KV nobody uses. */
  readonly numEvictable: number;

  /** Evicts until `count` blocks are free now or soon, or nothing is left to evict. */
  evictFor(count: number): void;

  /** As `evictFor`, of pinned blocks: for when nothing else is left to wait for. @returns whether any was evicted */
  evictPinned(count: number): boolean;

  /**
   * Finds the longest prefix of a waiting sequence's tokens whose KV is there and brings it in. Idempotent.
   * `ready`: it may be admitted. `loading`: blocks are on their way; `onReady` is called. `short`: not enough blocks for
   * its tokens beside `numPromised` others; nothing was taken.
   */
  prepare(sequence: Sequence, numPromised: number): 'ready' | 'loading' | 'short';

  /** Gives back what a waiting sequence was prepared with. @returns whether there was something */
  drop(sequence: Sequence): boolean;

  /** Some of its tokens have been computed: full blocks may be shared from now on. */
  progress(sequence: Sequence): void;

  /** It ends or is preempted and still holds its blocks: what they hold is kept. Any state. */
  leave(sequence: Sequence): void;

  /** Sequences whose prefix is being loaded. */
  readonly numLoading: number;
}
