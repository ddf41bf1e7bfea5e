import type { CancellationSignal, Detokenizer, PromptSegment, Tokenizer } from '@kvasir/domain';
import type { Fragment } from './encode/special-splitter.ts';

export interface TokenizerOptions {
  /** Longest text accepted, in UTF-16 units. Default 8 Mi; beyond it `request-too-large`. */
  readonly maxCharacters?: number;
  /** Longest time one encoding may run in the worker before it is stopped with `deadline-exceeded`. Default 30 000. */
  readonly deadlineMs?: number;
  /** Texts up to this many UTF-16 units are encoded on the caller's thread. Default 4096. */
  readonly inlineCharacters?: number;
  /** Bound on the memory that cached segments take. Default 16 MiB; 0 caches nothing. */
  readonly cacheBytes?: number;
}

export interface DetokenizerOptions {
  /** Special tokens give no text. Default false. */
  readonly skipSpecial?: boolean;
  /**
   * The tokens go on after other text (a completion of a prompt): the space that SentencePiece puts before a text's
   * first word is kept. Default false: the tokens begin a text.
   */
  readonly continues?: boolean;
}

export interface EncodeSegmentsOptions {
  /** Adds what the model's metadata asks for, unless the segments already begin or end with it. */
  readonly addBosEos: boolean;
  readonly signal?: CancellationSignal;
}

export interface SplitOptions {
  /** What the metadata asks for before and after a text: never, where it is not written out already, or in any case. */
  readonly bosEos: 'never' | 'missing' | 'always';
  readonly signal?: CancellationSignal;
}

/** The Tokenizer port and what this package adds to it. */
export interface TextTokenizer extends Tokenizer {
  /** Every control token's text: what a chat template may write and a user may not. */
  readonly specialTexts: readonly string[];

  /**
   * Ids of a rendered prompt. Special tokens end a segment, and each segment between two of them is encoded by itself
   * and cached, so a turn keeps its ids whatever follows it.
   * @throws KvasirError as `encode` does
   */
  encodeSegments(segments: readonly PromptSegment[], options: EncodeSegmentsOptions): Promise<Int32Array>;

  /**
   * The same in two halves: first the special tokens and the text between them, then the ids of each. Whoever knows the
   * ids of leading fragments encodes only the rest; a text cut in two goes on with `continues`.
   * @throws KvasirError as `encode` does
   */
  splitSegments(segments: readonly PromptSegment[], options: SplitOptions): Promise<readonly Fragment[]>;
  encodeFragments(fragments: readonly Fragment[], signal?: CancellationSignal): Promise<readonly ArrayLike<number>[]>;

  /** Whether the id is one that `splitSegments` finds in text: a control or a user-defined token. */
  isSpecialId(tokenId: number): boolean;

  /** Ids to text at once: what a detokenizer that saw them all would have given. */
  decode(tokenIds: ArrayLike<number>, options?: DetokenizerOptions): string;

  createDetokenizer(options?: DetokenizerOptions): Detokenizer;

  /** The id whose text is exactly `text` among special and user-defined tokens, or null. */
  specialId(text: string): number | null;
}
