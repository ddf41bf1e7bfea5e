import { spellMark, spellText } from '@kvasir/engine';
import type { TextTokenizer } from '@kvasir/tokenizer';

/** What an answer's tokens spell, for the text index and for the agent whose turn it was. */
export interface AnswerText {
  /** Spelled, up to where the client's ends: at a stop string, or before a token that is hidden from it. */
  readonly text: string;
  /** Characters of each token that lies wholly in `text`; -1 for one that ends inside a character. */
  readonly lengths: readonly number[];
  /** Leading tokens the agent keeps: all, or those wholly before the stop string. */
  readonly keptTokens: number;
}

type AnswerTokenizer = Pick<TextTokenizer, 'createDetokenizer' | 'isSpecialId' | 'tokenBytes'>;

/**
 * @param visibleCharacters of the client's text where a stop string ended it; null: it saw everything
 * @param continues as the client's text was decoded
 */
export function spellAnswer(
  tokenizer: AnswerTokenizer,
  tokenIds: ArrayLike<number>,
  visibleCharacters: number | null,
  continues: boolean,
): AnswerText {
  // The client's decoder may drop a first space and hides special tokens; the index wants what the tokens really say.
  const client = tokenizer.createDetokenizer({ skipSpecial: true, continues });
  let own = tokenizer.createDetokenizer({ skipSpecial: true, continues: true });
  const openEnd = new OpenCharacter();
  const lengths: number[] = [];
  const texts: string[] = [];
  let clientCharacters = 0;
  let [keptTokens, knownTokens] = [0, 0];
  let isHidden = false;
  for (let index = 0; index < tokenIds.length; index += 1) {
    const tokenId = tokenIds[index] as number;
    const shown = client.push(tokenId);
    const spoken = own.push(tokenId);
    const isSpecial = tokenizer.isSpecialId(tokenId);
    const bytes = tokenizer.tokenBytes(tokenId);
    clientCharacters += shown.length;
    openEnd.push(bytes);
    isHidden ||= spoken === '' && bytes.length > 0 && !openEnd.isOpen;
    const text = isSpecial ? spellMark(tokenId) : spellText(spoken);
    if (visibleCharacters !== null && clientCharacters > visibleCharacters) {
      const extra = clientCharacters - visibleCharacters;
      if (!isHidden && !isSpecial) texts.push(spellText(shown.slice(0, Math.max(0, shown.length - extra))));
      break;
    }
    if (isSpecial) own = tokenizer.createDetokenizer({ skipSpecial: true, continues: true });
    if (!isHidden) {
      texts.push(text);
      lengths.push(openEnd.isOpen ? -1 : text.length + heldBack(lengths, texts));
    }
    if (visibleCharacters === null || !openEnd.isOpen) {
      keptTokens = index + 1;
      knownTokens = lengths.length;
    }
  }
  if (visibleCharacters === null && !isHidden) closeLast(own.flush(), texts, lengths);
  return { text: texts.join(''), lengths: lengths.slice(0, knownTokens), keptTokens };
}

/** Characters of the tokens right before that ended inside one and so have not been counted. */
function heldBack(lengths: readonly number[], texts: readonly string[]): number {
  let characters = 0;
  for (let index = lengths.length - 1; index >= 0 && lengths[index] === -1; index -= 1) {
    characters += texts[index]?.length ?? 0;
  }
  return characters;
}

/** What is left of a character at the end shows as U+FFFD and belongs to the last token. */
function closeLast(flushed: string, texts: string[], lengths: number[]): void {
  const last = lengths.length - 1;
  if (last < 0) return;
  texts[last] += spellText(flushed);
  if (lengths[last] === -1) {
    lengths[last] = (texts[last] as string).length + heldBack(lengths.slice(0, last), texts);
  } else lengths[last] = (lengths[last] as number) + spellText(flushed).length;
}

/** Whether bytes so far end inside a UTF-8 character that may still become whole. */
class OpenCharacter {
  #tail: number[] = [];

  push(bytes: Uint8Array): void {
    this.#tail = [...this.#tail, ...bytes.subarray(-3)].slice(-3);
  }

  get isOpen(): boolean {
    for (let back = 1; back <= this.#tail.length; back += 1) {
      const byte = this.#tail[this.#tail.length - back] as number;
      if (byte >= 0x80 && byte < 0xc0) continue;
      const length = byte >= 0xf0 && byte < 0xf5 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 1;
      return byte < 0xf5 && length > back;
    }
    return false;
  }
}
