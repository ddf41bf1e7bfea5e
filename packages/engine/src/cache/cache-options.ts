import type { AgentArchive, BlockStore, CacheIdentity } from '@kvasir/domain';
import { KvasirError } from '@kvasir/domain';
import type { Sha256Hex } from './block-hashes.ts';
import type { RestorePolicy } from './restore-planner.ts';

/** Makes an engine keep the KV of what it computed. */
export interface CacheOptions {
  /** What blocks of this model, dtype and numerics are marked with on lower tiers and in their hashes. */
  readonly identity: CacheIdentity;
  readonly sha256: Sha256Hex;
  /** Host memory for KV that left the pool, in bytes; default 0: none. */
  readonly warmBytes?: number;
  /** Whether known KV is loaded or computed again; default `auto`. */
  readonly restore?: RestorePolicy;
  /** Leading blocks of every agent that are evicted only when nothing else can be; default 0. */
  readonly minBlocksPerAgent?: number;
  /** Files, and who refers to them. Both or neither. */
  readonly cold?: { readonly blocks: BlockStore; readonly agents: AgentArchive };
}

export interface CacheSettings {
  readonly warmBytes: number;
  readonly restore: RestorePolicy;
  readonly minBlocksPerAgent: number;
}

/** @throws KvasirError `invalid-argument` naming the option */
export function resolveCacheSettings(options: CacheOptions): CacheSettings {
  const count = (name: 'warmBytes' | 'minBlocksPerAgent'): number => {
    const value = options[name] ?? 0;
    if (Number.isSafeInteger(value) && value >= 0) return value;
    throw new KvasirError('invalid-argument', `${name}: expected an integer from 0 on, found ${value}`);
  };
  return {
    warmBytes: count('warmBytes'),
    restore: options.restore ?? 'auto',
    minBlocksPerAgent: count('minBlocksPerAgent'),
  };
}
