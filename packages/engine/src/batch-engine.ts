import {
  AgentBlocks,
  BlockPool,
  type CancellationSignal,
  type EngineLimits,
  type EngineStats,
  type Generation,
  type GenerationEngine,
  type GenerationFinish,
  type GenerationRequest,
  KvasirError,
  type LogitsRequest,
  type ScoreRequest,
  Sequence,
  type SequenceGoal,
  type StepReport,
} from '@kvasir/domain';
import {
  type BatchEngineOptions,
  type BatchEnginePorts,
  type EngineSettings,
  resolveSettings,
} from './engine-options.ts';
import { GenerationStream } from './generation-stream.ts';
import { EngineAgentMemory } from './cache/engine-agent-memory.ts';
import { LogitsSink, ScoreSink } from './reading-sinks.ts';
import { checkFits, checkRequest, checkTokenIds, resolveMaxOutputs } from './request-checks.ts';
import type { SequenceSink } from './sequence-sink.ts';
import { StepPipeline } from './step-pipeline.ts';

/** Floats of logits one step may return to one reader: 16 MiB. */
const LOGITS_CHUNK_FLOATS = 4 * 1024 * 1024;

/**
 * Continuous batching over one runner. Every method but `step` and `dispose` returns without waiting for the device.
 * All state belongs to the JavaScript thread that made the engine.
 */
export class BatchEngine implements GenerationEngine {
  readonly settings: EngineSettings;
  readonly limits: EngineLimits;
  /** The KV behind agents; null without a cache. */
  readonly agentMemory: EngineAgentMemory | null;
  readonly #ports: BatchEnginePorts;
  readonly #pools: readonly BlockPool[];
  readonly #pipeline: StepPipeline;
  #lastId = 0;
  #loop: Promise<void> | null = null;
  #stepping: Promise<StepReport> | null = null;
  #wake: (() => void) | null = null;

  constructor(ports: BatchEnginePorts, options: BatchEngineOptions) {
    const { info } = ports.runner;
    this.#ports = ports;
    this.settings = resolveSettings(options, info);
    this.#pools = info.numBlocks.map((numBlocks) => new BlockPool(numBlocks));
    this.limits = {
      contextLength: this.settings.contextLength,
      poolTokens: Math.min(...info.numBlocks) * info.cacheSpec.blockTokens,
      maxBatchSequences: this.settings.maxBatchSequences,
      vocabularySize: info.vocabularySize,
    };
    this.#pipeline = new StepPipeline(ports, this.settings, this.#pools, options.cache, () => this.#wakeLoop());
    const { kvCache } = this.#pipeline;
    this.agentMemory =
      options.cache === undefined || kvCache === null ? null : new EngineAgentMemory(kvCache, options.cache, ports);
  }

