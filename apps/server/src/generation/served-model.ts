import type { ChatTemplate, GenerationEngine, RunnerMemory } from '@kvasir/domain';
import type { TextTokenizer } from '@kvasir/tokenizer';

/** A loaded model with everything that turns requests into tokens and back. */
export interface ServedModel {
  /** What requests call it; `default` names it too. */
  readonly name: string;
  /** Unix seconds. */
  readonly created: number;
  readonly facts: ModelFacts;
  readonly tokenizer: TextTokenizer;
  /** null: the model has none and answers completions only. */
  readonly template: ChatTemplate | null;
  readonly engine: GenerationEngine;
  /** Ids that end an answer. */
  readonly stopIds: readonly number[];
  /** What it takes of memory now. */
  memory(): RunnerMemory;
}

export interface ModelFacts {
  readonly architecture: string;
  /** Longest prompt plus output, in tokens. */
  readonly contextLength: number;
  readonly vocabularySize: number;
  readonly backend: string;
  readonly device: string;
  /** Changes whenever output bits can; reported as system_fingerprint. */
  readonly numericsId: string;
  readonly kvDType: string;
}
