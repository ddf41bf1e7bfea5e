import { KvasirError } from '@kvasir/domain';
import type {
  EngineStats,
  Generation,
  GenerationBatch,
  GenerationEngine,
  GenerationFinish,
  GenerationOutput,
  GenerationRequest,
  PrefixReuse,
  StepReport,
  TokenEvent,
} from '@kvasir/domain';

/** What one submission is to produce. */
export interface Script {
  /** Token ids, one a batch. */
  readonly tokenIds: readonly number[];
  /** How it ends when neither the limit nor a caller ends it first; `hang` waits for an abort. */
  readonly end: GenerationFinish | 'hang';
}

/** A generation engine that plays scripts: what the routes do with tokens can be tested without any model. */
export class ScriptedEngine implements GenerationEngine {
  readonly limits = { contextLength: 1024, poolTokens: 2048, maxBatchSequences: 8, vocabularySize: 257 } as const;
  readonly requests: GenerationRequest[] = [];
  readonly generations: ScriptedGeneration[] = [];
  script: (request: GenerationRequest, index: number) => Script = () => ({ tokenIds: [], end: { reason: 'length' } });
  failure: KvasirError | null = null;
  /** What every prompt finds; null as of an engine that keeps no prefixes. */
  reuse: (request: GenerationRequest) => PrefixReuse | null = () => null;

  submit(request: GenerationRequest): Generation {
    if (this.failure !== null) throw this.failure;
    const script = this.script(request, this.requests.length);
    this.requests.push(request);
    const generation = new ScriptedGeneration(this.generations.length, request, script, this.reuse(request));
    this.generations.push(generation);
    return generation;
  }

  stats(): EngineStats {
    return {
      steps: 7,
      failedSteps: 0,
      stepsInFlight: 0,
      running: 0,
      waiting: 0,
      prefillTokens: 0,
      outputTokens: this.generations.reduce((sum, generation) => sum + generation.stats.outputTokens, 0),
      discardedTokens: 0,
      preemptions: 0,
      executeMs: 0,
      batchSizes: [0, 4, 3],
      blocks: [{ total: 8, free: 8, used: 0, retired: 0, peak: 0 }],
      cache: null,
      failure: this.failure,
    };
  }

  score(): Promise<Float32Array> {
    return Promise.reject(new KvasirError('internal', 'expected no scoring, found a call'));
  }

  logits(): Promise<void> {
    return Promise.reject(new KvasirError('internal', 'expected no logits, found a call'));
  }

  step(): Promise<StepReport> {
    return Promise.resolve({ kind: 'idle' });
  }

  start(): void {}

  async dispose(): Promise<void> {
    for (const generation of this.generations) generation.abort();
  }
}

export class ScriptedGeneration implements Generation {
  readonly id: number;
  readonly finished: Promise<GenerationFinish>;
  endedBy: 'script' | 'abort' | 'finish' | null = null;
  readonly #request: GenerationRequest;
  readonly #script: Script;
  readonly #found: PrefixReuse | null;
  #numOutput = 0;
  #settle!: (finish: GenerationFinish) => void;
  #interrupt!: () => void;
  readonly #interrupted: Promise<void>;

  constructor(id: number, request: GenerationRequest, script: Script, reuse: PrefixReuse | null) {
    this.id = id;
    this.#found = reuse;
    this.#request = request;
    this.#script = script;
    this.finished = new Promise((resolve) => {
      this.#settle = resolve;
    });
    this.#interrupted = new Promise((resolve) => {
      this.#interrupt = resolve;
    });
  }

  get reuse(): PrefixReuse | null {
    return this.#numOutput > 0 || this.endedBy !== null ? this.#found : null;
  }

  get stats() {
    return {
      promptTokens: this.#request.promptIds.length,
      cachedTokens: this.reuse?.reusedTokens ?? 0,
      outputTokens: this.#numOutput,
      preemptions: 0,
      queuedMs: 0,
      firstTokenMs: 1,
      totalMs: null,
    };
  }

  abort(): void {
    this.#end('abort', { reason: 'abort' });
  }

  finish(): void {
    this.#end('finish', { reason: 'stop', stopTokenId: null });
  }

  collect(): Promise<GenerationOutput> {
    return Promise.reject(new KvasirError('internal', 'expected the routes to iterate, found collect'));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<GenerationBatch> {
    const limit = this.#request.maxTokens ?? Number.POSITIVE_INFINITY;
    for (const [index, tokenId] of this.#script.tokenIds.entries()) {
      if (index >= limit) {
        yield this.#last({ reason: 'length' });
        return;
      }
      // A turn of the event loop a token, so that readers see them one by one.
      await new Promise((resolve) => setImmediate(resolve));
      if (this.endedBy !== null) break;
      this.#numOutput += 1;
      yield { tokens: [this.#event(tokenId, index)], finish: null };
    }
    if (this.#script.end === 'hang' && this.endedBy === null) await this.#interrupted;
    if (this.endedBy === null && this.#script.end !== 'hang') yield this.#last(this.#script.end);
    else
      yield {
        tokens: [],
        finish: this.endedBy === 'finish' ? { reason: 'stop', stopTokenId: null } : { reason: 'abort' },
      };
  }

  #event(tokenId: number, index: number): TokenEvent {
    const { logprobs } = this.#request.sampling;
    const top =
      logprobs === null
        ? null
        : [
            { tokenId, logprob: -0.5 },
            { tokenId: 65, logprob: -1.5 },
          ].slice(0, logprobs);
    return { tokenId, index, logprob: logprobs === null ? null : -0.5 - index, topLogprobs: top, logitsHash: null };
  }

  #last(finish: GenerationFinish): GenerationBatch {
    this.#end('script', finish);
    return { tokens: [], finish };
  }

  #end(by: 'script' | 'abort' | 'finish', finish: GenerationFinish): void {
    if (this.endedBy !== null) return;
    this.endedBy = by;
    this.#settle(finish);
    this.#interrupt();
  }
}
