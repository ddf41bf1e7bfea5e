import {
  type BlockPool,
  type EngineStats,
  type ErrorCode,
  type GenerationFinish,
  KvasirError,
  type Sequence,
  type StepReport,
  type StepResult,
} from '@kvasir/domain';
import { AgentCacheStore } from './cache/agent-cache-store.ts';
import { NoCache } from './cache/no-cache.ts';
import type { SequenceCache } from './cache/sequence-cache.ts';
import { EngineCounters } from './engine-counters.ts';
import type { CacheOptions } from './cache/cache-options.ts';
import type { BatchEnginePorts, EngineSettings } from './engine-options.ts';
import { Scheduler } from './scheduler.ts';
import type { SequenceSink } from './sequence-sink.ts';
import { StepBatchBuilder } from './step-batch-builder.ts';
import { dealStep, toKvasirError } from './step-dealer.ts';
import type { StepPlan } from './step-plan.ts';

/** After these a runner does nothing any more. */
const FATAL_CODES: readonly ErrorCode[] = ['device-lost', 'disposed', 'file-truncated', 'backend-unavailable'];

interface FlyingStep {
  readonly stepId: number;
  readonly plan: StepPlan;
  readonly outcome: Promise<Outcome>;
  /** The step before it failed after this one was submitted, so its own failure may be no fault of its sequences. */
  followsFailure: boolean;
}

type Outcome =
  | { readonly kind: 'result'; readonly result: StepResult }
  | { readonly kind: 'error'; readonly error: KvasirError };

interface Participant {
  readonly sequence: Sequence;
  readonly sink: SequenceSink;
  readonly owner: string;
  readonly tenant: string;
}

/**
 * The steps in flight: submits them in order, settles them in order, and gives back what their sequences held on every
 * way out. With a depth of 2 a step is submitted before the one ahead of it has been dealt out.
 */
export class StepPipeline {
  readonly #ports: BatchEnginePorts;
  readonly #settings: EngineSettings;
  readonly #pools: readonly BlockPool[];
  readonly #scheduler: Scheduler;
  readonly #cache: SequenceCache;
  /** null: nothing is kept. */
  readonly kvCache: AgentCacheStore | null;
  readonly #builder: StepBatchBuilder;
  readonly #counters: EngineCounters;
  readonly #participants = new Map<number, Participant>();
  readonly #inFlight: FlyingStep[] = [];
  #lastStepId = 0;
  #failure: KvasirError | null = null;
  readonly #onReady: () => void;

