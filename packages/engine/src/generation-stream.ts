import {
  type CancellationSignal,
  type Clock,
  type Generation,
  type GenerationBatch,
  type GenerationFinish,
  type GenerationOutput,
  type GenerationStats,
  KvasirError,
  type PrefixReuse,
  type TokenEvent,
  type TokenLogprob,
} from '@kvasir/domain';
import type { SequenceSink, SettledRow } from './sequence-sink.ts';

export interface GenerationStreamOptions {
  readonly id: number;
  readonly numPromptTokens: number;
  readonly logprobs: number | null;
  readonly reportHashes: boolean;
  readonly clock: Clock;
  readonly signal: CancellationSignal | undefined;
  /** Ends the sequence; the stream's `onEnd` follows during the call. */
  readonly end: (finish: GenerationFinish) => void;
}

const NO_CACHE: PrefixReuse = {
  matchedTokens: 0,
  reusedTokens: 0,
  fromTier: { hot: 0, warm: 0, cold: 0 },
  restoredBytes: { warm: 0, cold: 0 },
  restoreMs: 0,
  cause: 'cache-off',
};

/** The caller's end of a sequence: events wait here until they are read; writing never waits for a reader. */
export class GenerationStream implements Generation, SequenceSink {
  readonly id: number;
  readonly finished: Promise<GenerationFinish>;
  readonly #options: GenerationStreamOptions;
  readonly #submittedAt: number;
  #unread: TokenEvent[] = [];
  #finish: GenerationFinish | null = null;
  #isFinishRead = false;
  #wake: (() => void) | null = null;
  #settle: (finish: GenerationFinish) => void = () => {};
  #reuse: PrefixReuse | null = null;
  #numOutputs = 0;
  #numPreemptions = 0;
  #admittedAt: number | null = null;
  #firstTokenAt: number | null = null;
  #endedAt: number | null = null;

  constructor(options: GenerationStreamOptions) {
    this.id = options.id;
    this.#options = options;
    this.#submittedAt = options.clock.now();
    this.finished = new Promise((resolve) => {
      this.#settle = resolve;
    });
    options.signal?.addEventListener('abort', this.#onSignal);
  }

  get stats(): GenerationStats {
    const since = (time: number | null): number | null => (time === null ? null : time - this.#submittedAt);
    return {
      promptTokens: this.#options.numPromptTokens,
      cachedTokens: this.#reuse?.reusedTokens ?? 0,
      outputTokens: this.#numOutputs,
      preemptions: this.#numPreemptions,
      queuedMs: since(this.#admittedAt),
      firstTokenMs: since(this.#firstTokenAt),
      totalMs: since(this.#endedAt),
    };
  }

  get reuse(): PrefixReuse | null {
    return this.#reuse;
  }

  abort(): void {
    if (this.#finish === null) this.#options.end({ reason: 'abort' });
  }

  finish(): void {
    if (this.#finish === null) this.#options.end({ reason: 'stop', stopTokenId: null });
  }

  async collect(): Promise<GenerationOutput> {
    const tokens: TokenEvent[] = [];
    for await (const batch of this) {
      tokens.push(...batch.tokens);
      if (batch.finish === null) continue;
      if (batch.finish.reason === 'error') throw batch.finish.error;
      if (batch.finish.reason === 'abort') {
        throw new KvasirError('aborted', `generation ${this.id}: expected it to finish, it was aborted`);
      }
      return { tokens, tokenIds: Int32Array.from(tokens, (event) => event.tokenId), finish: batch.finish };
    }
    throw new KvasirError('invalid-argument', `generation ${this.id}: expected an unread one, found it read before`);
  }

  [Symbol.asyncIterator](): AsyncIterator<GenerationBatch> {
    return {
      next: () => this.#next(),
      return: () => {
        this.abort();
        this.#isFinishRead = true;
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }

  onReuse(reuse: PrefixReuse): void {
    // A preempted one finds its own blocks again: that says nothing about the prompt.
    this.#reuse ??= reuse;
  }

  onAdmit(): void {
    this.#reuse ??= NO_CACHE;
    this.#admittedAt ??= this.#options.clock.now();
  }

  onPreempt(): void {
    this.#numPreemptions++;
  }

  onToken(row: SettledRow, tokenId: number, index: number): void {
    this.#countOutput();
    const { logprobs, reportHashes } = this.#options;
    this.#unread.push({
      tokenId,
      index,
      logprob: logprobs === null ? null : (row.result.sampledLogprobs[row.row] as number),
      topLogprobs: logprobs === null ? null : topLogprobs(row, logprobs),
      logitsHash: reportHashes ? (row.result.hashes[row.row] as bigint) : null,
    });
    this.#wakeReader();
  }

  onTokens(): void {
    throw new KvasirError('invariant-broken', `generation ${this.id}: expected outputs, found a scored row`);
  }

  onEnd(finish: GenerationFinish): void {
    if (finish.reason === 'stop' && finish.stopTokenId !== null) this.#countOutput();
    this.#endedAt = this.#options.clock.now();
    this.#finish = finish;
    this.#options.signal?.removeEventListener('abort', this.#onSignal);
    this.#settle(finish);
    this.#wakeReader();
  }

  readonly #onSignal = (): void => this.abort();

  #countOutput(): void {
    this.#firstTokenAt ??= this.#options.clock.now();
    this.#numOutputs++;
  }

  #wakeReader(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }

  async #next(): Promise<IteratorResult<GenerationBatch>> {
    while (this.#unread.length === 0 && this.#finish === null) {
      if (this.#wake !== null) {
        throw new KvasirError('invalid-argument', `generation ${this.id}: expected one reader, found two waiting`);
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#isFinishRead) return { done: true, value: undefined };
    const tokens = this.#unread;
    this.#unread = [];
    this.#isFinishRead = this.#finish !== null;
    return { done: false, value: { tokens, finish: this.#finish } };
  }
}

/** The first `count` alternatives of a row; the result is as wide as the batch's widest request. */
function topLogprobs({ result, row }: SettledRow, count: number): readonly TokenLogprob[] {
  const top: TokenLogprob[] = [];
  for (let index = 0; index < Math.min(count, result.maxLogprobs); index++) {
    const at = row * result.maxLogprobs + index;
    const tokenId = result.topIds[at] as number;
    if (tokenId >= 0) top.push({ tokenId, logprob: result.topLogprobs[at] as number });
  }
  return top;
}
