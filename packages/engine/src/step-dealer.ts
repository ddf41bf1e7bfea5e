import { type GenerationFinish, KvasirError, type Sequence, type StepResult, isKvasirError } from '@kvasir/domain';
import type { EngineCounters } from './engine-counters.ts';
import type { SequenceSink, SettledRow } from './sequence-sink.ts';
import type { StepPlan } from './step-plan.ts';

/** KV_STOP_TOKEN at the waist. */
const STOP_TOKEN = 1;

export interface DealerContext {
  readonly sinkOf: (sequence: Sequence) => SequenceSink;
  readonly end: (sequence: Sequence, finish: GenerationFinish) => void;
  readonly counters: EngineCounters;
}

/**
 * Deals a step's result out to its sequences. Rows of sequences that were preempted or ended since are discarded: their
 * tokens never become anybody's and their KV is never counted.
 * @returns tokens accepted as outputs
 */
export function dealStep(plan: StepPlan, result: StepResult, context: DealerContext): number {
  const { counters } = context;
  const settled = { result, row: 0, firstToken: 0, count: 0, position: 0, firstLogitsRow: 0 };
  let numOutputs = 0;
  for (let row = 0; row < plan.sequences.length; row++) {
    const sequence = plan.sequences[row] as Sequence;
    const samples = (plan.outputIndexes[row] as number) >= 0;
    settled.row = row;
    settled.count = plan.counts[row] as number;
    settled.position = plan.positions[row] as number;
    if (sequence.epoch !== plan.epochs[row]) {
      if (samples) counters.discardedTokens++;
    } else {
      sequence.completeTokens(settled.position + settled.count);
      if (samples) {
        dealOutput(sequence, settled, context);
        numOutputs++;
      } else if (sequence.goal.kind !== 'generate') dealTokens(sequence, settled, context);
    }
    settled.firstToken += settled.count;
    if (sequence.goal.kind === 'logits') settled.firstLogitsRow += settled.count;
  }
  counters.outputTokens += numOutputs;
  return numOutputs;
}

function dealOutput(sequence: Sequence, settled: SettledRow, { sinkOf, end }: DealerContext): void {
  const tokenId = settled.result.sampledIds[settled.row] as number;
  if (!(tokenId >= 0)) {
    const message = `sampled token of sequence ${sequence.id}: expected an id, found ${tokenId}`;
    end(sequence, { reason: 'error', error: new KvasirError('internal', message) });
    return;
  }
  const index = sequence.acceptOutput(tokenId);
  if (settled.result.stops[settled.row] === STOP_TOKEN) {
    end(sequence, { reason: 'stop', stopTokenId: tokenId });
    return;
  }
  sinkOf(sequence).onToken(settled, tokenId, index);
  if (sequence.goal.kind === 'generate' && index + 1 >= sequence.goal.maxOutputs) end(sequence, { reason: 'length' });
}

/** A reader is the caller's code: what it throws ends its own sequence and nobody else's. */
function dealTokens(sequence: Sequence, settled: SettledRow, { sinkOf, end }: DealerContext): void {
  try {
    sinkOf(sequence).onTokens(settled);
  } catch (error) {
    end(sequence, { reason: 'error', error: toKvasirError(error, 'a reader of logits failed') });
    return;
  }
  if (settled.position + settled.count >= sequence.numPromptTokens) end(sequence, { reason: 'length' });
}

/** Errors of this project pass; anything else becomes `internal` with its cause. */
export function toKvasirError(error: unknown, what: string): KvasirError {
  if (isKvasirError(error)) return error;
  return new KvasirError('internal', `${what}: ${error instanceof Error ? error.message : String(error)}`, {
    cause: error,
  });
}
