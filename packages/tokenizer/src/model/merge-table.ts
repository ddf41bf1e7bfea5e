import { hashCapacity, sharedInt32 } from './shared-memory.ts';
import type { MergeTable } from './tokenizer-model.ts';

/** Collects merges in order of rank and freezes them into shared memory. */
export class MergeTableBuilder {
  readonly #left: Int32Array;
  readonly #right: Int32Array;
  readonly #merged: Int32Array;
  #count = 0;

  constructor(numMerges: number) {
    this.#left = sharedInt32(numMerges);
    this.#right = sharedInt32(numMerges);
    this.#merged = sharedInt32(numMerges);
  }

  /** Appends the next rank. */
  add(left: number, right: number, merged: number): void {
    this.#left[this.#count] = left;
    this.#right[this.#count] = right;
    this.#merged[this.#count] = merged;
    this.#count += 1;
  }

  /** Where a pair is listed twice the lower rank counts. */
  build(): MergeTable {
    const index = sharedInt32(hashCapacity(this.#count));
    const table = { left: this.#left, right: this.#right, merged: this.#merged, index };
    const mask = index.length - 1;
    for (let rank = 0; rank < this.#count; rank += 1) {
      const left = this.#left[rank] as number;
      const right = this.#right[rank] as number;
      if (findMerge(table, left, right) >= 0) continue;
      let slot = hashPair(left, right) & mask;
      while (index[slot] !== 0) slot = (slot + 1) & mask;
      index[slot] = rank + 1;
    }
    return table;
  }
}

/** Rank of the merge of two tokens, or -1. */
export function findMerge(table: MergeTable, left: number, right: number): number {
  const { index } = table;
  const mask = index.length - 1;
  for (let slot = hashPair(left, right) & mask; ; slot = (slot + 1) & mask) {
    const rank = (index[slot] as number) - 1;
    if (rank < 0 || (table.left[rank] === left && table.right[rank] === right)) return rank;
  }
}

function hashPair(left: number, right: number): number {
  let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
  hash ^= hash >>> 15;
  return Math.imul(hash, 0x2c1b3c6d) >>> 1;
}
