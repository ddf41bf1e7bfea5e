import { KvasirError } from '../errors/kvasir-error.ts';
import { ReferenceTable } from './reference-table.ts';

/** One record a block, in one array, so that a block costs one cache line: references, then first holder. */
const RECORD = 2;
const RETIRED = -1;
const NOBODY = -1;
const MAX_OWNER = 0x7fffffff;

export interface BlockPoolStats {
  readonly total: number;
  readonly free: number;
  /** Blocks with at least one reference. */
  readonly used: number;
  /** Released while a step was in flight; free once it completes. */
  readonly retired: number;
  /** Most blocks ever used or retired at once. */
  readonly peak: number;
}

/**
 * Owns the block ids 0 … numBlocks - 1 of one layer group: which are free, who holds references to the others. It knows
 * nothing of devices; the ids are all that a runner and the pool share.
 *
 * A block is used while it has a reference. Every reference belongs to an owner (an agent or a sequence, a number the
 * caller chooses), so that giving back what one does not hold is found at once. While a step is in flight, a block whose
 * last reference goes is *retired*: the device may still write to it, and it becomes free when that step completes.
 *
 * Cost: O(1) a block for every method, without an object a block. Running short is a value; misuse throws.
 */
export class BlockPool {
  readonly numBlocks: number;
  /** (2N) references (0 free, -1 retired) and the first holder (-1: its references are all in `shared`). */
  readonly #records: Int32Array;
  /** (N) stack of free ids; the first `#numFree` count. */
  readonly #freeIds: Int32Array;
  /** (N) ring of retired ids, oldest first. */
  readonly #retiredIds: Int32Array;
  /** Every reference but a block's first. */
  readonly #shared = new ReferenceTable();
  /** Steps in flight, oldest first, and how many blocks each will set free. */
  readonly #stepIds: number[] = [];
  readonly #stepRetired: number[] = [];
  #numFree: number;
  #numRetired = 0;
  #retiredHead = 0;
  #peak = 0;

  /** @param numBlocks 1 ≤ numBlocks ≤ 2^30 */
  constructor(numBlocks: number) {
    if (!Number.isSafeInteger(numBlocks) || numBlocks < 1 || numBlocks > 2 ** 30) {
      throw new KvasirError('invalid-argument', `blocks in a pool: expected 1 to 2^30, found ${numBlocks}`);
    }
    this.numBlocks = numBlocks;
    this.#records = new Int32Array(numBlocks * RECORD);
    this.#freeIds = new Int32Array(numBlocks);
    this.#retiredIds = new Int32Array(numBlocks);
    this.#numFree = numBlocks;
    for (let blockId = 0; blockId < numBlocks; blockId++) {
      this.#freeIds[numBlocks - 1 - blockId] = blockId;
      this.#records[blockId * RECORD + 1] = NOBODY;
    }
  }

  get numFree(): number {
    return this.#numFree;
  }

  /** Blocks that become free by themselves, when the steps in flight complete. */
  get numRetired(): number {
    return this.#numRetired;
  }

