import {
  BLOCK_MISSES,
  isBlockHash,
  KvasirError,
  type BlockKey,
  type BlockListing,
  type BlockLoad,
  type BlockMiss,
  type BlockPayload,
  type BlockRequest,
  type BlockStore,
  type BlockStoreUsage,
  type BlockStoring,
  type CancellationSignal,
  type PayloadShape,
} from '@kvasir/domain';

const ELEMENT_BYTES = { F32: 4, F16: 2, BF16: 2, U8: 1 } as const;

export interface FakeBlockStoreOptions {
  readonly keptBytes?: number;
  readonly writtenBytes?: number;
}

/** Blocks in memory. A block's size is its payload's and its tokens'. `lose` and `damage` do what a disk may. */
export class FakeBlockStore implements BlockStore {
  readonly #blocks = new Map<string, BlockPayload>();
  readonly #damaged = new Map<string, BlockMiss>();
  readonly #options: Required<FakeBlockStoreOptions>;
  readonly #misses = Object.fromEntries(BLOCK_MISSES.map((reason) => [reason, 0])) as Record<BlockMiss, number>;
  readonly #storings: Record<BlockStoring, number> = {
    stored: 0,
    present: 0,
    'over-budget': 0,
    'over-write-budget': 0,
    'disk-full': 0,
    unwritable: 0,
  };
  #hits = 0;
  #writtenBytes = 0;
  #setAside = 0;
  #isClosed = false;
  #refusal: BlockStoring | null = null;

  constructor(options: FakeBlockStoreOptions = {}) {
    this.#options = { keptBytes: options.keptBytes ?? Infinity, writtenBytes: options.writtenBytes ?? Infinity };
  }

  /** The block is gone. */
  lose(key: BlockKey): void {
    this.#blocks.delete(textOf(key));
  }

  /** The next load of the block finds it damaged. */
  damage(key: BlockKey, reason: BlockMiss = 'corrupt'): void {
    this.#damaged.set(textOf(key), reason);
  }

  /** Every further block is refused like this; null: as usual. */
  refuse(refusal: BlockStoring | null): void {
    this.#refusal = refusal;
  }

  async has(keys: readonly BlockKey[], signal?: CancellationSignal): Promise<readonly boolean[]> {
    this.#require(keys, signal);
    return keys.map((key) => this.#blocks.has(textOf(key)));
  }

  async get(requests: readonly BlockRequest[], signal?: CancellationSignal): Promise<readonly BlockLoad[]> {
    this.#require(
      requests.map(({ key }) => key),
      signal,
    );
    for (const request of requests) checkPayload(request.shape, request.tokenIds, request.into);
    return requests.map((request) => {
      const load = this.#load(request);
      if (load.isHit) this.#hits++;
      else this.#misses[load.reason]++;
      return load;
    });
  }

  async put(blocks: readonly BlockPayload[], signal?: CancellationSignal): Promise<readonly BlockStoring[]> {
    this.#require(
      blocks.map(({ key }) => key),
      signal,
    );
    for (const block of blocks) checkPayload(block.shape, block.tokenIds, block.payload);
    return blocks.map((block) => {
      const storing = this.#store(block);
      this.#storings[storing]++;
      return storing;
    });
  }

  async delete(keys: readonly BlockKey[]): Promise<readonly boolean[]> {
    this.#require(keys);
    return keys.map((key) => this.#blocks.delete(textOf(key)));
  }

  async *list(): AsyncGenerator<readonly BlockListing[]> {
    this.#require([]);
    const listing = [...this.#blocks.values()].map((block) => ({ key: block.key, bytes: bytesOf(block) }));
    if (listing.length > 0) yield listing;
  }

  async usage(): Promise<BlockStoreUsage> {
    this.#require([]);
    return {
      blocks: this.#blocks.size,
      bytes: this.#keptBytes(),
      isExact: true,
      budgetBytes: this.#options.keptBytes,
      writtenBytes: this.#writtenBytes,
      writtenBytesThisPeriod: this.#writtenBytes,
      writeBudgetBytes: this.#options.writtenBytes,
      hits: this.#hits,
      misses: { ...this.#misses },
      storings: { ...this.#storings },
      setAside: this.#setAside,
      temporaryFilesRemoved: 0,
    };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
  }

  #load(request: BlockRequest): BlockLoad {
    const text = textOf(request.key);
    const block = this.#blocks.get(text);
    if (block === undefined) return { isHit: false, reason: 'absent' };
    const isOther = JSON.stringify([block.identity, block.shape]) !== JSON.stringify([request.identity, request.shape]);
    const damage = this.#damaged.get(text) ?? (isOther ? 'other-identity' : null);
    if (damage !== null) {
      this.#damaged.delete(text);
      this.#blocks.delete(text);
      this.#setAside++;
      return { isHit: false, reason: damage };
    }
    if (String(block.tokenIds) !== String(request.tokenIds)) return { isHit: false, reason: 'other-tokens' };
    request.into.set(block.payload);
    return { isHit: true, bytesRead: bytesOf(block), predecessor: block.predecessor };
  }

  #store(block: BlockPayload): BlockStoring {
    if (this.#blocks.has(textOf(block.key))) return 'present';
    if (this.#refusal !== null) return this.#refusal;
    const bytes = bytesOf(block);
    if (this.#keptBytes() + bytes > this.#options.keptBytes) return 'over-budget';
    if (this.#writtenBytes + bytes > this.#options.writtenBytes) return 'over-write-budget';
    this.#writtenBytes += bytes;
    this.#blocks.set(textOf(block.key), {
      ...block,
      tokenIds: block.tokenIds.slice(),
      payload: Uint8Array.from(block.payload),
    });
    return 'stored';
  }

  #keptBytes(): number {
    return [...this.#blocks.values()].reduce((sum, block) => sum + bytesOf(block), 0);
  }

  #require(keys: readonly BlockKey[], signal?: CancellationSignal): void {
    if (this.#isClosed) throw new KvasirError('disposed', 'block store: expected an open one, it is closed');
    for (const { hash, group } of keys) {
      if (isBlockHash(hash) && Number.isInteger(group) && group >= 0 && group <= 0xffff) continue;
      throw new KvasirError(
        'invalid-argument',
        `block key: expected 64 hex digits and a group, found ${hash} ${group}`,
      );
    }
    if (signal?.aborted === true) throw new KvasirError('aborted', 'block store: ended by its caller');
  }
}

function checkPayload(shape: PayloadShape, tokenIds: Int32Array, payload: Uint8Array): void {
  const { layers, components, heads, blockTokens, dim } = shape;
  const bytes = layers * components * heads * blockTokens * dim * ELEMENT_BYTES[shape.dtype];
  if (payload.length === bytes && tokenIds.length >= 1 && tokenIds.length <= blockTokens) return;
  throw new KvasirError(
    'invalid-argument',
    `block: expected ${bytes} bytes and 1 to ${blockTokens} token ids, found ${payload.length} and ${tokenIds.length}`,
  );
}

function textOf({ hash, group }: BlockKey): string {
  return `${hash}.${group}`;
}

function bytesOf(block: BlockPayload): number {
  return block.payload.length + block.tokenIds.length * 4;
}
