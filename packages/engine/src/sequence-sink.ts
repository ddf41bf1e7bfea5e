import type { GenerationFinish, PrefixReuse, StepResult } from '@kvasir/domain';

/** A row of a step's result, as it is dealt out: valid during the call only. */
export interface SettledRow {
  readonly result: StepResult;
  readonly row: number;
  /** The row's first token in the batch, how many it carries, and the first one's position in the sequence. */
  readonly firstToken: number;
  readonly count: number;
  readonly position: number;
  /** Index of the row's first logits row; those of one sequence are consecutive. */
  readonly firstLogitsRow: number;
}

/** Where a sequence's results go. Methods are called while a step is dealt out and must not call the engine. */
export interface SequenceSink {
  /** An accepted output. */
  onToken(row: SettledRow, tokenId: number, index: number): void;
  /** Tokens of a sequence that is scored or read for its logits. */
  onTokens(row: SettledRow): void;
  /** What of its tokens had KV already; again after a preemption. */
  onReuse(reuse: PrefixReuse): void;
  onAdmit(): void;
  onPreempt(): void;
  onEnd(finish: GenerationFinish): void;
}
