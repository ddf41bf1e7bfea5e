const FIRST_CAPACITY = 8;

/** Block ids of one sequence in one layer group, in logical order: element i holds the tokens from i * blockTokens on. */
export class BlockTable {
  readonly blockTokens: number;
  #blockIds = new Int32Array(FIRST_CAPACITY);
  #length = 0;

  constructor(blockTokens: number) {
    this.blockTokens = blockTokens;
  }

  /** Blocks in the table. */
  get length(): number {
    return this.#length;
  }

  /** (length) valid until the table changes; not to be written. */
  get blockIds(): Int32Array {
    return this.#blockIds.subarray(0, this.#length);
  }

  append(blockIds: Int32Array): void {
    const length = this.#length + blockIds.length;
    if (length > this.#blockIds.length) {
      const larger = new Int32Array(Math.max(length, this.#blockIds.length * 2));
      larger.set(this.#blockIds.subarray(0, this.#length));
      this.#blockIds = larger;
    }
    this.#blockIds.set(blockIds, this.#length);
    this.#length = length;
  }

  clear(): void {
    this.#length = 0;
  }

  /** Writes one row of a step's table: the ids, then -1 up to `width`. */
  fillRow(target: Int32Array, offset: number, width: number): void {
    const blockIds = this.#blockIds;
    const length = this.#length;
    for (let index = 0; index < length; index++) target[offset + index] = blockIds[index] as number;
    for (let index = length; index < width; index++) target[offset + index] = -1;
  }

  /** Writes the slots of `count` tokens from `position` on; the table must reach that far. */
  fillSlots(target: Int32Array, offset: number, position: number, count: number): void {
    const blockTokens = this.blockTokens;
    for (let index = 0; index < count; index++) {
      const at = position + index;
      const blockIndex = Math.floor(at / blockTokens);
      target[offset + index] = (this.#blockIds[blockIndex] as number) * blockTokens + (at - blockIndex * blockTokens);
    }
  }
}
