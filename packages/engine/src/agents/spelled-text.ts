// Text in which special tokens are marks of three units that no text can spell: U+0000, then the id in two units. A U+0000
// of the text itself is spelled U+0000 U+0001. What looks like a special token and what is one are so told apart by
// comparing texts.

const NUL = '\u0000';
const FIRST_UNIT = 0x100;
const MARK_UNITS = 3;

export function spellMark(tokenId: number): string {
  return NUL + String.fromCharCode(FIRST_UNIT + (tokenId >> 12), FIRST_UNIT + (tokenId & 0xfff));
}

export function spellText(text: string): string {
  return text.includes(NUL) ? text.replaceAll(NUL, `${NUL}\u0001`) : text;
}

/** Text as it was before `spellText`; marks are not for this. */
export function unspellText(spelled: string): string {
  return spelled.includes(NUL) ? spelled.replaceAll(`${NUL}\u0001`, NUL) : spelled;
}

export type SpelledPart = { readonly text: string } | { readonly id: number };

/** Marks, and the text between them as it is spelled. */
export function* partsOf(spelled: string): Generator<SpelledPart> {
  let start = 0;
  for (let at = spelled.indexOf(NUL); at >= 0; at = spelled.indexOf(NUL, at)) {
    if (!isMarkAt(spelled, at)) {
      at += 2;
      continue;
    }
    if (at > start) yield { text: spelled.slice(start, at) };
    yield { id: ((spelled.charCodeAt(at + 1) - FIRST_UNIT) << 12) + (spelled.charCodeAt(at + 2) - FIRST_UNIT) };
    at += MARK_UNITS;
    start = at;
  }
  if (start < spelled.length) yield { text: spelled.slice(start) };
}

/** Whether a mark begins there, or the text ends. */
export function isMarkAt(spelled: string, position: number): boolean {
  return position === spelled.length || (spelled[position] === NUL && spelled[position + 1] !== '\u0001');
}

/** The position itself, or the start of the mark or spelled U+0000 it lies in. */
export function wholeMarks(spelled: string, position: number): number {
  if (spelled[position - 1] === NUL) return position - 1;
  if (spelled[position - 2] === NUL && spelled[position - 1] !== '\u0001') return position - 2;
  return position;
}

/** Where the last mark ends, 0 without one. */
export function lastMarkEnd(spelled: string): number {
  for (let at = spelled.lastIndexOf(NUL); at >= 0; at = spelled.lastIndexOf(NUL, at - 1)) {
    if (isMarkAt(spelled, at)) return at + MARK_UNITS;
    if (at === 0) return 0;
  }
  return 0;
}

/** Whether cutting there would cut a word, a character, or a mark. */
export function isWordCut(spelled: string, position: number): boolean {
  if (position <= 0 || position >= spelled.length || isMarkAt(spelled, position)) return false;
  if (wholeMarks(spelled, position) !== position || isLowSurrogate(spelled.charCodeAt(position))) return true;
  if (isAfterMark(spelled, position)) return false;
  const before = characterBefore(spelled, position);
  const after = String.fromCodePoint(spelled.codePointAt(position) as number);
  return WORD.test(before) && WORD.test(after);
}

const WORD = /^[\p{L}\p{N}\p{M}]$/u;

function isAfterMark(spelled: string, position: number): boolean {
  return spelled[position - MARK_UNITS] === NUL && spelled[position - 2] !== '\u0001';
}

function isLowSurrogate(unit: number): boolean {
  return unit >= 0xdc00 && unit <= 0xdfff;
}

function characterBefore(text: string, position: number): string {
  const start = isLowSurrogate(text.charCodeAt(position - 1)) && position >= 2 ? position - 2 : position - 1;
  return text.slice(start, position);
}
