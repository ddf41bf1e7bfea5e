import type { BlockPool } from '../blocks/block-pool.ts';
import { BlockTable } from '../blocks/block-table.ts';
import type { KvBlock } from '../blocks/kv-block.ts';
import { KvasirError } from '../errors/kvasir-error.ts';
import type { BlockCopy } from '../ports/model-runner.port.ts';

const FIRST_TOKEN_CAPACITY = 64;

/**
 * The token ids and blocks that belong to one agent: what survives a turn. Tokens stored and KV length are two numbers:
 * the last sampled token has no KV until it has been an input. Every reference it holds is under its own owner id.
 */
export class AgentBlocks {
  readonly owner: number;
  readonly blockTokens: number;
  readonly #pools: readonly BlockPool[];
  readonly #tables: readonly BlockTable[];
  #tokenIds: Int32Array;
  #numTokens = 0;
  #kvLength = 0;

  /**
   * @param owner the pools' owner id of these blocks; no two AgentBlocks alive may share one
   * @param pools one a layer group
   */
  constructor(owner: number, pools: readonly BlockPool[], blockTokens: number) {
    this.owner = owner;
    this.blockTokens = blockTokens;
    this.#pools = pools;
    this.#tables = pools.map(() => new BlockTable(blockTokens));
    this.#tokenIds = new Int32Array(FIRST_TOKEN_CAPACITY);
  }

  get numTokens(): number {
    return this.#numTokens;
  }

  /** Leading tokens whose KV is in the blocks. */
  get kvLength(): number {
    return this.#kvLength;
  }

