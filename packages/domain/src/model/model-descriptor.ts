import type { TensorDType } from './dtype.ts';

/**
 * A model as data: everything a backend needs to compute it, and nothing it would have to know by name. `models` builds
 * one from a file's metadata; a backend interprets it. A new architecture is a new builder there, not a branch here.
 */
export interface ModelDescriptor {
  /** Family the builder recognised, for people (`llama`, `qwen2`, `qwen3`); backends must not branch on it. */
  readonly architecture: string;
  readonly name: string;
  readonly vocabularySize: number;
  readonly hiddenSize: number;
  /** Longest context the model was made for, in tokens. */
  readonly contextLength: number;
  readonly normEpsilon: number;
  /** Multiplies the token embedding (Gemma); 1 otherwise. */
  readonly embeddingScale: number;
  /** Multiplies the logits; 1 otherwise. */
  readonly logitScale: number;
  /** cap * tanh(logit / cap) when present. */
  readonly finalLogitSoftcap?: number;
  readonly tiedEmbeddings: boolean;
  readonly layers: readonly LayerDescriptor[];
  readonly ropes: readonly RopeDescriptor[];
  /** Tensors by (layer, role); `layer` is null for the model's own. */
  readonly tensors: readonly TensorDescriptor[];
  /** Absolute paths; `TensorDescriptor.file` indexes them. */
  readonly files: readonly string[];
}

export interface LayerDescriptor {
  /** Layer group: layers of one group share block ids and a pool. Groups are numbered from 0. */
  readonly group: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly attention: AttentionKind;
  /** Index into `ModelDescriptor.ropes`, or null for no position encoding. */
  readonly rope: number | null;
  /** Multiplies q·k; usually 1/sqrt(headDim). */
  readonly softmaxScale: number;
  readonly logitSoftcap?: number;
  readonly feedForward: FeedForward;
}

export type AttentionKind =
  | { readonly kind: 'full' }
  /** A token attends to itself and the `windowTokens - 1` tokens before it. */
  | { readonly kind: 'sliding-window'; readonly windowTokens: number };

export type Activation = 'silu' | 'gelu-tanh' | 'swiglu-oai';

export type FeedForward =
  | { readonly kind: 'dense'; readonly size: number; readonly activation: Activation }
  | {
      readonly kind: 'routed';
      readonly size: number;
      readonly activation: Activation;
      readonly numExperts: number;
      readonly numExpertsUsed: number;
    };

/** A position encoding, already worked out: every scaling recipe ends as a table of frequencies. */
export interface RopeDescriptor {
  /** `halves` pairs (i, i + rotaryDim/2); `interleaved` pairs (2i, 2i+1). */
  readonly style: 'halves' | 'interleaved';
  readonly rotaryDim: number;
  /** (rotaryDim / 2) radians per position. */
  readonly inverseFrequencies: Float64Array;
  /** Multiplies cos and sin (YaRN's mscale); 1 otherwise. */
  readonly attentionFactor: number;
}

export const TENSOR_ROLES = [
  'token-embedding',
  'output-norm',
  'output',
  'attn-norm',
  'attn-q',
  'attn-k',
  'attn-v',
  'attn-q-bias',
  'attn-k-bias',
  'attn-v-bias',
  'attn-q-norm',
  'attn-k-norm',
  'attn-output',
  'attn-output-bias',
  'attn-sinks',
  'attn-post-norm',
  'ffn-norm',
  'ffn-gate',
  'ffn-up',
  'ffn-down',
  'ffn-gate-bias',
  'ffn-up-bias',
  'ffn-down-bias',
  'ffn-router',
  'ffn-router-bias',
  'ffn-post-norm',
] as const;

export type TensorRole = (typeof TENSOR_ROLES)[number];

/** Where one tensor lies. A fused tensor in a file appears as several of these with different offsets. */
export interface TensorDescriptor {
  /** The file's own name for it, for messages. */
  readonly name: string;
  readonly role: TensorRole;
  readonly layer: number | null;
  readonly dtype: TensorDType;
  /** Row-major, outermost first: a matrix is (rows, columns), its columns contiguous. */
  readonly shape: readonly number[];
  readonly file: number;
  /** Bytes from the file's start. */
  readonly offset: number;
  readonly byteLength: number;
}
