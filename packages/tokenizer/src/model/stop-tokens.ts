import { TOKEN_KINDS } from './tokenizer-model.ts';

/** Texts by which models of known families end a turn or an answer, where their metadata names only one such token. */
export const END_TEXTS: ReadonlySet<string> = new Set([
  '<|endoftext|>',
  '<|end_of_text|>',
  '<|eot_id|>',
  '<|eom_id|>',
  '<|im_end|>',
  '<|end|>',
  '<|return|>',
  '<|call|>',
  '<|user_end|>',
  '<end_of_turn>',
  '<turn|>',
  '<end_of_utterance>',
  '<EOT>',
  '[EOT]',
  '[EOS]',
  '<eos>',
  '</s>',
  '<｜end▁of▁sentence｜>',
  '[e~[',
]);

/**
 * Every id that ends a generation: those the metadata names, and control tokens known by their text. In a vocabulary
 * with `<|return|>` and `<|call|>` (harmony), `<|end|>` ends a message, not the answer.
 */
export function collectStopIds(
  named: readonly (number | null)[],
  texts: readonly string[],
  kinds: ArrayLike<number>,
): readonly number[] {
  const ids = new Set(named.filter((id) => id !== null));
  const isHarmony = hasControl('<|return|>') && hasControl('<|call|>');
  for (const [id, text] of texts.entries()) {
    if (kinds[id] !== TOKEN_KINDS.control || !END_TEXTS.has(text)) continue;
    if (text === '<|end|>' && isHarmony) continue;
    ids.add(id);
  }
  return [...ids].sort((a, b) => a - b);

  function hasControl(text: string): boolean {
    return kinds[texts.indexOf(text)] === TOKEN_KINDS.control;
  }
}
