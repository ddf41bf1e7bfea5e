import type { Detokenizer } from '@kvasir/domain';
import type { DetokenizerOptions } from '../text-tokenizer.ts';

/** What a detokenizer needs to know of a vocabulary. */
export interface TokenTexts {
  /** @throws KvasirError `invalid-argument` for an id out of range */
  tokenBytes(tokenId: number): Uint8Array;
  isSpecial(tokenId: number): boolean;
  /** Whether texts begin with a space their author did not write. */
  readonly hasSpacePrefix: boolean;
}

const SPACE = 0x20;

/**
 * Decodes through the platform's streaming TextDecoder, which holds a character back until it is whole and gives one
 * U+FFFD for each maximal part of a broken one. A byte order mark inside a text is text.
 */
export function createDetokenizer(tokens: TokenTexts, options: DetokenizerOptions = {}): Detokenizer {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  const skipSpecial = options.skipSpecial ?? false;
  let dropsSpace = tokens.hasSpacePrefix && !(options.continues ?? false);

  return {
    push(tokenId) {
      const bytes = tokens.tokenBytes(tokenId);
      if (skipSpecial && tokens.isSpecial(tokenId)) return '';
      const isFirst = dropsSpace && bytes.length > 0;
      if (isFirst) dropsSpace = false;
      return decoder.decode(isFirst && bytes[0] === SPACE ? bytes.subarray(1) : bytes, { stream: true });
    },
    flush() {
      return decoder.decode();
    },
  };
}
