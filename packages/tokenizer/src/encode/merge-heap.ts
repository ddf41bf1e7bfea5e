/**
 * A binary min-heap of candidate merges. A candidate is one number: its order (rank, or place by score) times 2^32 plus
 * the index of its left symbol, so that equal orders merge leftmost first. Orders stay below 2^21, so keys are exact.
 */
export class MergeHeap {
  #keys = new Float64Array(64);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  clear(): void {
    this.#size = 0;
    // A text of a megabyte grows this to tens of megabytes; the next one is likely short.
    if (this.#keys.length > 1 << 16) this.#keys = new Float64Array(64);
  }

  push(key: number): void {
    if (this.#size === this.#keys.length) {
      const grown = new Float64Array(this.#size * 2);
      grown.set(this.#keys);
      this.#keys = grown;
    }
    const keys = this.#keys;
    let child = this.#size;
    this.#size += 1;
    while (child > 0) {
      const parent = (child - 1) >> 1;
      const above = keys[parent] as number;
      if (above <= key) break;
      keys[child] = above;
      child = parent;
    }
    keys[child] = key;
  }

  /** Removes and returns the least key; the heap must not be empty. */
  pop(): number {
    const keys = this.#keys;
    const least = keys[0] as number;
    this.#size -= 1;
    const size = this.#size;
    const moved = keys[size] as number;
    let parent = 0;
    for (;;) {
      let child = 2 * parent + 1;
      if (child >= size) break;
      if (child + 1 < size && (keys[child + 1] as number) < (keys[child] as number)) child += 1;
      const below = keys[child] as number;
      if (below >= moved) break;
      keys[parent] = below;
      parent = child;
    }
    keys[parent] = moved;
    return least;
  }
}

const LEFT_RANGE = 2 ** 32;

export function mergeKey(order: number, left: number): number {
  return order * LEFT_RANGE + left;
}

export function orderOf(key: number): number {
  return Math.floor(key / LEFT_RANGE);
}

export function leftOf(key: number): number {
  return key - Math.floor(key / LEFT_RANGE) * LEFT_RANGE;
}
