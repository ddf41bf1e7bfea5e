import { createHash } from 'node:crypto';
import { endianness } from 'node:os';
import type { Generation, PrefixReuse, ReuseLimit } from '@kvasir/domain';
import { spellMark, spellText, unspellText, type TextMark } from '@kvasir/engine';
import type { TextTokenizer } from '@kvasir/tokenizer';
import type { EncodedPrompt } from '../generation/prompt-encoder.ts';

/** What of a prompt was reused, and why no more: the `kvasir` field of an answer. */
export interface CacheReport {
  /** SHA-256 of the prompt's ids as little-endian 32-bit integers, in hex. */
  readonly prompt_hash: string;
  readonly cache: {
    readonly matched_tokens: number;
    readonly reused_tokens: number;
    readonly from: { readonly hot: number; readonly warm: number; readonly cold: number };
    readonly restored_bytes: { readonly warm: number; readonly cold: number };
    readonly restore_ms: number;
    readonly diverged_at: Divergence;
    readonly cause: ReuseLimit | 'template-stripped';
  };
}

/** The first token of the prompt that nothing known begins with, and what it belongs to. */
export interface Divergence {
  readonly token: number;
  /** `message`: the text of `message_index`. `template`: what the template writes around messages. `end`: there is none. */
  readonly where: 'message' | 'template' | 'end';
  readonly message_index?: number;
}

/** A message as the request had it; null text where it is none. */
export interface ReportedMessage {
  readonly role: string;
  readonly text: string | null;
}

const NO_REUSE: PrefixReuse = {
  matchedTokens: 0,
  reusedTokens: 0,
  fromTier: { hot: 0, warm: 0, cold: 0 },
  restoredBytes: { warm: 0, cold: 0 },
  restoreMs: 0,
  cause: 'cache-off',
};

/** @param messages of a chat; empty for a raw prompt, which counts as one message */
export function toCacheReport(
  generation: Generation,
  prompt: EncodedPrompt,
  messages: readonly ReportedMessage[],
  tokenizer: TextTokenizer,
): CacheReport {
  const reuse = generation.reuse ?? NO_REUSE;
  return {
    prompt_hash: hashOf(prompt.ids),
    cache: {
      matched_tokens: reuse.matchedTokens,
      reused_tokens: reuse.reusedTokens,
      from: { ...reuse.fromTier },
      restored_bytes: { ...reuse.restoredBytes },
      restore_ms: Math.round(reuse.restoreMs * 1000) / 1000,
      diverged_at: locate(prompt, reuse.matchedTokens, messages, tokenizer),
      cause: isStripped(prompt, reuse, messages) ? 'template-stripped' : reuse.cause,
    },
  };
}

/** The same for a header: `matched=12;reused=12;hot=12;warm=0;cold=0;at=12;where=message:2;cause=never-seen`. */
export function toCacheHeader({ cache }: CacheReport): string {
  const { from, diverged_at: at } = cache;
  const where = at.message_index === undefined ? at.where : `${at.where}:${at.message_index}`;
  return [
    `matched=${cache.matched_tokens}`,
    `reused=${cache.reused_tokens}`,
    `hot=${from.hot}`,
    `warm=${from.warm}`,
    `cold=${from.cold}`,
    `at=${at.token}`,
    `where=${where}`,
    `cause=${cache.cause}`,
  ].join(';');
}

function hashOf(ids: Int32Array): string {
  const bytes = Buffer.from(ids.buffer, ids.byteOffset, ids.byteLength);
  if (endianness() === 'BE') return createHash('sha256').update(Buffer.from(bytes).swap32()).digest('hex');
  return createHash('sha256').update(bytes).digest('hex');
}

/**
 * Whether the template is why no more matched: an earlier answer that the request repeats word for word stands in the
 * prompt in other words.
 */
function isStripped(prompt: EncodedPrompt, reuse: PrefixReuse, messages: readonly ReportedMessage[]): boolean {
  const { departed } = prompt;
  if (departed === null || reuse.cause !== 'never-seen') return false;
  const answer = unspellText(departed.answer).trim();
  return messages.some(({ role, text }) => role === 'assistant' && text !== null && text.trim() === answer);
}

function locate(
  prompt: EncodedPrompt,
  token: number,
  messages: readonly ReportedMessage[],
  tokenizer: TextTokenizer,
): Divergence {
  const { ids, text } = prompt;
  if (token >= ids.length) return { token, where: 'end' };
  if (text === null || messages.length === 0) return { token, where: 'message', message_index: 0 };
  const character = characterAt(prompt, token, tokenizer);
  const index = messageAt(text, messages, character);
  return index === null ? { token, where: 'template' } : { token, where: 'message', message_index: index };
}

/** Where the token begins in the spelled text, from the mark before it on. */
function characterAt({ ids, marks }: EncodedPrompt, token: number, tokenizer: TextTokenizer): number {
  const mark: TextMark = marks.findLast(({ tokens }) => tokens <= token) ?? { characters: 0, tokens: 0 };
  const between = ids.subarray(mark.tokens, token);
  let characters = mark.characters;
  let decoder = tokenizer.createDetokenizer({ continues: true });
  for (const id of between) {
    if (tokenizer.isSpecialId(id)) {
      characters += spellMark(id).length;
      decoder = tokenizer.createDetokenizer({ continues: true });
    } else characters += spellText(decoder.push(id)).length;
  }
  return characters;
}

/**
 * Whose text a character is in. Messages are looked for in order, as they stand or without the white space around them;
 * one that the template wrote otherwise is taken for the template's.
 */
function messageAt(text: string, messages: readonly ReportedMessage[], character: number): number | null {
  let from = 0;
  for (const [index, message] of messages.entries()) {
    const content = spellText(message.text?.trim() ?? '');
    const start = content === '' ? -1 : text.indexOf(content, from);
    if (start < 0) continue;
    if (character < start) return null;
    from = start + content.length;
    if (character < from) return index;
  }
  return null;
}