  submit(request: GenerationRequest): Generation {
    this.#checkOpen();
    checkRequest(request, this.limits);
    const maxOutputs = resolveMaxOutputs(request.promptIds.length, request.maxTokens, this.limits);
    this.#checkQueue();
    const { sampling, signal } = request;
    const reportHashes = request.reportHashes ?? false;
    const stopIds = Int32Array.from(request.stopIds);
    const sequence = this.#createSequence(
      request.promptIds,
      { kind: 'generate', sampling, maxOutputs, stopIds, reportHashes },
      this.settings.maxBatchTokens,
    );
    const stream = new GenerationStream({
      id: sequence.id,
      numPromptTokens: request.promptIds.length,
      logprobs: sampling.logprobs,
      reportHashes,
      clock: this.#ports.clock,
      signal,
      end: (finish) => this.#end(sequence, finish),
    });
    this.#enqueue(sequence, stream, request.owner, request.tenant);
    if (signal?.aborted === true) stream.abort();
    return stream;
  }

  async score(request: ScoreRequest): Promise<Float32Array> {
    this.#checkOpen();
    checkTokenIds(request.tokenIds, 2, this.limits);
    const sink = new ScoreSink(request.tokenIds.length);
    // The last token predicts nothing that is asked for, but its target is what the one before needs.
    await this.#read(request, sink, { kind: 'score' }, this.settings.maxBatchTokens);
    return sink.logprobs;
  }

  async logits(request: LogitsRequest): Promise<void> {
    this.#checkOpen();
    checkTokenIds(request.tokenIds, 1, this.limits);
    const sink = new LogitsSink(this.limits.vocabularySize, request.onRows);
    const chunk = Math.max(1, Math.floor(LOGITS_CHUNK_FLOATS / this.limits.vocabularySize));
    await this.#read(request, sink, { kind: 'logits' }, Math.min(chunk, this.settings.maxBatchTokens));
  }

  step(): Promise<StepReport> {
    if (this.#loop !== null || this.#stepping !== null) {
      return Promise.reject(
        new KvasirError('invalid-argument', 'step: expected an engine nobody else steps, found it started or stepping'),
      );
    }
    this.#stepping = this.#stepOnce().finally(() => {
      this.#stepping = null;
    });
    return this.#stepping;
  }

  start(): void {
    this.#checkOpen();
    this.#loop ??= this.#run();
  }

  stats(): EngineStats {
    const blocks = this.#pools.map((pool) => pool.stats());
    return { ...this.#pipeline.stats(), blocks, cache: this.#pipeline.kvCache?.stats() ?? null };
  }

  /** Every block accounted for once, in every pool. Cost: O(N). @throws KvasirError `invariant-broken` */
  checkIntegrity(): void {
    for (const pool of this.#pools) pool.checkIntegrity();
    const problem = this.#pipeline.kvCache?.findProblem() ?? null;
    if (problem !== null)
      throw new KvasirError('invariant-broken', `KV cache: expected it consistent, found ${problem}`);
  }

  async dispose(): Promise<void> {
    this.#pipeline.close(new KvasirError('disposed', 'engine: expected a running one, found it disposed'));
    this.#wakeLoop();
    await this.agentMemory?.stop();
    await this.#loop;
    await this.#stepping;
    while (this.#pipeline.numInFlight > 0) await this.#pipeline.settle();
    while (this.#pipeline.numLoading > 0) await this.#sleep();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  async #stepOnce(): Promise<StepReport> {
    this.#pipeline.fill();
    while (this.#isLoadingOnly) {
      await this.#sleep();
      this.#pipeline.fill();
    }
    return await this.#pipeline.settle();
  }

  async #run(): Promise<void> {
    while (this.#pipeline.failure === null) {
      this.#pipeline.fill();
      if (this.#pipeline.numInFlight === 0) await this.#nextWork();
      else {
        // The next step is with the device; sockets and timers get their turn while it runs.
        await this.#ports.clock.turn();
        await this.#pipeline.settle();
      }
    }
    while (this.#pipeline.numInFlight > 0) await this.#pipeline.settle();
  }

  async #nextWork(): Promise<void> {
    if (this.#pipeline.failure !== null || (this.#pipeline.hasWork && !this.#isLoadingOnly)) return;
    await this.#sleep();
  }

  /** Nothing runs, and somebody waits for KV that is on its way. */
  get #isLoadingOnly(): boolean {
    const { numInFlight, numLoading, failure } = this.#pipeline;
    return numInFlight === 0 && numLoading > 0 && failure === null;
  }

  /** Until there is a new request, KV has arrived, or the engine is disposed. */
  #sleep(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #wakeLoop(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }

  /** Runs a sequence that samples nothing to its end. */
  async #read(
    request: { readonly tokenIds: Int32Array; readonly signal?: CancellationSignal },
    sink: ScoreSink | LogitsSink,
    goal: SequenceGoal,
    maxChunkTokens: number,
  ): Promise<void> {
    checkFits(request.tokenIds.length, this.limits);
    this.#checkQueue();
    const sequence = this.#createSequence(request.tokenIds, goal, maxChunkTokens);
    const abort = (): void => this.#end(sequence, { reason: 'abort' });
    this.#enqueue(sequence, sink);
    if (request.signal?.aborted === true) abort();
    request.signal?.addEventListener('abort', abort);
    try {
      await sink.done;
    } finally {
      request.signal?.removeEventListener('abort', abort);
    }
  }

  #createSequence(tokenIds: Int32Array, goal: SequenceGoal, maxChunkTokens: number): Sequence {
    const id = ++this.#lastId;
    const blocks = new AgentBlocks(id, this.#pools, this.#ports.runner.info.cacheSpec.blockTokens);
    blocks.append(tokenIds);
    return new Sequence(id, blocks, goal, maxChunkTokens);
  }

  #enqueue(sequence: Sequence, sink: SequenceSink, owner = String(sequence.id), tenant = 'default'): void {
    this.#pipeline.add(sequence, sink, owner, tenant);
    this.#wakeLoop();
  }

  #end(sequence: Sequence, finish: GenerationFinish): void {
    if (sequence.state !== 'ended') this.#pipeline.end(sequence, finish);
  }

  #checkOpen(): void {
    if (this.#pipeline.failure !== null) throw this.#pipeline.failure;
  }

  #checkQueue(): void {
    const { numWaiting, numRunning } = this.#pipeline;
    const numQueued = numWaiting - (this.settings.maxBatchSequences - numRunning);
    if (numQueued >= this.settings.maxQueue) {
      throw new KvasirError(
        'overloaded',
        `queue: expected fewer than ${this.settings.maxQueue} waiting, found ${numQueued}; try again later`,
        { facts: { maxQueue: this.settings.maxQueue, numQueued } },
      );
    }
  }
}
