import type { SpecialToken } from '../model/tokenizer-model.ts';

/** A stretch of plain text, or a token that was written out in it. `isFirst`: nothing precedes it, not even a token. */
export type Fragment = TextFragment | { readonly id: number };

export interface TextFragment {
  readonly text: string;
  readonly isFirst: boolean;
}

/** UTF-16 units [start, end) in which control tokens count. Ranges are in order and do not touch. */
export interface TrustedRange {
  readonly start: number;
  readonly end: number;
}

interface TrieNode {
  readonly next: Map<number, TrieNode>;
  token: SpecialToken | null;
}

const WHITE_SPACE = /\p{White_Space}/u;

/** Finds special tokens in text: leftmost first, the longest at each place. Linear in the text for short tokens. */
export class SpecialSplitter {
  readonly #root: TrieNode = { next: new Map(), token: null };
  /** (65536) 1 where a UTF-16 unit begins a special token: most of a text is passed over by one load a unit. */
  readonly #begins = new Uint8Array(1 << 16);

  constructor(tokens: readonly SpecialToken[]) {
    for (const token of tokens) {
      if (token.text !== '') this.#insert(token);
    }
  }

  /** Control tokens are found in `trusted` ranges only, user-defined tokens everywhere. */
  split(text: string, trusted: readonly TrustedRange[]): Fragment[] {
    const fragments: Fragment[] = [];
    let range = 0;
    let textStart = 0;
    for (let position = 0; position < text.length; ) {
      if (this.#begins[text.charCodeAt(position)] === 0) {
        position += 1;
        continue;
      }
      while (range < trusted.length && (trusted[range] as TrustedRange).end <= position) range += 1;
      const current = trusted[range];
      const trustedEnd = current !== undefined && current.start <= position ? current.end : -1;
      const token = longestMatch(this.#root, text, position, trustedEnd);
      if (token === null) {
        position += 1;
        continue;
      }
      const before = text.slice(textStart, position);
      pushText(fragments, token.stripLeft ? trimEnd(before) : before);
      fragments.push({ id: token.id });
      position += token.text.length;
      if (token.stripRight) while (position < text.length && WHITE_SPACE.test(text.charAt(position))) position += 1;
      textStart = position;
    }
    pushText(fragments, text.slice(textStart));
    return fragments;
  }

  #insert(token: SpecialToken): void {
    let node = this.#root;
    for (let index = 0; index < token.text.length; index += 1) {
      const unit = token.text.charCodeAt(index);
      let next = node.next.get(unit);
      if (next === undefined) {
        next = { next: new Map(), token: null };
        node.next.set(unit, next);
      }
      node = next;
    }
    node.token = token;
    this.#begins[token.text.charCodeAt(0)] = 1;
  }
}

/** @param trustedEnd where control tokens must end at the latest; -1 where none may begin */
function longestMatch(root: TrieNode, text: string, start: number, trustedEnd: number): SpecialToken | null {
  let best: SpecialToken | null = null;
  let node: TrieNode | undefined = root;
  for (let end = start; node !== undefined && end < text.length; ) {
    node = node.next.get(text.charCodeAt(end));
    end += 1;
    const token = node?.token ?? null;
    if (token !== null && (!token.control || end <= trustedEnd)) best = token;
  }
  return best;
}

function pushText(fragments: Fragment[], text: string): void {
  if (text !== '') fragments.push({ text, isFirst: fragments.length === 0 });
}

function trimEnd(text: string): string {
  return text.replace(/\p{White_Space}+$/u, '');
}