  /** @param onReady called when something a sequence waited for outside of steps has happened */
  constructor(
    ports: BatchEnginePorts,
    settings: EngineSettings,
    pools: readonly BlockPool[],
    cache: CacheOptions | undefined,
    onReady: () => void,
  ) {
    this.#ports = ports;
    this.#settings = settings;
    this.#pools = pools;
    this.#builder = new StepBatchBuilder(settings, ports.runner.info);
    this.#counters = new EngineCounters(settings.maxBatchSequences);
    this.#onReady = onReady;
    this.kvCache =
      cache === undefined
        ? null
        : new AgentCacheStore(ports, pools, cache, (sequence) => this.#participant(sequence), {
            onReuse: (sequence, reuse) => this.#participant(sequence).sink.onReuse(reuse),
            onReady: () => this.#onReady(),
            onDeviceFailure: (error) => this.#fail(toKvasirError(error, 'moving KV failed')),
          });
    this.#cache = this.kvCache ?? new NoCache(pools);
    this.#scheduler = new Scheduler(settings, this.#cache, ports.runner.info.numSamplerSlots, {
      onAdmit: (sequence) => this.#participant(sequence).sink.onAdmit(),
      onPreempt: (sequence) => this.#onPreempt(sequence),
    });
  }

  /** Why nothing is accepted any more; null while the engine works. */
  get failure(): KvasirError | null {
    return this.#failure;
  }

  get hasWork(): boolean {
    return this.#participants.size > 0;
  }

  get numInFlight(): number {
    return this.#inFlight.length;
  }

  get numRunning(): number {
    return this.#scheduler.numRunning;
  }

  get numWaiting(): number {
    return this.#scheduler.numWaiting;
  }

  /** Sequences that wait for KV on its way, and for nothing else. */
  get numLoading(): number {
    return this.#cache.numLoading;
  }

  add(sequence: Sequence, sink: SequenceSink, owner: string, tenant: string): void {
    this.#participants.set(sequence.id, { sequence, sink, owner, tenant });
    this.#scheduler.add(sequence);
  }

  /** Ends a sequence in whatever state it is; rows of it in flight are discarded when they arrive. */
  end(sequence: Sequence, finish: GenerationFinish): void {
    const { sink, owner } = this.#participant(sequence);
    this.#scheduler.end(sequence);
    this.#participants.delete(sequence.id);
    this.#ports.narrator.narrate({
      level: finish.reason === 'error' ? 'warn' : 'debug',
      name: 'sequence-ended',
      facts: {
        sequenceId: sequence.id,
        owner,
        reason: finish.reason,
        code: finish.reason === 'error' ? finish.error.code : null,
        promptTokens: sequence.numPromptTokens,
        outputTokens: sequence.numOutputs,
        preemptions: sequence.numPreemptions,
      },
    });
    sink.onEnd(finish);
  }

  /** Ends everything with `error` and accepts nothing more. Steps in flight are still to be settled. */
  close(error: KvasirError): void {
    this.#failure ??= error;
    for (const { sequence } of this.#participants.values()) this.end(sequence, { reason: 'error', error });
  }

  /** Submits steps until the pipeline is full or nothing can run. */
  fill(): void {
    try {
      while (this.#failure === null && this.#inFlight.length < this.#settings.maxStepsInFlight) {
        // What follows a failed step may rest on its results: it is settled before anything new is planned.
        if (this.#inFlight.some((step) => step.followsFailure)) return;
        const plan = this.#scheduler.plan();
        if (plan === null) break;
        this.#submit(plan);
      }
      if (this.#inFlight.length === 0 && this.#failure === null) this.#checkIdle();
    } catch (error) {
      this.#fail(toKvasirError(error, 'planning a step failed'));
    }
  }

  /** Waits for the oldest step and deals it out. Never rejects: what goes wrong ends the sequences it concerns. */
  async settle(): Promise<StepReport> {
    const step = this.#inFlight[0];
    if (step === undefined) return { kind: 'idle' };
    const outcome = await step.outcome;
    this.#inFlight.shift();
    try {
      for (const pool of this.#pools) pool.completeStep(step.stepId);
      if (outcome.kind === 'result') return this.#deal(step, outcome.result);
      this.#onStepError(step, outcome.error);
      return { kind: 'failed', stepId: step.stepId, error: outcome.error };
    } catch (thrown) {
      const error = toKvasirError(thrown, `dealing out step ${step.stepId} failed`);
      this.#fail(error);
      return { kind: 'failed', stepId: step.stepId, error };
    }
  }

  stats(): Omit<EngineStats, 'blocks' | 'cache'> {
    const { steps, failedSteps, prefillTokens, outputTokens, discardedTokens, preemptions, executeMs } = this.#counters;
    return {
      steps,
      failedSteps,
      stepsInFlight: this.#inFlight.length,
      running: this.#scheduler.numRunning,
      waiting: this.#scheduler.numWaiting,
      prefillTokens,
      outputTokens,
      discardedTokens,
      preemptions,
      executeMs,
      batchSizes: [...this.#counters.batchSizes],
      failure: this.#failure,
    };
  }

  #submit(plan: StepPlan): void {
    const batch = this.#builder.build(plan);
    let result: Promise<StepResult>;
    try {
      result = this.#ports.runner.submit(batch).result;
    } catch (thrown) {
      const error = toKvasirError(thrown, 'submitting a step failed');
      this.#counters.failedSteps++;
      this.#narrateStepError(this.#lastStepId + 1, error, plan);
      if (FATAL_CODES.includes(error.code)) this.#fail(error);
      else this.#endRows(plan, error);
      return;
    }
    const stepId = ++this.#lastStepId;
    for (const pool of this.#pools) pool.beginStep(stepId);
    this.#inFlight.push({
      stepId,
      plan,
      followsFailure: false,
      // Handled from the start: a second step may fail while the first is still awaited.
      outcome: result.then(
        (value): Outcome => ({ kind: 'result', result: value }),
        (thrown: unknown): Outcome => ({ kind: 'error', error: toKvasirError(thrown, `step ${stepId} failed`) }),
      ),
    });
  }

  #deal(step: FlyingStep, result: StepResult): StepReport {
    const { plan, stepId } = step;
    const counters = this.#counters;
    const numPrefillTokens = plan.numTokens - plan.numDecodeTokens;
    counters.steps++;
    counters.prefillTokens += numPrefillTokens;
    counters.executeMs += result.executeMs;
    const numSequences = plan.sequences.length;
    counters.batchSizes[numSequences] = (counters.batchSizes[numSequences] as number) + 1;
    const numOutputTokens = dealStep(plan, result, {
      sinkOf: (sequence) => this.#participant(sequence).sink,
      end: (sequence, finish) => this.end(sequence, finish),
      counters,
    });
    this.#share(plan, result);
    return {
      kind: 'ran',
      stepId,
      numSequences,
      numPrefillTokens,
      numDecodeTokens: plan.numDecodeTokens,
      numOutputTokens,
      executeMs: result.executeMs,
    };
  }

  /** Blocks that filled may be used by others from now on; what computing them cost is what restoring competes with. */
  #share(plan: StepPlan, result: StepResult): void {
    for (const [row, sequence] of plan.sequences.entries()) {
      if (sequence.state === 'running' && sequence.epoch === plan.epochs[row]) this.#cache.progress(sequence);
    }
    if (plan.sequences.length === 1 && plan.numDecodeTokens === 0) {
      this.kvCache?.planner.sawPrefill(plan.positions[0] as number, plan.counts[0] as number, result.executeMs);
    }
  }

  #onStepError(step: FlyingStep, error: KvasirError): void {
    this.#counters.failedSteps++;
    this.#narrateStepError(step.stepId, error, step.plan);
    if (FATAL_CODES.includes(error.code)) {
      this.#fail(error);
      return;
    }
    for (const later of this.#inFlight) later.followsFailure = true;
    if (!step.followsFailure) this.#endRows(step.plan, error);
    else {
      for (const [row, sequence] of step.plan.sequences.entries()) {
        if (sequence.epoch === step.plan.epochs[row]) this.#scheduler.preempt(sequence);
      }
    }
  }

  #endRows(plan: StepPlan, error: KvasirError): void {
    for (const [row, sequence] of plan.sequences.entries()) {
      if (sequence.epoch === plan.epochs[row]) this.end(sequence, { reason: 'error', error });
    }
  }

  /** The engine cannot go on: everybody learns why, now and at every later `submit`. */
  #fail(error: KvasirError): void {
    if (this.#failure !== null) return;
    this.#ports.narrator.narrate({
      level: 'error',
      name: 'engine-failed',
      facts: { code: error.code, message: error.message },
    });
    this.close(error);
  }

  /** Work, nothing in flight and still no plan would be a wait without end. */
  #checkIdle(): void {
    if (this.#participants.size === 0 || this.#cache.numLoading > 0) return;
    const { numRunning, numWaiting } = this.#scheduler;
    throw new KvasirError(
      'invariant-broken',
      `scheduler: expected a step with ${numRunning} sequences running and ${numWaiting} waiting, found none to plan`,
      { facts: { numRunning, numWaiting } },
    );
  }

  #onPreempt(sequence: Sequence): void {
    this.#counters.preemptions++;
    const { sink, owner } = this.#participant(sequence);
    this.#ports.narrator.narrate({
      level: 'info',
      name: 'sequence-preempted',
      facts: { sequenceId: sequence.id, owner, tokens: sequence.blocks.numTokens },
    });
    sink.onPreempt();
  }

  #narrateStepError(stepId: number, error: KvasirError, plan: StepPlan): void {
    this.#ports.narrator.narrate({
      level: 'error',
      name: 'step-failed',
      facts: { stepId, code: error.code, message: error.message, sequences: plan.sequences.length },
    });
  }

  #participant(sequence: Sequence): Participant {
    const participant = this.#participants.get(sequence.id);
    if (participant === undefined) {
      throw new KvasirError('invariant-broken', `sequence ${sequence.id}: expected one of this engine, found none`);
    }
    return participant;
  }
}