  /**
   * Takes `count` free blocks, each with one reference held by `owner`.
   * @param owner 0 ≤ owner < 2^31
   * @returns the ids, or null when fewer are free (nothing is taken)
   * @throws KvasirError `invalid-argument`
   */
  allocate(count: number, owner: number): Int32Array | null {
    if (!(count >= 0 && count <= this.numBlocks) || !Number.isInteger(count)) {
      throw new KvasirError('invalid-argument', `blocks to allocate: expected 0 to ${this.numBlocks}, found ${count}`);
    }
    checkOwner(owner);
    if (count > this.#numFree) return null;
    const blockIds = new Int32Array(count);
    const records = this.#records;
    const freeIds = this.#freeIds;
    let top = this.#numFree;
    for (let index = 0; index < count; index++) {
      const blockId = freeIds[--top] as number;
      blockIds[index] = blockId;
      records[blockId * RECORD] = 1;
      records[blockId * RECORD + 1] = owner;
    }
    this.#numFree = top;
    const taken = this.numBlocks - top;
    if (taken > this.#peak) this.#peak = taken;
    return blockIds;
  }

  /** Adds a reference to a used block. @throws KvasirError `invalid-argument`, `invariant-broken` when it is not used */
  acquire(blockId: number, owner: number): void {
    this.#checkId(blockId);
    checkOwner(owner);
    const record = blockId * RECORD;
    const references = this.#records[record] as number;
    if (references <= 0) this.#refuse(blockId, references, 'acquired');
    if (this.#records[record + 1] === NOBODY) this.#records[record + 1] = owner;
    else this.#shared.add(blockId, owner);
    this.#records[record] = references + 1;
  }

  /**
   * Gives one reference of `owner` back; with the last one the block is free, or retired while a step is in flight.
   * @throws KvasirError `invalid-argument` for an id outside the pool; `invariant-broken` when the block is not used
   *   (a double free) or `owner` holds no reference to it (a foreign free); nothing changes then
   */
  release(blockId: number, owner: number): void {
    this.#checkId(blockId);
    const record = blockId * RECORD;
    const references = this.#records[record] as number;
    if (references <= 0) this.#refuse(blockId, references, 'released');
    if (this.#records[record + 1] === owner) this.#records[record + 1] = NOBODY;
    else if (!this.#shared.remove(blockId, owner)) {
      throw new KvasirError(
        'invariant-broken',
        `block ${blockId}: expected a release by one of its owners, found owner ${owner}, who holds no reference`,
        { facts: { blockId, owner } },
      );
    }
    if (references > 1) {
      this.#records[record] = references - 1;
      return;
    }
    const lastStep = this.#stepIds.length - 1;
    if (lastStep < 0) {
      this.#records[record] = 0;
      this.#freeIds[this.#numFree++] = blockId;
      return;
    }
    this.#records[record] = RETIRED;
    this.#retiredIds[(this.#retiredHead + this.#numRetired) % this.numBlocks] = blockId;
    this.#numRetired++;
    this.#stepRetired[lastStep] = (this.#stepRetired[lastStep] as number) + 1;
  }

  /** A step is in flight from now on: what is released until it completes is retired. Ids must ascend. */
  beginStep(stepId: number): void {
    const newest = this.#stepIds.at(-1);
    if (!Number.isSafeInteger(stepId) || (newest !== undefined && stepId <= newest)) {
      throw new KvasirError('invalid-argument', `step: expected an id above ${newest ?? 'none'}, found ${stepId}`);
    }
    this.#stepIds.push(stepId);
    this.#stepRetired.push(0);
  }

  /**
   * The oldest step in flight has completed, well or badly: blocks retired while it was the newest are free.
   * @throws KvasirError `invariant-broken` for any other step: steps complete in order
   */
  completeStep(stepId: number): void {
    if (this.#stepIds[0] !== stepId) {
      throw new KvasirError(
        'invariant-broken',
        `step to complete: expected ${this.#stepIds[0] ?? 'none, nothing is in flight'}, found ${stepId}`,
      );
    }
    this.#stepIds.shift();
    let count = this.#stepRetired.shift() as number;
    this.#numRetired -= count;
    for (; count > 0; count--) {
      const blockId = this.#retiredIds[this.#retiredHead] as number;
      this.#records[blockId * RECORD] = 0;
      this.#freeIds[this.#numFree++] = blockId;
      this.#retiredHead = (this.#retiredHead + 1) % this.numBlocks;
    }
  }

  /** References to a block; 0 when it is free or retired. */
  references(blockId: number): number {
    this.#checkId(blockId);
    return Math.max(0, this.#records[blockId * RECORD] as number);
  }

  isHeldBy(blockId: number, owner: number): boolean {
    this.#checkId(blockId);
    const record = blockId * RECORD;
    if ((this.#records[record] as number) <= 0) return false;
    return this.#records[record + 1] === owner || this.#shared.count(blockId, owner) > 0;
  }

  stats(): BlockPoolStats {
    const taken = this.numBlocks - this.#numFree;
    return {
      total: this.numBlocks,
      free: this.#numFree,
      used: taken - this.#numRetired,
      retired: this.#numRetired,
      peak: this.#peak,
    };
  }

  /**
   * Recounts everything: every block is exactly one of free, retired and used, and every reference has a holder.
   * Cost: O(N); for tests and for finding a bug. @throws KvasirError `invariant-broken`
   */
  checkIntegrity(): void {
    const seen = new Uint8Array(this.numBlocks);
    const sharedByBlock = this.#shared.countByBlock(this.numBlocks);
    const claim = (blockId: number, references: number, state: string): void => {
      if (seen[blockId] !== 0) broken(`block ${blockId} is listed twice`);
      if (this.#records[blockId * RECORD] !== references) broken(`block ${blockId} is listed ${state} and is not`);
      if (this.#records[blockId * RECORD + 1] !== NOBODY) broken(`block ${blockId} is ${state} and has a holder`);
      if (sharedByBlock[blockId] !== 0) broken(`block ${blockId} is ${state} and is shared`);
      seen[blockId] = 1;
    };
    for (let index = 0; index < this.#numFree; index++) claim(this.#freeIds[index] as number, 0, 'free');
    for (let index = 0; index < this.#numRetired; index++) {
      claim(this.#retiredIds[(this.#retiredHead + index) % this.numBlocks] as number, RETIRED, 'retired');
    }
    const retiredBySteps = this.#stepRetired.reduce((sum, count) => sum + count, 0);
    if (retiredBySteps !== this.#numRetired) broken(`${this.#numRetired} retired blocks, steps know ${retiredBySteps}`);
    for (let blockId = 0; blockId < this.numBlocks; blockId++) {
      if (seen[blockId] !== 0) continue;
      const references = this.#records[blockId * RECORD] as number;
      const first = this.#records[blockId * RECORD + 1] === NOBODY ? 0 : 1;
      const shared = sharedByBlock[blockId] as number;
      if (references < 1 || references !== first + shared) {
        broken(`block ${blockId} has ${references} references and ${first + shared} holders`);
      }
    }
  }

  #checkId(blockId: number): void {
    if (!(blockId >= 0 && blockId < this.numBlocks) || !Number.isInteger(blockId)) {
      throw new KvasirError('invalid-argument', `block id: expected 0 to ${this.numBlocks - 1}, found ${blockId}`);
    }
  }

  #refuse(blockId: number, references: number, action: string): never {
    const state = references === RETIRED ? 'retired' : 'free';
    throw new KvasirError(
      'invariant-broken',
      `block ${blockId}: expected a used block to be ${action}, found it ${state}`,
      { facts: { blockId } },
    );
  }
}

function checkOwner(owner: number): void {
  if (!(owner >= 0 && owner <= MAX_OWNER) || !Number.isInteger(owner)) {
    throw new KvasirError('invalid-argument', `owner: expected an integer from 0 to ${MAX_OWNER}, found ${owner}`);
  }
}

function broken(what: string): never {
  throw new KvasirError('invariant-broken', `block pool: expected every block accounted for once, found: ${what}`);
}
