import type { Detokenizer, Generation, GenerationBatch, KvasirError, TokenLogprob } from '@kvasir/domain';
import type { StopMatcher } from '@kvasir/tokenizer';

/** Text that became certain with one batch of tokens, and how the choice ended where it did. */
export interface TextPiece {
  readonly choice: number;
  readonly text: string;
  /** The tokens behind `text`; empty unless log-probabilities were asked for. */
  readonly tokens: readonly TextToken[];
  readonly finish: TextFinish | null;
}

export type TextFinish =
  | { readonly reason: 'stop' | 'length' }
  | { readonly reason: 'failed'; readonly error: KvasirError | null };

export interface TextToken {
  readonly tokenId: number;
  readonly logprob: number;
  readonly topLogprobs: readonly TokenLogprob[];
  /** UTF-16 offset in the choice's text. */
  readonly textOffset: number;
}

/**
 * One generation as text: decodes its tokens, looks for stop strings, and keeps a token's log-probability back exactly
 * as long as its text. A stop string ends the generation; what was sampled past it is dropped.
 */
export class TextChoice {
  readonly index: number;
  readonly generation: Generation;
  readonly #detokenizer: Detokenizer;
  readonly #stops: StopMatcher;
  readonly #heldTokens: (TextToken & { readonly end: number })[] = [];
  #decodedCharacters = 0;
  /** Characters given out: no longer part of a possible stop string. */
  #certainCharacters = 0;
  #sumLogprob = 0;
  #numLogprobs = 0;
  #isFinished = false;
  readonly #tokenIds: number[] = [];
  #visibleCharacters: number | null = null;

  constructor(index: number, generation: Generation, detokenizer: Detokenizer, stops: StopMatcher) {
    this.index = index;
    this.generation = generation;
    this.#detokenizer = detokenizer;
    this.#stops = stops;
  }

  get isFinished(): boolean {
    return this.#isFinished;
  }

  /** What was sampled, and the length of the text where a stop string ended it; null: nothing was cut. */
  get answer(): { readonly tokenIds: readonly number[]; readonly visibleCharacters: number | null } {
    return { tokenIds: this.#tokenIds, visibleCharacters: this.#visibleCharacters };
  }

  /** Mean log-probability of the tokens so far: how best_of ranks; -Infinity without any. */
  get meanLogprob(): number {
    return this.#numLogprobs === 0 ? Number.NEGATIVE_INFINITY : this.#sumLogprob / this.#numLogprobs;
  }

  /** @returns null when nothing became certain */
  push(batch: GenerationBatch): TextPiece | null {
    if (this.#isFinished) return null;
    let text = '';
    for (const token of batch.tokens) {
      this.#tokenIds.push(token.tokenId);
      const decoded = this.#detokenizer.push(token.tokenId);
      if (token.logprob !== null) this.#hold(token.tokenId, token.logprob, token.topLogprobs ?? [], decoded.length);
      this.#decodedCharacters += decoded.length;
      if (decoded === '') continue;
      const match = this.#stops.push(decoded);
      text += match.text;
      if (match.stop !== null) {
        this.generation.finish();
        this.#visibleCharacters = match.emittedCharacters;
        return this.#end(text, match.emittedCharacters, { reason: 'stop' });
      }
      this.#certainCharacters = match.emittedCharacters;
    }
    const { finish } = batch;
    if (finish === null)
      return this.#piece(
        text,
        this.#release((token) => token.textOffset < this.#certainCharacters && token.end <= this.#certainCharacters),
        null,
      );
    if (finish.reason === 'error') return this.#end(text, 0, { reason: 'failed', error: finish.error });
    if (finish.reason === 'abort') return this.#end(text, 0, { reason: 'failed', error: null });
    const last = this.#stops.push(this.#detokenizer.flush());
    text += last.text;
    if (last.stop !== null) {
      this.#visibleCharacters = last.emittedCharacters;
      return this.#end(text, last.emittedCharacters, { reason: 'stop' });
    }
    text += this.#stops.flush();
    return this.#end(text, Number.POSITIVE_INFINITY, { reason: finish.reason });
  }

  #hold(tokenId: number, logprob: number, topLogprobs: readonly TokenLogprob[], length: number): void {
    const textOffset = this.#decodedCharacters;
    this.#heldTokens.push({ tokenId, logprob, topLogprobs, textOffset, end: textOffset + length });
    this.#sumLogprob += logprob;
    this.#numLogprobs += 1;
  }

  #end(text: string, emittedCharacters: number, finish: TextFinish): TextPiece | null {
    this.#isFinished = true;
    return this.#piece(
      text,
      this.#release((token) => token.textOffset < emittedCharacters),
      finish,
    );
  }

  #release(isCertain: (token: { textOffset: number; end: number }) => boolean): TextToken[] {
    const firstHeld = this.#heldTokens.findIndex((token) => !isCertain(token));
    return this.#heldTokens.splice(0, firstHeld < 0 ? this.#heldTokens.length : firstHeld);
  }

  #piece(text: string, tokens: readonly TextToken[], finish: TextFinish | null): TextPiece | null {
    return text === '' && tokens.length === 0 && finish === null ? null : { choice: this.index, text, tokens, finish };
  }
}
