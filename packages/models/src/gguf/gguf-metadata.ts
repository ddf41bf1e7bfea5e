import type { GgufCursor } from './gguf-cursor.ts';
import {
  GgufStringList,
  type GgufArray,
  type GgufMetadata,
  type GgufNumberArray,
  type GgufValue,
} from './gguf-value.ts';

/** Limits no real file comes near; they bound what a hostile one can make us allocate. */
export const MAX_METADATA_ENTRIES = 65_536;
const MAX_KEY_BYTES = 65_535;
const MAX_STRING_BYTES = 64 * 2 ** 20;
const MAX_ARRAY_BYTES = 256 * 2 ** 20;
const MAX_METADATA_BYTES = 512 * 2 ** 20;
const MAX_NESTING = 3;
const MAX_NESTED_ARRAYS = 65_536;

/** Value types by their number in the file (GGUF specification, `gguf_metadata_value_type`). */
const TYPE_NAMES = [
  'uint8',
  'int8',
  'uint16',
  'int16',
  'uint32',
  'int32',
  'float32',
  'bool',
  'string',
  'array',
  'uint64',
  'int64',
  'float64',
] as const;

type TypeName = (typeof TYPE_NAMES)[number];

interface NumberType {
  readonly bytes: number;
  readonly array: new (buffer: ArrayBuffer) => GgufNumberArray;
}

const NUMBER_TYPES: Readonly<Record<Exclude<TypeName, 'string' | 'array'>, NumberType>> = {
  uint8: { bytes: 1, array: Uint8Array },
  int8: { bytes: 1, array: Int8Array },
  uint16: { bytes: 2, array: Uint16Array },
  int16: { bytes: 2, array: Int16Array },
  uint32: { bytes: 4, array: Uint32Array },
  int32: { bytes: 4, array: Int32Array },
  float32: { bytes: 4, array: Float32Array },
  bool: { bytes: 1, array: Uint8Array },
  uint64: { bytes: 8, array: BigUint64Array },
  int64: { bytes: 8, array: BigInt64Array },
  float64: { bytes: 8, array: Float64Array },
};

/**
 * Reads the key-value section; the cursor stands at its first key and is left behind its last value.
 * @throws KvasirError `file-corrupt`, `file-truncated`
 */
export function readMetadata(cursor: GgufCursor, numEntries: number): GgufMetadata {
  const metadata = new Map<string, GgufValue>();
  const budget = { nestedArrays: MAX_NESTED_ARRAYS };
  for (let index = 0; index < numEntries; index++) {
    cursor.part = `metadata entry ${index + 1} of ${numEntries}`;
    const key = readName(cursor, 'key', MAX_KEY_BYTES);
    cursor.part = `metadata key ${JSON.stringify(key.slice(0, 120))}`;
    if (metadata.has(key)) throw cursor.corrupt('expected every key once, found it again');
    metadata.set(key, readValue(cursor, readType(cursor), budget));
    if (cursor.position > MAX_METADATA_BYTES) {
      throw cursor.corrupt(`expected at most ${MAX_METADATA_BYTES} bytes of metadata, found more`);
    }
  }
  return metadata;
}

/** Text that must be valid UTF-8 and not empty: a key or a tensor's name. */
export function readName(cursor: GgufCursor, what: string, maxBytes: number): string {
  const length = cursor.readCount(`a ${what} length`, maxBytes);
  if (length === 0) throw cursor.corrupt(`expected a ${what}, found an empty one`, 8);
  const bytes = cursor.peekBytes(length);
  try {
    return strictDecoder.decode(bytes);
  } catch {
    throw cursor.corrupt(`expected a ${what} in UTF-8, found other bytes`, length);
  }
}

// ---------------------------------------------------------------------------------------------------------- one value

const strictDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const lenientDecoder = new TextDecoder('utf-8', { ignoreBOM: true });

function readType(cursor: GgufCursor): TypeName {
  const type = cursor.readUint32();
  const name = TYPE_NAMES[type];
  if (name === undefined) throw cursor.corrupt(`expected a value type from 0 to 12, found ${type}`, 4);
  return name;
}

