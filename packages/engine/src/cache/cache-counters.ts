import type { BlockMiss } from '@kvasir/domain';

/** What the cache counts over its life. */
export class CacheCounters {
  lookups = 0;
  promptTokens = 0;
  matchedTokens = 0;
  readonly reusedTokens = { hot: 0, warm: 0, cold: 0 };
  /** Copies of the leading slots of a block. */
  slotCopies = 0;
  /** Blocks that left the pool, and of these the ones whose KV no other tier has. */
  evictions = 0;
  losses = 0;
  /** Bytes moved down and up. */
  readonly movedBytes = { hotToWarm: 0, hotToCold: 0, warmToHot: 0, coldToHot: 0 };
  saves = 0;
  /** Blocks the cold tier did not take, for whatever reason. */
  savesRefused = 0;
  saveFailures = 0;
  loads = 0;
  readonly loadMisses = new Map<BlockMiss, number>();
  loadFailures = 0;
}
