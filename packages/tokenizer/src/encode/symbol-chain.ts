/** The symbols of one piece as a doubly linked list in typed arrays, reused from piece to piece. */
export class SymbolChain {
  /** Token id of a symbol; -1 where its text is no token. */
  ids = new Int32Array(64);
  previous = new Int32Array(64);
  /** Index of the next symbol, -1 at the end. */
  next = new Int32Array(64);
  /** Byte where a symbol begins in the piece, and where it ends; the end is 0 for one merged away. */
  starts = new Int32Array(64);
  ends = new Int32Array(64);
  length = 0;

  reset(): void {
    this.length = 0;
    if (this.ids.length > 1 << 16) this.#allocate(64);
  }

  add(id: number, start: number, end: number): void {
    const index = this.length;
    if (index === this.ids.length) this.#grow();
    this.ids[index] = id;
    this.previous[index] = index - 1;
    this.next[index] = -1;
    if (index > 0) this.next[index - 1] = index;
    this.starts[index] = start;
    this.ends[index] = end;
    this.length = index + 1;
  }

  /** Makes `left` span itself and its right neighbour. */
  join(left: number, id: number): void {
    const right = this.next[left] as number;
    const after = this.next[right] as number;
    this.ids[left] = id;
    this.ends[left] = this.ends[right] as number;
    this.ends[right] = 0;
    this.next[left] = after;
    if (after >= 0) this.previous[after] = left;
  }

  #allocate(capacity: number): void {
    this.ids = new Int32Array(capacity);
    this.previous = new Int32Array(capacity);
    this.next = new Int32Array(capacity);
    this.starts = new Int32Array(capacity);
    this.ends = new Int32Array(capacity);
  }

  #grow(): void {
    const { ids, previous, next, starts, ends } = this;
    this.#allocate(ids.length * 2);
    this.ids.set(ids);
    this.previous.set(previous);
    this.next.set(next);
    this.starts.set(starts);
    this.ends.set(ends);
  }
}
