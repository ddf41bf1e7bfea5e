/** A growing list of token ids. */
export class IdSink {
  #ids = new Int32Array(256);
  #length = 0;

  push(id: number): void {
    if (this.#length === this.#ids.length) this.#grow(this.#length + 1);
    this.#ids[this.#length] = id;
    this.#length += 1;
  }

  append(ids: ArrayLike<number>): void {
    if (this.#length + ids.length > this.#ids.length) this.#grow(this.#length + ids.length);
    this.#ids.set(ids, this.#length);
    this.#length += ids.length;
  }

  clear(): void {
    this.#length = 0;
  }

  /** A copy of what was collected. */
  slice(): Int32Array {
    return this.#ids.slice(0, this.#length);
  }

  #grow(needed: number): void {
    const grown = new Int32Array(Math.max(needed, this.#ids.length * 2));
    grown.set(this.#ids.subarray(0, this.#length));
    this.#ids = grown;
  }
}
