import { KvasirError } from '@kvasir/domain';
import type { GgufSource } from '../source.ts';

/** Typed access to GGUF metadata; what has the wrong type is an error that names the key. */
export class MetadataReader {
  readonly #metadata: GgufSource['metadata'];

  constructor(metadata: GgufSource['metadata']) {
    this.#metadata = metadata;
  }

  string(key: string): string | null {
    const value = this.#metadata.get(key) ?? null;
    return value === null || typeof value === 'string' ? value : this.#refuse(key, 'a string', value);
  }

  boolean(key: string): boolean | null {
    const value = this.#metadata.get(key) ?? null;
    return value === null || typeof value === 'boolean' ? value : this.#refuse(key, 'a boolean', value);
  }

  /** A token id, or null where the key is absent or names no token of the vocabulary (converters write -1 or more). */
  tokenId(key: string, vocabularySize: number): number | null {
    const value = this.#metadata.get(key) ?? null;
    if (value === null) return null;
    if (typeof value !== 'number' && typeof value !== 'bigint') return this.#refuse(key, 'a token id', value);
    const id = Number(value);
    return Number.isInteger(id) && id >= 0 && id < vocabularySize ? id : null;
  }

  strings(key: string): readonly string[] | null {
    const value = this.#metadata.get(key) ?? null;
    if (value === null) return null;
    const items: readonly unknown[] | null = isIterable(value) ? [...value] : null;
    if (items === null || items.some((item) => typeof item !== 'string')) {
      return this.#refuse(key, 'an array of strings', value);
    }
    return items as readonly string[];
  }

  numbers(key: string): ArrayLike<number> | null {
    const value = this.#metadata.get(key) ?? null;
    if (value === null) return null;
    if (ArrayBuffer.isView(value) && 'length' in value) return value as unknown as ArrayLike<number>;
    if (!Array.isArray(value) || value.some((item) => typeof item !== 'number')) {
      return this.#refuse(key, 'an array of numbers', value);
    }
    return value as readonly number[];
  }

  #refuse(key: string, expected: string, value: unknown): never {
    const found = Array.isArray(value) ? 'another array' : typeof value;
    throw new KvasirError('file-corrupt', `metadata ${key}: expected ${expected}, found ${found}`, { facts: { key } });
  }
}

/** A list of strings need not be an Array: a reader may decode them one by one. */
function isIterable(value: unknown): value is Iterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.iterator in value;
}
