/** Little-endian bytes that grow. Numbers are u8, u32 or f64: f64 holds every safe integer and every time. */
export class ByteWriter {
  #bytes = Buffer.allocUnsafe(256);
  #length = 0;

  u8(value: number): this {
    this.#grow(1);
    this.#length = this.#bytes.writeUInt8(value, this.#length);
    return this;
  }

  u32(value: number): this {
    this.#grow(4);
    this.#length = this.#bytes.writeUInt32LE(value, this.#length);
    return this;
  }

  f64(value: number): this {
    this.#grow(8);
    this.#length = this.#bytes.writeDoubleLE(value, this.#length);
    return this;
  }

  text(value: string): this {
    const bytes = Buffer.from(value, 'utf8');
    return this.u32(bytes.length).raw(bytes);
  }

  /** Lower-case hex digits, two a byte; the reader knows how many. */
  hex(digits: string): this {
    return this.raw(Buffer.from(digits, 'hex'));
  }

  tokens(tokenIds: Int32Array): this {
    return this.u32(tokenIds.length).raw(new Uint8Array(tokenIds.buffer, tokenIds.byteOffset, tokenIds.byteLength));
  }

  raw(bytes: Uint8Array): this {
    this.#grow(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }

  /** Not to be written to afterwards. */
  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #grow(count: number): void {
    const needed = this.#length + count;
    if (needed <= this.#bytes.length) return;
    const bytes = Buffer.allocUnsafe(Math.max(needed, this.#bytes.length * 2));
    bytes.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = bytes;
  }
}

/** Bytes that end early or say something impossible. Records are checksummed, so this is damage or another version. */
export class DecodeFault extends Error {}

/** Reads what a ByteWriter wrote; every length is checked against what is left. */
export class ByteReader {
  readonly #bytes: Buffer;
  #position = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get remaining(): number {
    return this.#bytes.length - this.#position;
  }

  u8(): number {
    return this.#bytes.readUInt8(this.#take(1));
  }

  u32(): number {
    return this.#bytes.readUInt32LE(this.#take(4));
  }

  f64(): number {
    return this.#bytes.readDoubleLE(this.#take(8));
  }

  /** @param itemBytes the least an item takes: a count that cannot be true is refused before anything is allocated */
  count(itemBytes: number): number {
    const count = this.u32();
    if (count * itemBytes > this.remaining) throw new DecodeFault(`expected room for ${count} items`);
    return count;
  }

  text(): string {
    const length = this.count(1);
    const start = this.#take(length);
    return this.#bytes.toString('utf8', start, start + length);
  }

  /** So many texts as they lie there, undecoded: a view. */
  textBytes(count: number): Uint8Array {
    const start = this.#position;
    for (let text = 0; text < count; text++) this.#take(this.count(1));
    return this.#bytes.subarray(start, this.#position);
  }

  hex(digits: number): string {
    const start = this.#take(digits / 2);
    return this.#bytes.toString('hex', start, start + digits / 2);
  }

  tokens(): Int32Array {
    const count = this.count(4);
    const start = this.#take(count * 4);
    const tokenIds = new Int32Array(count);
    new Uint8Array(tokenIds.buffer).set(this.#bytes.subarray(start, start + count * 4));
    return tokenIds;
  }

  #take(count: number): number {
    if (count > this.remaining) throw new DecodeFault(`expected ${count} more bytes, found ${this.remaining}`);
    const start = this.#position;
    this.#position += count;
    return start;
  }
}
