import type { AgentTurnInProgress, SamplingParams } from '@kvasir/domain';
import type { EncodedPrompt } from './prompt-encoder.ts';

/** What both endpoints ask of the engine, already checked. */
export interface GenerationPlan {
  /** One prompt or several; each gets `numChoices` choices, numbered prompt by prompt. */
  readonly prompts: readonly EncodedPrompt[];
  readonly numChoices: number;
  readonly sampling: Omit<SamplingParams, 'seed'>;
  readonly seed: number;
  /** null: until the context is full. */
  readonly maxTokens: number | null;
  readonly stops: readonly string[];
  readonly ignoreEos: boolean;
  /** The output goes on after the prompt's text rather than beginning one. */
  readonly continues: boolean;
  /** Whose prefixes are used and added to. */
  readonly tenant: string;
  /** The agent whose turn this is: one prompt with one choice. Taken over: it ends with the stream. */
  readonly turn: AgentTurnInProgress | null;
}
