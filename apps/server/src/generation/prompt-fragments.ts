import { spellMark, spellText, unspellText } from '@kvasir/engine';
import type { Fragment } from '@kvasir/tokenizer';

/** A prompt as the text index spells it, and where each of its fragments begins there. */
export interface SpelledPrompt {
  readonly text: string;
  /** (fragments + 1) characters before each, and of all. */
  readonly starts: readonly number[];
}

export function spellFragments(fragments: readonly Fragment[]): SpelledPrompt {
  const starts = [0];
  const parts = fragments.map((fragment) => {
    const part = 'id' in fragment ? spellMark(fragment.id) : spellText(fragment.text);
    starts.push((starts.at(-1) as number) + part.length);
    return part;
  });
  return { text: parts.join(''), starts };
}

/** The fragments from a character of the spelled prompt on; text that is cut goes on with `continues`. */
export function fragmentsFrom(
  fragments: readonly Fragment[],
  { text, starts }: SpelledPrompt,
  character: number,
): { readonly rest: readonly Fragment[]; readonly starts: readonly number[] } {
  let index = starts.findIndex((start) => start > character) - 1;
  if (index < 0) index = fragments.length;
  const from = starts[index] ?? text.length;
  const rest = fragments.slice(index);
  const restStarts = starts.slice(index);
  if (from < character) {
    const end = starts[index + 1] ?? text.length;
    rest[0] = { text: unspellText(text.slice(character, end)), isFirst: false, continues: true };
    restStarts[0] = character;
  }
  return { rest, starts: restStarts };
}
