import { type GenerationFinish, KvasirError } from '@kvasir/domain';
import type { SequenceSink, SettledRow } from './sequence-sink.ts';

/** Settles `done` when a sequence that is only read has been read to its end. */
abstract class ReadingSink implements SequenceSink {
  readonly done: Promise<void>;
  #resolve: () => void = () => {};
  #reject: (error: KvasirError) => void = () => {};

  constructor() {
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  abstract onTokens(row: SettledRow): void;

  onToken(): void {
    throw new KvasirError('invariant-broken', 'expected a sequence that is only read, found it sampling');
  }

  onReuse(): void {}

  onAdmit(): void {}

  onPreempt(): void {}

  onEnd(finish: GenerationFinish): void {
    if (finish.reason === 'error') this.#reject(finish.error);
    else if (finish.reason === 'abort') this.#reject(new KvasirError('aborted', 'the request was aborted'));
    else this.#resolve();
  }
}

/** Gathers the log-probability of each token given those before it. */
export class ScoreSink extends ReadingSink {
  /** (T) element 0 is NaN */
  readonly logprobs: Float32Array;

  constructor(numTokens: number) {
    super();
    this.logprobs = new Float32Array(numTokens).fill(Number.NaN);
  }

  onTokens({ result, firstToken, count, position }: SettledRow): void {
    // A target lies one position after the token that predicts it; the last token predicts nothing asked for.
    const wanted = Math.min(count, this.logprobs.length - 1 - position);
    this.logprobs.set(result.targetLogprobs.subarray(firstToken, firstToken + wanted), position + 1);
  }
}

/** Hands logits on as they come; after a preemption those already handed on are skipped. */
export class LogitsSink extends ReadingSink {
  readonly #vocabularySize: number;
  readonly #onRows: (rows: Float32Array, firstToken: number) => void;
  #numHandedOn = 0;

  constructor(vocabularySize: number, onRows: (rows: Float32Array, firstToken: number) => void) {
    super();
    this.#vocabularySize = vocabularySize;
    this.#onRows = onRows;
  }

  onTokens({ result, firstLogitsRow, count, position }: SettledRow): void {
    const skipped = Math.max(0, this.#numHandedOn - position);
    if (skipped >= count) return;
    const first = (firstLogitsRow + skipped) * this.#vocabularySize;
    const last = (firstLogitsRow + count) * this.#vocabularySize;
    this.#numHandedOn = position + count;
    this.#onRows(result.logits.subarray(first, last), position + skipped);
  }
}
