/** (block id, owner, count) as three int32; a count of 0 marks an empty entry. */
const ENTRY = 3;
const FIRST_CAPACITY = 64;

/**
 * Counts of references by (block, owner): a hash table with open addressing in one typed array, so that a block shared
 * by thousands of agents costs no more to give back than one shared by two. Deletion closes the gap it leaves.
 */
export class ReferenceTable {
  #entries = new Int32Array(FIRST_CAPACITY * ENTRY);
  #capacity = FIRST_CAPACITY;
  #used = 0;

  add(blockId: number, owner: number): void {
    if ((this.#used + 1) * 2 > this.#capacity) this.#grow();
    const at = this.#find(blockId, owner) * ENTRY;
    if (this.#entries[at + 2] === 0) {
      this.#entries[at] = blockId;
      this.#entries[at + 1] = owner;
      this.#used++;
    }
    this.#entries[at + 2] = (this.#entries[at + 2] as number) + 1;
  }

  /** @returns whether there was a reference to take away */
  remove(blockId: number, owner: number): boolean {
    const place = this.#find(blockId, owner);
    const count = this.#entries[place * ENTRY + 2] as number;
    if (count === 0) return false;
    this.#entries[place * ENTRY + 2] = count - 1;
    if (count === 1) {
      this.#used--;
      this.#closeGap(place);
    }
    return true;
  }

  count(blockId: number, owner: number): number {
    return this.#entries[this.#find(blockId, owner) * ENTRY + 2] as number;
  }

  /** (numBlocks) references by block. Cost: O(numBlocks + capacity), for integrity checks. */
  countByBlock(numBlocks: number): Int32Array {
    const counts = new Int32Array(numBlocks);
    for (let at = 0; at < this.#entries.length; at += ENTRY) {
      const blockId = this.#entries[at] as number;
      counts[blockId] = (counts[blockId] as number) + (this.#entries[at + 2] as number);
    }
    return counts;
  }

  /** Where the pair is, or the empty entry where it would go. */
  #find(blockId: number, owner: number): number {
    let place = this.#home(blockId, owner);
    for (;;) {
      const at = place * ENTRY;
      if (this.#entries[at + 2] === 0) return place;
      if (this.#entries[at] === blockId && this.#entries[at + 1] === owner) return place;
      place = (place + 1) & (this.#capacity - 1);
    }
  }

  #home(blockId: number, owner: number): number {
    let hash = Math.imul(blockId, 0x9e3779b1) ^ Math.imul(owner, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    return (hash ^ (hash >>> 13)) & (this.#capacity - 1);
  }

  /** Moves later entries of the same run back, so that a search never stops early at the gap. */
  #closeGap(gap: number): void {
    const mask = this.#capacity - 1;
    let hole = gap;
    let place = gap;
    for (;;) {
      place = (place + 1) & mask;
      const at = place * ENTRY;
      if (this.#entries[at + 2] === 0) break;
      const home = this.#home(this.#entries[at] as number, this.#entries[at + 1] as number);
      if (((place - home) & mask) >= ((place - hole) & mask)) {
        this.#entries.copyWithin(hole * ENTRY, at, at + ENTRY);
        hole = place;
      }
    }
    this.#entries.fill(0, hole * ENTRY, hole * ENTRY + ENTRY);
  }

  #grow(): void {
    const before = this.#entries;
    this.#capacity *= 2;
    this.#entries = new Int32Array(this.#capacity * ENTRY);
    for (let at = 0; at < before.length; at += ENTRY) {
      if (before[at + 2] === 0) continue;
      const place = this.#find(before[at] as number, before[at + 1] as number);
      this.#entries.set(before.subarray(at, at + ENTRY), place * ENTRY);
    }
  }
}
