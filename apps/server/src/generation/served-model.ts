import type { AgentDirectory, ChatTemplate, GenerationEngine, RunnerMemory } from '@kvasir/domain';
import type { TextTokenizer } from '@kvasir/tokenizer';
import type { PromptEncoder } from './prompt-encoder.ts';

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
  /** Text to ids, with the ids of earlier turns. */
  readonly prompts: PromptEncoder;
  readonly engine: GenerationEngine;
  /** null: none are kept (`memoryDir: none`). */
  readonly agents: AgentDirectory | null;
  /** Ids that end an answer. */
  readonly stopIds: readonly number[];
  /** What it takes of memory now. */
  memory(): RunnerMemory;
  /** Agents of all tenants. */
  countAgents(): number;
  /** Starts what the first requests would wait for, once they can come. Its failures are theirs too, and are logged. */
  warmUp(): void;
  /** Waits until what turns left to be saved is saved. Rejects with `aborted` when the signal comes first. */
  flush(signal: AbortSignal): Promise<void>;
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
