import type { SpecialToken } from '../model/tokenizer-model.ts';
import { TextTrie, type TextMatch } from './text-trie.ts';

/** A stretch of plain text, or a token that was written out in it. */
export type Fragment = TextFragment | { readonly id: number };

export interface TextFragment {
  readonly text: string;
  /** Nothing precedes it, not even a token. */
  readonly isFirst: boolean;
  /** It goes on with text whose ids are settled: no space is put before it. Default false. */
  readonly continues?: boolean;
}

/** UTF-16 units [start, end) in which control tokens count. Ranges are in order and do not touch. */
export interface TrustedRange {
  readonly start: number;
  readonly end: number;
}

/** Finds special tokens in text: leftmost first, the longest at each place. Linear in the text for short tokens. */
export class SpecialSplitter {
  readonly #trie: TextTrie<SpecialToken>;

  constructor(tokens: readonly SpecialToken[]) {
    this.#trie = new TextTrie(tokens.map((token): [string, SpecialToken] => [token.text, token]));
  }

  /** Control tokens are found in `trusted` ranges only, user-defined tokens everywhere. */
  split(text: string, trusted: readonly TrustedRange[]): Fragment[] {
    const fragments: Fragment[] = [];
    const endOfTrust = trustReader(trusted);
    let textStart = 0;
    for (let position = this.#trie.next(text, 0); position >= 0; ) {
      const match = this.#match(text, position, endOfTrust(position));
      if (match === null) {
        position = this.#trie.next(text, position + 1);
        continue;
      }
      const before = text.slice(textStart, match.start);
      pushText(fragments, match.value.stripLeft ? before.replace(/\p{White_Space}+$/u, '') : before);
      fragments.push({ id: match.value.id });
      textStart = match.value.stripRight ? skipSpace(text, match.end) : match.end;
      position = this.#trie.next(text, textStart);
    }
    pushText(fragments, text.slice(textStart));
    return fragments;
  }

  #match(text: string, position: number, trustedEnd: number): TextMatch<SpecialToken> | null {
    return this.#trie.longest(text, position, (token, end) => !token.control || end <= trustedEnd);
  }
}

/** Reads ranges by ascending position: where the range around a position ends, -1 outside all of them. */
function trustReader(ranges: readonly TrustedRange[]): (position: number) => number {
  let at = 0;
  return (position) => {
    let range = ranges[at];
    while (range !== undefined && range.end <= position) {
      at += 1;
      range = ranges[at];
    }
    return range !== undefined && range.start <= position ? range.end : -1;
  };
}

function skipSpace(text: string, start: number): number {
  let end = start;
  while (end < text.length && /\p{White_Space}/u.test(text.charAt(end))) end += 1;
  return end;
}

function pushText(fragments: Fragment[], text: string): void {
  if (text !== '') fragments.push({ text, isFirst: fragments.length === 0 });
}
