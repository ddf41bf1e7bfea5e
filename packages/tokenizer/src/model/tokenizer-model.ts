/** What a token is for; the numbers are GGUF's (`tokenizer.ggml.token_type`). */
export const TOKEN_KINDS = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/**
 * A vocabulary and its rules as plain data. Everything long lies in shared memory, so the worker that encodes long texts
 * costs no second copy.
 */
export interface TokenizerModel {
  readonly vocabulary: VocabularyTable;
  readonly algorithm: MergeAlgorithm;
  /** Applied to the text between special tokens, in order. */
  readonly normalizers: readonly Normalizer[];
  /** Each stage splits the pieces of the one before; what a pattern leaves between its matches is a piece too. */
  readonly splits: readonly SplitStage[];
  /** Tokens that are looked for in the text before anything else. */
  readonly special: readonly SpecialToken[];
  /** (256) id of the token that stands for one byte, -1 where there is none. */
  readonly byteIds: Int32Array;
  /** -1 where the vocabulary has none. */
  readonly unknownId: number;
  /** Ids put before and after a text where `addBosEos` asks for it. */
  readonly prefixIds: readonly number[];
  readonly suffixIds: readonly number[];
  readonly bosId: number | null;
  readonly eosId: number | null;
  readonly stopIds: readonly number[];
  /** Texts begin with a space the author did not write: decoding from the start takes it away again. */
  readonly hasSpacePrefix: boolean;
}

export interface VocabularyTable {
  readonly size: number;
  /** Token bytes back to back. SentencePiece vocabularies spell a space U+2581. */
  readonly bytes: Uint8Array;
  /** (size + 1) */
  readonly offsets: Uint32Array;
  /** (size) TOKEN_KINDS */
  readonly kinds: Uint8Array;
  /** Open-addressing hash table of ids + 1, its length a power of two; control tokens are not in it. */
  readonly index: Int32Array;
  /** Bytes of the longest indexed token: no longer span can be one. */
  readonly maxTokenBytes: number;
  /** Whether U+2581 in a token's bytes stands for a space. */
  readonly escapesSpaces: boolean;
}

export type MergeAlgorithm =
  /** Byte-pair merges by rank. `symbols`: a piece starts as its bytes, or as its characters with bytes as a fallback. */
  | {
      readonly kind: 'ranked';
      readonly symbols: 'bytes' | 'characters';
      readonly merges: MergeTable;
      /** A piece that is a token as a whole is not merged. */
      readonly wholePieceFirst: boolean;
    }
  /** SentencePiece: neighbours whose joined text is a token merge, best score first. (size) order: lower merges earlier. */
  | { readonly kind: 'scored'; readonly order: Int32Array };

export interface MergeTable {
  /** (numMerges) token ids by rank. */
  readonly left: Int32Array;
  readonly right: Int32Array;
  readonly merged: Int32Array;
  /** Open-addressing hash table of ranks + 1 by (left, right), its length a power of two. */
  readonly index: Int32Array;
}

export type Normalizer =
  | { readonly kind: 'unicode'; readonly form: 'NFC' | 'NFD' | 'NFKC' | 'NFKD' }
  | { readonly kind: 'prepend'; readonly text: string }
  | { readonly kind: 'replace'; readonly pattern: RegExp; readonly replacement: string }
  /** Puts `text` before what does not begin with it: before every stretch of text, or only at the very beginning. */
  | { readonly kind: 'prepend-missing'; readonly text: string; readonly onlyFirst: boolean };

/**
 * One split. `isolate`: matches and what lies between them are pieces; `remove`: only what lies between is.
 * The pattern is global and sees one piece at a time, so its lookaheads end where the piece does.
 */
export interface SplitStage {
  readonly pattern: RegExp;
  readonly behavior: 'isolate' | 'remove';
}

export interface SpecialToken {
  readonly id: number;
  readonly text: string;
  /** Control tokens are only looked for in trusted text; user-defined ones always. */
  readonly control: boolean;
  /** Swallow white space before or after the token. */
  readonly stripLeft: boolean;
  readonly stripRight: boolean;
}
