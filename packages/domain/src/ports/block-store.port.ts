import type { CancellationSignal } from './cancellation-signal.ts';

/**
 * KV block payloads by content: the cold tier, or a store shared between machines. A store is a cache: it may lose any
 * block at any time and says so as a miss. What it must never do is give bytes other than those that were put under the
 * same key, identity and token ids.
 *
 * Methods are batched; results are in the order of the arguments. No method keeps the calling thread busy for more than
 * about a millisecond, whatever the size of the payloads.
 *
 * Memory: every buffer stays the caller's. A payload is read (`put`) or written (`get`) from other threads until the
 * promise settles, never afterwards, also when it rejects. Memory over a SharedArrayBuffer crosses without being copied;
 * other memory is copied piece by piece.
 */
export interface BlockStore {
  /**
   * Whether something is stored under each key. Says nothing of its integrity: only `get` verifies.
   * @throws KvasirError `aborted`, `disposed`, `invalid-argument` (a key that is none)
   */
  has(keys: readonly BlockKey[], signal?: CancellationSignal): Promise<readonly boolean[]>;

  /**
   * Loads payloads into the callers' buffers. Each hit was verified: format version, key, identity, token ids, size and a
   * checksum over every byte. After a miss the contents of `into` are unspecified. Damaged and foreign entries are set
   * aside, counted in `usage` and never served; they are values, not exceptions.
   * @throws KvasirError `aborted`, `disposed`, `invalid-argument` (a key, shape or size that is none)
   */
  get(requests: readonly BlockRequest[], signal?: CancellationSignal): Promise<readonly BlockLoad[]>;

  /**
   * Stores blocks. What is already stored is not written again. `stored` means flushed: it outlives a power cut. A block
   * that does not fit a budget, or that the medium refuses, is a value, and the others of the batch are unaffected.
   * Where references name their blocks before the blocks are put, they are flushed before the blocks are.
   * @throws KvasirError `aborted` (blocks of the batch not reached yet are not stored), `disposed`, `invalid-argument`
   */
  put(blocks: readonly BlockPayload[], signal?: CancellationSignal): Promise<readonly BlockStoring[]>;

  /**
   * Removes blocks, copies set aside included; keys that are absent are no mistake. Flushed when it resolves.
   * @returns for each key whether something was removed
   * @throws KvasirError `disposed`, `invalid-argument`, `disk-unwritable`
   */
  delete(keys: readonly BlockKey[]): Promise<readonly boolean[]>;

  /** Every stored key with its size, in pages and in no order. Blocks put or deleted meanwhile may or may not be seen. */
  list(): AsyncIterable<readonly BlockListing[]>;

  usage(): Promise<BlockStoreUsage>;

  /** Waits for what runs, then refuses with `disposed`. Idempotent. */
  close(): Promise<void>;
}

/** `hash`: 64 lower-case hex digits, the 256-bit chain hash. `group`: layer group, 0 to 65,535. */
export interface BlockKey {
  readonly hash: string;
  readonly group: number;
}

/** What a stored block's bits depend on beside its tokens; opaque and compared as text. The tenant is in the hash. */
export interface CacheIdentity {
  readonly modelFingerprint: string;
  readonly kvDType: string;
  readonly layoutVersion: string;
  readonly numericsId: string;
}

/**
 * Shape of a payload in the canonical layout: (layers, components, heads, blockTokens, dim) elements of `dtype`, K before
 * V. Of a quantized pool `dim` counts bytes (`U8`): codes, scales and minima of one head of one token. A group whose layers differ is `U8` with one layer, one component, one head and `blockTokens` × `dim` bytes; its
 * partial blocks are then whole payloads (`isSliceable` false).
 */
export interface PayloadShape {
  readonly dtype: 'F32' | 'F16' | 'BF16' | 'U8';
  readonly layers: number;
  readonly components: number;
  readonly heads: number;
  readonly blockTokens: number;
  readonly dim: number;
  /** Whether slot t of each head lies at t × dim: a store may then keep the leading slots of a partial block only. */
  readonly isSliceable: boolean;
}

export interface BlockRequest {
  readonly key: BlockKey;
  readonly identity: CacheIdentity;
  /** (n) what the block must hold, 1 ≤ n ≤ blockTokens. */
  readonly tokenIds: Int32Array;
  readonly shape: PayloadShape;
  /** A whole payload of `shape`; slots from n on are left as they are or filled with anything. */
  readonly into: Uint8Array;
}

export const BLOCK_MISSES = [
  /** Nothing is stored under the key. */
  'absent',
  /** Shorter than it says it is. Set aside. */
  'truncated',
  /** A checksum, a size or a field is wrong. Set aside. */
  'corrupt',
  /** Not written by this store in a version it knows, or under another key. Set aside. */
  'foreign',
  /** Another model's, dtype's, layout's or numerics'. Set aside. */
  'other-identity',
  /** Whole, but holds other tokens than asked for. Left where it is. */
  'other-tokens',
  /** The medium failed or refused. Left where it is. */
  'unreadable',
] as const;

export type BlockMiss = (typeof BLOCK_MISSES)[number];

export type BlockLoad =
  | {
      readonly isHit: true /** What the tier moved. */;
      readonly bytesRead: number;
      readonly predecessor: string | null;
    }
  | { readonly isHit: false; readonly reason: BlockMiss };

export interface BlockPayload {
  readonly key: BlockKey;
  readonly identity: CacheIdentity;
  /** Hash of the block before it in the chain, null for the first. */
  readonly predecessor: string | null;
  /** (n) 1 ≤ n ≤ blockTokens; fewer than blockTokens is a partial last block. */
  readonly tokenIds: Int32Array;
  readonly shape: PayloadShape;
  /** A whole payload of `shape`. */
  readonly payload: Uint8Array;
}

/**
 * `stored`: written and flushed. `present`: was there already. The rest was not stored: `over-budget` (bytes kept),
 * `over-write-budget` (bytes written in this period), `disk-full`, `unwritable` (read-only, permissions, I/O error).
 */
export type BlockStoring = 'stored' | 'present' | 'over-budget' | 'over-write-budget' | 'disk-full' | 'unwritable';

export interface BlockListing {
  readonly key: BlockKey;
  readonly bytes: number;
}

export interface BlockStoreUsage {
  readonly blocks: number;
  readonly bytes: number;
  /** False while what an unclean stop left is still being counted: the true figures may then be higher. */
  readonly isExact: boolean;
  readonly budgetBytes: number;
  /** Ever, and in the running period of the write budget. */
  readonly writtenBytes: number;
  readonly writtenBytesThisPeriod: number;
  readonly writeBudgetBytes: number;
  readonly hits: number;
  readonly misses: Readonly<Record<BlockMiss, number>>;
  readonly storings: Readonly<Record<BlockStoring, number>>;
  /** Entries set aside since opening. */
  readonly setAside: number;
  /** Unfinished writes of an earlier process that were removed. */
  readonly temporaryFilesRemoved: number;
}
