import { LRUCache } from 'lru-cache';
import { hash } from 'node:crypto';
import type { TextFragment } from './special-splitter.ts';

/** What an entry costs beside its ids: its key, the array's header, the list's links. */
const ENTRY_BYTES = 256;

/**
 * Ids of text between special tokens, least recently used first out. Keyed by a digest: the text itself may be a slice
 * that keeps a whole prompt alive.
 */
export class FragmentCache {
  readonly #entries: LRUCache<string, Int32Array> | null;

  constructor(maxBytes: number) {
    this.#entries =
      maxBytes === 0
        ? null
        : new LRUCache({ maxSize: maxBytes, sizeCalculation: (ids) => ids.byteLength + ENTRY_BYTES });
  }

  key(fragment: TextFragment): string {
    return (fragment.continues === true ? 'c' : fragment.isFirst ? 'f' : 'l') + hash('sha256', fragment.text, 'base64');
  }

  get(key: string): Int32Array | null {
    return this.#entries?.get(key) ?? null;
  }

  set(key: string, ids: Int32Array): void {
    this.#entries?.set(key, ids);
  }

  clear(): void {
    this.#entries?.clear();
  }
}
