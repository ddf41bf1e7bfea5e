/**
 * One metadata value. 64-bit integers are numbers where a number holds them exactly, bigints otherwise; arrays of numbers
 * and booleans (0 or 1) are typed arrays; arrays of strings stay encoded until asked for.
 */
export type GgufValue = string | number | bigint | boolean | GgufArray;

export type GgufArray = GgufStringList | GgufNumberArray | readonly GgufArray[];

export type GgufNumberArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

/** A GGUF file's key-value section, in file order. */
export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/**
 * An array of strings kept as the file's bytes: a vocabulary of 200,000 tokens costs its bytes and one offset each until
 * someone needs the text.
 */
export class GgufStringList implements Iterable<string> {
  readonly length: number;
  readonly #bytes: Uint8Array;
  /** (length + 1) where each string starts in `#bytes`. */
  readonly #starts: Uint32Array;

  /** Takes ownership of both arrays; `starts` has one entry more than there are strings. */
  constructor(bytes: Uint8Array, starts: Uint32Array) {
    this.#bytes = bytes;
    this.#starts = starts;
    this.length = starts.length - 1;
  }

  /** Text of one string, invalid UTF-8 as U+FFFD; undefined outside the list. */
  at(index: number): string | undefined {
    const bytes = this.bytesAt(index);
    return bytes === undefined ? undefined : decoder.decode(bytes);
  }

  /** A view of one string's bytes as they are in the file; must not be written to. */
  bytesAt(index: number): Uint8Array | undefined {
    if (!Number.isInteger(index) || index < 0 || index >= this.length) return undefined;
    return this.#bytes.subarray(this.#starts[index] as number, this.#starts[index + 1] as number);
  }

  /** Decodes everything. */
  toArray(): string[] {
    return [...this];
  }

  *[Symbol.iterator](): IterableIterator<string> {
    for (let index = 0; index < this.length; index++) yield this.at(index) as string;
  }
}

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