function readValue(cursor: GgufCursor, type: TypeName, budget: { nestedArrays: number }): GgufValue {
  if (type === 'string') return readText(cursor);
  if (type === 'array') return readArray(cursor, budget, 1);
  const [value] = readNumbers(cursor, type, 1) as ArrayLike<number | bigint> & Iterable<number | bigint>;
  if (type === 'bool') return value === 1;
  if (typeof value !== 'bigint') return value as number;
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

function readText(cursor: GgufCursor): string {
  const length = cursor.readCount('a string length', MAX_STRING_BYTES);
  cursor.require(length);
  const bytes = new Uint8Array(length);
  cursor.readInto(bytes);
  return lenientDecoder.decode(bytes);
}

function readArray(cursor: GgufCursor, budget: { nestedArrays: number }, depth: number): GgufArray {
  const type = readType(cursor);
  if (type === 'string') return readStrings(cursor, cursor.readCount('an array length', MAX_ARRAY_BYTES / 8));
  if (type !== 'array') {
    return readNumbers(
      cursor,
      type,
      cursor.readCount('an array length', Math.floor(MAX_ARRAY_BYTES / NUMBER_TYPES[type].bytes)),
    );
  }
  const length = cursor.readCount('a length of an array of arrays', budget.nestedArrays);
  if (depth >= MAX_NESTING) throw cursor.corrupt(`expected arrays nested at most ${MAX_NESTING} deep, found more`, 12);
  budget.nestedArrays -= length;
  const arrays: GgufArray[] = [];
  for (let index = 0; index < length; index++) arrays.push(readArray(cursor, budget, depth + 1));
  return arrays;
}

function readNumbers(cursor: GgufCursor, type: Exclude<TypeName, 'string' | 'array'>, length: number): GgufNumberArray {
  const { bytes, array: NumberArray } = NUMBER_TYPES[type];
  cursor.require(length * bytes);
  const start = cursor.position;
  const raw = new Uint8Array(length * bytes);
  if (raw.length <= 8) raw.set(cursor.peekBytes(raw.length));
  else cursor.readInto(raw);
  if (type === 'bool') {
    const wrong = raw.findIndex((value) => value > 1);
    if (wrong >= 0) {
      throw cursor.corrupt(`expected a bool of 0 or 1, found ${raw[wrong]}`, cursor.position - start - wrong);
    }
  }
  return new NumberArray(raw.buffer);
}

function readStrings(cursor: GgufCursor, length: number): GgufStringList {
  cursor.require(length * 8);
  const texts = new TextPile(length, Math.min(length * 16, cursor.remaining, MAX_ARRAY_BYTES));
  while (texts.count < length) {
    cursor.skip(texts.pushFrom(cursor.visibleBytes(), length - texts.count));
    if (texts.count === length) break;
    // The next string crosses the window's edge, or its length is wrong: the checked path finds out.
    const count = cursor.readCount('a string length', MAX_STRING_BYTES);
    cursor.require(count);
    if (texts.used + count > MAX_ARRAY_BYTES) {
      throw cursor.corrupt(`expected an array of at most ${MAX_ARRAY_BYTES} bytes of text, found more`, 8);
    }
    texts.push(cursor.peekBytes(count));
  }
  return texts.toList();
}

/** Strings back to back; grows with what is really in the file, so that a false length costs nothing. */
class TextPile {
  count = 0;
  used = 0;
  readonly #starts: Uint32Array;
  #bytes: Uint8Array;

  constructor(length: number, capacity: number) {
    this.#starts = new Uint32Array(length + 1);
    this.#bytes = new Uint8Array(capacity);
  }

  /** Takes length-prefixed strings while they lie whole in `encoded`; returns the bytes taken. */
  pushFrom(encoded: Uint8Array, limit: number): number {
    const view = new DataView(encoded.buffer, encoded.byteOffset, encoded.length);
    let at = 0;
    for (let taken = 0; taken < limit && at + 8 <= encoded.length; taken++) {
      const end = at + 8 + view.getUint32(at, true);
      if (view.getUint32(at + 4, true) !== 0 || end > encoded.length) break;
      this.push(encoded, at + 8, end);
      at = end;
    }
    return at;
  }

  push(source: Uint8Array, start = 0, end = source.length): void {
    const { used } = this;
    const next = used + end - start;
    if (next > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(next, this.#bytes.length * 2));
      grown.set(this.#bytes.subarray(0, used));
      this.#bytes = grown;
    }
    // Tokens are a few bytes long: a loop beats making a view of each.
    if (end - start > 64) this.#bytes.set(source.subarray(start, end), used);
    else for (let from = start, to = used; from < end; from++, to++) this.#bytes[to] = source[from] as number;
    this.used = next;
    this.count += 1;
    this.#starts[this.count] = next;
  }

  toList(): GgufStringList {
    return new GgufStringList(this.#bytes.slice(0, this.used), this.#starts);
  }
}
