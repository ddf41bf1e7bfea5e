import {
  type BlockCopy,
  KvasirError,
  type ModelRunner,
  type RunnerInfo,
  type RunnerMemory,
  type StepBatch,
  type StepHandle,
  type StepResult,
} from '@kvasir/domain';
import { checkBatch } from './batch-checks.ts';
import { copyBatch } from './copy-batch.ts';
import { FakeKvPool } from './fake-kv-pool.ts';
import { type FakeRunnerOptions, fakeRunnerInfo } from './fake-runner-options.ts';
import { FakeSampler } from './fake-sampler.ts';
import { runFakeStep } from './fake-step.ts';

/**
 * A runner in memory that behaves like a device: work runs in order and later than it is submitted, KV lives in slots
 * that start poisoned, sampling state lives in slots, and a batch that breaks the contract is refused. Its outputs are a
 * hash of the (token, position) pairs found by walking the block table: equal for equal contexts, and different as soon
 * as one slot is not what it should be.
 */
export class FakeModelRunner implements ModelRunner {
  readonly info: RunnerInfo;
  readonly #options: FakeRunnerOptions;
  readonly #pools: readonly FakeKvPool[];
  readonly #samplers = new Map<number, FakeSampler>();
  readonly #failures: KvasirError[] = [];
  readonly #held: (() => void)[] = [];
  #isHolding = false;
  #queue: Promise<unknown> = Promise.resolve();
  #numSubmitted = 0;
  #numStepsRun = 0;
  #numUnsettled = 0;
  #numPreviousRows = 0;
  #previousIds: Int32Array | null = null;
  #deathCause: KvasirError | null = null;
  #disposal: Promise<void> | null = null;

  constructor(options: FakeRunnerOptions = {}) {
    this.#options = options;
    this.info = fakeRunnerInfo(options);
    this.#pools = this.info.numBlocks.map((numBlocks) => new FakeKvPool(numBlocks, this.info.cacheSpec.blockTokens));
  }

  get numStepsRun(): number {
    return this.#numStepsRun;
  }

  /** From now on a step waits for its `release`. */
  hold(): void {
    this.#isHolding = true;
  }

  /** Lets the oldest held step run. @returns whether one was held */
  release(): boolean {
    const go = this.#held.shift();
    go?.();
    return go !== undefined;
  }

  /** Lets everything held run, and what comes after it. */
  releaseAll(): void {
    this.#isHolding = false;
    while (this.release());
  }

  /** The next step to run fails with this; after `device-lost` and `file-truncated` every later one does. */
  failNext(error: KvasirError): void {
    this.#failures.push(error);
  }

