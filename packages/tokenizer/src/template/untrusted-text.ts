import { TextTrie } from '../encode/text-trie.ts';

/** JSON as a caller sent it. */
export type Json = unknown;

/** Fields that name one of a few kinds; templates compare them, so only whole special tokens are taken out of them. */
const KIND_FIELDS = new Set(['role', 'type']);

/** UTF-16 positions [start, end) of a string in which a special token is written, or begins or ends. */
export interface Hazard {
  readonly start: number;
  readonly end: number;
}

/** Calls `change` with every string of a JSON value, keys included, in a fixed order; gives the changed copy. */
export function mapStrings(value: Json, change: (text: string, isKind: boolean) => string, isKind = false): Json {
  if (typeof value === 'string') return change(value, isKind);
  if (Array.isArray(value)) return value.map((item) => mapStrings(item, change, isKind));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [change(key, true), mapStrings(member, change, KIND_FIELDS.has(key))]),
  );
}

/** Knows a set of special tokens and finds where untrusted strings could bring one about. */
export class HazardFinder {
  readonly #specials: readonly string[];
  readonly #trie: TextTrie<true>;

  constructor(specials: readonly string[]) {
    this.#specials = specials;
    this.#trie = new TextTrie(specials.map((text): [string, true] => [text, true]));
  }

  /** Special tokens written out in `text`, overlapping ones joined. */
  whole(text: string): Hazard[] {
    const hazards: Hazard[] = [];
    for (let start = this.#trie.next(text, 0); start >= 0; start = this.#trie.next(text, start + 1)) {
      const match = this.#trie.longest(text, start, () => true);
      if (match !== null) hazards.push({ start, end: match.end });
    }
    return hazards;
  }

  /**
   * Ends of `text` that need only its neighbours to become a special token: its end begins one, its start ends one, or
   * all of it lies inside one. White space around it is left out, as templates trim.
   */
  edges(text: string): Hazard[] {
    const start = text.length - text.trimStart().length;
    const core = text.trim();
    const end = start + core.length;
    if (core === '') return [];
    const hazards: Hazard[] = [];
    for (const special of this.#specials) {
      const head = longestOverlap(core, special);
      if (head > 0) hazards.push({ start: end - head, end });
      const tail = longestOverlap(special, core);
      if (tail > 0) hazards.push({ start, end: start + tail });
      if (core.length < special.length && special.includes(core)) hazards.push({ start, end });
    }
    return hazards;
  }
}

/** Length of the longest end of `first` that begins `second` and is shorter than both. */
function longestOverlap(first: string, second: string): number {
  for (let length = Math.min(first.length, second.length) - 1; length > 0; length -= 1) {
    if (second.startsWith(first.slice(first.length - length))) return length;
  }
  return 0;
}
