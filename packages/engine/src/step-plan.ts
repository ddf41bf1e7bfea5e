import type { Sequence } from '@kvasir/domain';

/** What one step carries: a row a sequence, decoding ones first. Lives until the step is dealt out. */
export interface StepPlan {
  readonly sequences: Sequence[];
  /** The sequence's epoch when it was planned; a row whose sequence has moved on is discarded. */
  readonly epochs: number[];
  /** Position of the row's first token. */
  readonly positions: number[];
  /** Tokens the row carries. */
  readonly counts: number[];
  /** Row of the step before whose sampled token is this row's only input; -1: the tokens are known. */
  readonly inputRows: number[];
  /** Output index to sample; -1: the row samples nothing. */
  readonly outputIndexes: number[];
  numTokens: number;
  numDecodeTokens: number;
}

export function emptyPlan(): StepPlan {
  return {
    sequences: [],
    epochs: [],
    positions: [],
    counts: [],
    inputRows: [],
    outputIndexes: [],
    numTokens: 0,
    numDecodeTokens: 0,
  };
}

/** Adds a row and tells the sequence that it is under way. Slots for its tokens must be reserved. */
export function addRow(plan: StepPlan, sequence: Sequence, count: number): void {
  plan.sequences.push(sequence);
  plan.epochs.push(sequence.epoch);
  plan.positions.push(sequence.numScheduled);
  plan.counts.push(count);
  plan.inputRows.push(sequence.isInputInFlight ? sequence.row : -1);
  const outputIndex = sequence.nextOutputIndex;
  plan.outputIndexes.push(sequence.schedule(count) ? outputIndex : -1);
  plan.numTokens += count;
}

/** Tells each planned sequence which row its next unknown token will come from. */
export function assignRows(plan: StepPlan): void {
  for (let row = 0; row < plan.sequences.length; row++) (plan.sequences[row] as Sequence).row = row;
}
