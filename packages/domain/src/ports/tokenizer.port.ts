import type { CancellationSignal } from './cancellation-signal.ts';
/** Text to token ids and back. Encoding may run on another thread: it never blocks the caller for a long text. */
export interface Tokenizer {
  readonly info: TokenizerInfo;

  /**
   * @param special whether special tokens written in the text (`<|im_start|>`) become their ids; false for untrusted text
   * @throws KvasirError `deadline-exceeded`, `request-too-large`, `aborted`
   */
  encode(text: string, options: EncodeOptions): Promise<Int32Array>;

  /** Bytes of one token, exactly: invalid UTF-8 is possible and kept. Special tokens give their text. */
  tokenBytes(tokenId: number): Uint8Array;

  /** A new streaming decoder. */
  createDetokenizer(options?: { readonly skipSpecial?: boolean }): Detokenizer;

  dispose(): Promise<void>;
}

export interface EncodeOptions {
  readonly special: boolean;
  /** Adds what the model's metadata asks for (BOS, EOS) around the text. */
  readonly addBosEos: boolean;
  readonly signal?: CancellationSignal;
}

export interface TokenizerInfo {
  readonly vocabularySize: number;
  readonly bosId: number | null;
  readonly eosId: number | null;
  /** Every id that ends a generation: EOS, end of turn. */
  readonly stopIds: readonly number[];
  readonly addBos: boolean;
  readonly addEos: boolean;
}

/**
 * Token ids to text, one at a time. A character split over tokens is held back until it is whole; bytes that can never
 * become valid are emitted as U+FFFD, so an invalid byte does not block the stream.
 */
export interface Detokenizer {
  /** Text that became complete with this token; may be empty. */
  push(tokenId: number): string;
  /** What is still held back at the end, invalid bytes as U+FFFD. */
  flush(): string;
}