  submit(batch: StepBatch): StepHandle {
    this.#checkOpen();
    if (this.#numUnsettled >= this.info.maxStepsInFlight) {
      throw new KvasirError(
        'invalid-argument',
        `steps in flight: expected fewer than ${this.info.maxStepsInFlight}, found ${this.#numUnsettled}`,
      );
    }
    checkBatch(batch, this.info, this.#numPreviousRows);
    this.#numPreviousRows = batch.rowFlags.length;
    const copy = copyBatch(batch);
    const stepIndex = this.#numSubmitted++;
    const gate = this.#isHolding ? new Promise<void>((resolve) => this.#held.push(resolve)) : undefined;
    this.#numUnsettled++;
    const result = this.#enqueue(async () => {
      await gate;
      await this.#options.latency?.(stepIndex);
      this.#numUnsettled--;
      return this.#run(copy);
    });
    return { result };
  }

  async copyBlocks(group: number, copies: readonly BlockCopy[]): Promise<void> {
    const pool = this.#pool(group);
    const { blockTokens } = this.info.cacheSpec;
    for (const { source, destination, numTokens } of copies) {
      this.#checkBlockIds(group, Int32Array.of(source, destination));
      if (!Number.isInteger(numTokens) || numTokens < 0 || numTokens > blockTokens) {
        throw new KvasirError('invalid-argument', `tokens to copy: expected 0 to ${blockTokens}, found ${numTokens}`);
      }
    }
    const wanted = copies.map((copy) => ({ ...copy }));
    await this.#enqueue(() => {
      for (const copy of wanted) pool.copy(copy);
    });
  }

  async readBlocks(group: number, blockIds: Int32Array, into?: Uint8Array): Promise<Uint8Array> {
    const pool = this.#pool(group);
    this.#checkBlockIds(group, blockIds);
    const wanted = blockIds.slice();
    const bytes = this.info.cacheSpec.bytesPerBlock(group);
    const payloads = into ?? new Uint8Array(wanted.length * bytes);
    if (payloads.length !== wanted.length * bytes) {
      throw new KvasirError(
        'invalid-argument',
        `into: expected ${wanted.length * bytes} bytes for ${wanted.length} blocks, found ${payloads.length}`,
      );
    }
    return await this.#enqueue(() => {
      for (const [index, blockId] of wanted.entries()) payloads.set(pool.payload(blockId), index * bytes);
      return payloads;
    });
  }

  async writeBlocks(group: number, blockIds: Int32Array, payloads: Uint8Array): Promise<void> {
    const pool = this.#pool(group);
    this.#checkBlockIds(group, blockIds);
    const bytes = this.info.cacheSpec.bytesPerBlock(group);
    if (payloads.length !== blockIds.length * bytes) {
      throw new KvasirError(
        'invalid-argument',
        `payloads: expected ${blockIds.length * bytes} bytes, found ${payloads.length}`,
      );
    }
    const wanted = blockIds.slice();
    await this.#enqueue(() => {
      for (const [index, blockId] of wanted.entries()) {
        pool.payload(blockId).set(payloads.subarray(index * bytes, (index + 1) * bytes));
      }
    });
  }

  memory(): RunnerMemory {
    this.#checkOpen();
    const kvPoolBytes = this.info.numBlocks.reduce(
      (sum, numBlocks, group) => sum + numBlocks * this.info.cacheSpec.bytesPerBlock(group),
      0,
    );
    return {
      weightsMappedBytes: 0,
      weightsRepackedBytes: 0,
      kvPoolBytes,
      workspaceBytes: 0,
      pinnedBytes: 0,
      hostBytes: 0,
      allocations: 0,
      residencyChecks: 0,
      residencyFailures: 0,
    };
  }

  dispose(): Promise<void> {
    this.#disposal ??= this.#enqueue(() => undefined);
    this.#deathCause = new KvasirError('disposed', 'runner: expected a live one, found it disposed');
    this.releaseAll();
    return this.#disposal;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** Runs in call order; a failure concerns its own caller alone. */
  #enqueue<Value>(run: () => Value | Promise<Value>): Promise<Value> {
    const turn = this.#queue.then(run);
    this.#queue = turn.catch(() => undefined);
    return turn;
  }

  #run(batch: StepBatch): StepResult {
    const start = this.#options.clock?.now() ?? 0;
    const previousIds = this.#previousIds;
    this.#previousIds = null;
    const failure = this.#failures.shift();
    if (failure?.code === 'device-lost' || failure?.code === 'file-truncated') this.#deathCause ??= failure;
    if (failure !== undefined) throw failure;
    if (this.#deathCause !== null) throw this.#deathCause;
    for (const admission of batch.admissions) this.#samplers.set(admission.slot, new FakeSampler(admission));
    const result = runFakeStep(batch, {
      pools: this.#pools,
      samplers: this.#samplers,
      previousIds,
      vocabularySize: this.info.vocabularySize,
    });
    this.#previousIds = result.sampledIds.slice();
    this.#numStepsRun++;
    return { ...result, executeMs: (this.#options.clock?.now() ?? 0) - start };
  }

  #pool(group: number): FakeKvPool {
    this.#checkOpen();
    const pool = this.#pools[group];
    if (pool === undefined) {
      throw new KvasirError('invalid-argument', `layer group: expected < ${this.#pools.length}, found ${group}`);
    }
    return pool;
  }

  #checkBlockIds(group: number, blockIds: Int32Array): void {
    const numBlocks = this.info.numBlocks[group] as number;
    const bad = blockIds.find((blockId) => blockId < 0 || blockId >= numBlocks);
    if (bad !== undefined) {
      throw new KvasirError('invalid-argument', `block id: expected 0 to ${numBlocks - 1}, found ${bad}`);
    }
  }

  #checkOpen(): void {
    if (this.#deathCause?.code === 'disposed') throw this.#deathCause;
  }
}
