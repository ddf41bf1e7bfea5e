import type { ModelDescriptor, TensorDType } from '@kvasir/domain';
import type { GgufMetadata } from './gguf/gguf-value.ts';
import type { UnsupportedDType } from './stored-dtype.ts';

/** An opened model: its headers were read and checked, none of its weights. Holds no file handle. */
export type ModelFile = GgufModelFile | HuggingFaceModelFile;

export interface GgufModelFile extends ModelFileBase {
  readonly format: 'gguf';
  /** Key-value section (of the first shard where the model is split). */
  readonly metadata: GgufMetadata;
  readonly tokenizerSource: { readonly kind: 'gguf'; readonly metadata: GgufMetadata };
}

export interface HuggingFaceModelFile extends ModelFileBase {
  readonly format: 'safetensors';
  /** config.json */
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly tokenizerSource: { readonly kind: 'huggingface'; readonly directory: string };
}

export type TokenizerSource = ModelFile['tokenizerSource'];

export interface ModelFileBase {
  /** The .gguf file (first shard) or the Hugging Face directory, absolute. */
  readonly path: string;
  /** `general.name`, or the directory's name. */
  readonly name: string;
  /** What the file calls its architecture: `general.architecture`, or the first of `architectures`. */
  readonly architecture: string;
  /** Weight files, absolute, in shard order; `StoredTensor.file` indexes them. Empty for a vocabulary-only directory. */
  readonly files: readonly string[];
  /** Bytes of each of `files`. */
  readonly fileSizes: readonly number[];
  /** Every tensor as stored, in file order. Empty for vocabulary-only files. */
  readonly tensors: readonly StoredTensor[];
  /** Jinja templates by name; the one used when none is asked for is called `default`. Empty when the model has none. */
  readonly chatTemplates: ReadonlyMap<string, string>;
  readonly generationConfig: GenerationConfig;

  /**
   * The model as data, worked out anew at each call.
   * @throws KvasirError `unsupported-model` (architecture or a feature of it; lists what is supported),
   *   `unsupported-format` (a tensor's dtype), `file-corrupt` (hyperparameters or shapes that contradict each other),
   *   `file-truncated` or `file-unreadable` (RoPE factors are read from the weights)
   */
  descriptor(): ModelDescriptor;
}

export interface StoredTensor {
  readonly name: string;
  readonly dtype: TensorDType | UnsupportedDType;
  /** Row-major, outermost first. */
  readonly shape: readonly number[];
  readonly file: number;
  /** Bytes from the file's start. */
  readonly offset: number;
  readonly byteLength: number;
}

/** What the model's makers say about ending a generation; empty or null where they say nothing. */
export interface GenerationConfig {
  /** Ids that end a generation, as listed by the file; the tokenizer may know more by their text. */
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | null;
}