  /** Blocks held, per layer group. */
  get numBlocks(): number {
    return (this.#tables[0] as BlockTable).length;
  }

  /** (numTokens) valid until a token is appended; not to be written. */
  get tokenIds(): Int32Array {
    return this.#tokenIds.subarray(0, this.#numTokens);
  }

  tokenAt(position: number): number {
    return this.#tokenIds[position] as number;
  }

  table(group: number): BlockTable {
    return this.#tables[group] as BlockTable;
  }

  append(tokenIds: Int32Array): void {
    this.#makeRoom(tokenIds.length);
    this.#tokenIds.set(tokenIds, this.#numTokens);
    this.#numTokens += tokenIds.length;
  }

  appendToken(tokenId: number): void {
    this.#makeRoom(1);
    this.#tokenIds[this.#numTokens++] = tokenId;
  }

  /** Blocks per layer group still missing before `numTokens` tokens have slots. */
  blocksMissing(numTokens: number): number {
    return Math.max(0, Math.ceil(numTokens / this.blockTokens) - this.numBlocks);
  }

  /** Makes slots for `numTokens` tokens in every layer group, or changes nothing. @returns whether there was room */
  reserve(numTokens: number): boolean {
    const missing = this.blocksMissing(numTokens);
    if (missing === 0) return true;
    for (const pool of this.#pools) if (pool.numFree < missing) return false;
    for (const [group, pool] of this.#pools.entries()) {
      this.table(group).append(pool.allocate(missing, this.owner) as Int32Array);
    }
    return true;
  }

  /**
   * Begins with KV that is there already: shared full blocks, each given one more reference under this owner, then
   * perhaps one of its own. Holds none before.
   * @param shared (numFull) per layer group
   * @param own a block per layer group that this owner allocated, whose leading slots are filled
   * @param kvLength tokens whose KV these blocks hold, at most `numTokens`
   */
  adopt(shared: readonly Int32Array[], own: Int32Array | null, kvLength: number): void {
    if (this.numBlocks > 0 || kvLength > this.#numTokens) {
      throw new KvasirError(
        'invariant-broken',
        `KV to adopt: expected no blocks and at most ${this.#numTokens} tokens, found ${this.numBlocks} and ${kvLength}`,
      );
    }
    for (const [group, pool] of this.#pools.entries()) {
      const blockIds = shared[group] as Int32Array;
      for (const blockId of blockIds) pool.acquire(blockId, this.owner);
      this.table(group).append(blockIds);
      if (own !== null) this.table(group).append(own.subarray(group, group + 1));
    }
    this.recordKv(kvLength);
  }

  /**
   * Writes the slots that `count` tokens from `position` on are stored at; -1, which writes nothing, where KV is already
   * there: it never changes, the block may be shared.
   * @throws KvasirError `invariant-broken` where no block is reserved
   */
  fillWriteSlots(group: number, target: Int32Array, offset: number, position: number, count: number): void {
    if (position < 0 || position + count > this.numBlocks * this.blockTokens) {
      throw new KvasirError(
        'invariant-broken',
        `slots to write: expected tokens 0 to ${this.numBlocks * this.blockTokens - 1}, found ${position} to ${position + count - 1}`,
      );
    }
    this.table(group).fillSlots(target, offset, position, count);
    const numThere = Math.min(count, this.#kvLength - position);
    if (numThere > 0) target.fill(-1, offset, offset + numThere);
  }

  /** The KV of the first `length` tokens is there. @throws KvasirError `invariant-broken` when it shrinks or has no slot */
  recordKv(length: number): void {
    if (length < this.#kvLength || length > this.numBlocks * this.blockTokens) {
      throw new KvasirError(
        'invariant-broken',
        `KV length: expected ${this.#kvLength} to ${this.numBlocks * this.blockTokens}, found ${length}`,
      );
    }
    this.#kvLength = length;
  }

  /**
   * Another agent's memory of the first `numTokens` tokens: full blocks are shared, the leading slots of a last partial
   * one are to be copied into a fresh block before the fork's first step.
   * @param numTokens 0 ≤ numTokens ≤ kvLength
   * @returns the fork and the copies per layer group (none when the cut is between blocks), or null when a fresh block
   *   is short (nothing is taken)
   */
  fork(owner: number, numTokens: number): { readonly blocks: AgentBlocks; readonly copies: BlockCopy[][] } | null {
    if (!Number.isInteger(numTokens) || numTokens < 0 || numTokens > this.#kvLength) {
      throw new KvasirError('invalid-argument', `tokens to fork: expected 0 to ${this.#kvLength}, found ${numTokens}`);
    }
    const numFull = Math.floor(numTokens / this.blockTokens);
    const numLeading = numTokens - numFull * this.blockTokens;
    const isShort = this.#pools.some((pool) => pool.numFree < 1);
    if (numLeading > 0 && isShort) return null;
    const fork = new AgentBlocks(owner, this.#pools, this.blockTokens);
    fork.append(this.#tokenIds.subarray(0, numTokens));
    for (const [group, pool] of this.#pools.entries()) {
      const shared = this.table(group).blockIds.slice(0, numFull);
      for (const blockId of shared) pool.acquire(blockId, owner);
      fork.table(group).append(shared);
    }
    fork.reserve(numTokens);
    fork.recordKv(numTokens);
    const copies = this.#pools.map((_, group): BlockCopy[] => {
      if (numLeading === 0) return [];
      const source = this.table(group).blockIds[numFull] as number;
      return [{ source, destination: fork.table(group).blockIds[numFull] as number, numTokens: numLeading }];
    });
    return { blocks: fork, copies };
  }

  block(group: number, blockIndex: number): KvBlock {
    const blockId = this.table(group).blockIds[blockIndex];
    const pool = this.#pools[group];
    if (blockId === undefined || pool === undefined) {
      throw new KvasirError('invalid-argument', `block index: expected < ${this.numBlocks}, found ${blockIndex}`);
    }
    const numTokens = Math.min(this.blockTokens, Math.max(0, this.#kvLength - blockIndex * this.blockTokens));
    const references = pool.references(blockId);
    return { blockId, blockIndex, numTokens, isFull: numTokens === this.blockTokens, references };
  }

  /** Gives every block back; the tokens stay, their KV is gone. Cost: O(blocks). */
  releaseBlocks(): void {
    for (const [group, pool] of this.#pools.entries()) {
      const table = this.table(group);
      for (const blockId of table.blockIds) pool.release(blockId, this.owner);
      table.clear();
    }
    this.#kvLength = 0;
  }

  #makeRoom(count: number): void {
    const needed = this.#numTokens + count;
    if (needed <= this.#tokenIds.length) return;
    const larger = new Int32Array(Math.max(needed, this.#tokenIds.length * 2));
    larger.set(this.#tokenIds.subarray(0, this.#numTokens));
    this.#tokenIds = larger;
  }
}
