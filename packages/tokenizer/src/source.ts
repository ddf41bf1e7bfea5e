/**
 * Where a vocabulary and a chat template come from. Taken structurally, so that whoever reads files need not be known
 * here.
 */
export type TokenizerSource = GgufSource | HuggingFaceSource;

/** GGUF key-value metadata. Arrays may be plain or typed; 64-bit integers may be bigint. */
export interface GgufSource {
  readonly kind: 'gguf';
  readonly metadata: { get(key: string): unknown };
}

/** A directory with tokenizer.json and, where there are any, its configuration files. */
export interface HuggingFaceSource {
  readonly kind: 'huggingface';
  readonly directory: string;
}
