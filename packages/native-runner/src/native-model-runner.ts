import { KvasirError } from '@kvasir/domain';
import type { BlockCopy, ModelRunner, RunnerInfo, RunnerMemory, StepBatch, StepHandle } from '@kvasir/domain';
import type { AddonStepResult, KvasirAddon, RunnerHandle } from './addon.ts';
import { toAddonBatch, toStepResult } from './batch-to-addon.ts';
import { toKvasirError } from './status-error.ts';
import type { UnsettledCalls } from './unsettled-calls.ts';

/**
 * A runner of whichever backend the addon was built with. Made by `createNativeModelLoader`.
 *
 * Dropped without `dispose`, it is destroyed by the garbage collector, at a moment nobody chooses and with a process
 * warning: a leak alarm, not a plan.
 */
export class NativeModelRunner implements ModelRunner {
  readonly info: RunnerInfo;
  readonly #addon: KvasirAddon;
  readonly #handle: RunnerHandle;
  readonly #calls: UnsettledCalls;
  #stepsInFlight = 0;
  #disposal: Promise<void> | null = null;

  constructor(addon: KvasirAddon, handle: RunnerHandle, calls: UnsettledCalls, info: RunnerInfo) {
    this.info = info;
    this.#addon = addon;
    this.#handle = handle;
    this.#calls = calls;
    leakAlarm.register(this, `${info.backend} runner ${info.numericsId}`, this);
  }

  submit(batch: StepBatch): StepHandle {
    if (this.#stepsInFlight >= this.info.maxStepsInFlight) {
      throw new KvasirError(
        'invalid-argument',
        `submit: expected fewer than ${this.info.maxStepsInFlight} unsettled steps, found ${this.#stepsInFlight}; await one first`,
        { facts: { maxStepsInFlight: this.info.maxStepsInFlight } },
      );
    }
    const settled = this.#start((ticket) => this.#addon.submit(this.#handle, ticket, toAddonBatch(batch)));
    this.#stepsInFlight += 1;
    const result = settled
      .finally(() => {
        this.#stepsInFlight -= 1;
      })
      .then((step) => {
        if (step === null) throw new KvasirError('internal', 'submit: expected a step result, found none');
        return toStepResult(step);
      });
    // Whoever awaits the result hears of its failure; a step nobody awaits any more, after an abort, must not end the
    // process as an unhandled rejection.
    result.catch(() => undefined);
    return { result };
  }

  async copyBlocks(group: number, copies: readonly BlockCopy[]): Promise<void> {
    const sources = Int32Array.from(copies, (copy) => copy.source);
    const destinations = Int32Array.from(copies, (copy) => copy.destination);
    const numTokens = Int32Array.from(copies, (copy) => copy.numTokens);
    await this.#start((ticket) =>
      this.#addon.copyBlocks(this.#handle, ticket, group, sources, destinations, numTokens),
    );
  }

  /** Another length of `into` is refused by the waist, which knows what the blocks take. */
  async readBlocks(group: number, blockIds: Int32Array, into?: Uint8Array): Promise<Uint8Array> {
    const blockBytes = this.#call(() => this.#addon.blockBytes(this.#handle, group));
    // Every byte of it is written before anybody sees it: zeros would be written for nothing, on this thread.
    const payloads = into ?? new Uint8Array(Buffer.allocUnsafeSlow(blockBytes * blockIds.length).buffer);
    await this.#start((ticket) => this.#addon.readBlocks(this.#handle, ticket, group, blockIds, payloads));
    return payloads;
  }

  /** `payloads` is read where it lies: it must neither change nor be transferred until the promise settles. */
  async writeBlocks(group: number, blockIds: Int32Array, payloads: Uint8Array): Promise<void> {
    await this.#start((ticket) => this.#addon.writeBlocks(this.#handle, ticket, group, blockIds, payloads));
  }

  memory(): RunnerMemory {
    return this.#call(() => this.#addon.memory(this.#handle));
  }

  dispose(): Promise<void> {
    this.#disposal ??= this.#destroy();
    return this.#disposal;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #destroy(): Promise<void> {
    leakAlarm.unregister(this);
    await this.#start((ticket) => this.#addon.destroyRunner(this.#handle, ticket));
  }

  /** Calls the addon and waits for the call's ticket. Refusals throw at once, failures reject; both as KvasirError. */
  #start(call: (ticket: number) => void): Promise<AddonStepResult | null> {
    return this.#call(() => this.#calls.start(call)).catch((error: unknown) => {
      throw toKvasirError(error, 'running');
    });
  }

  #call<Result>(call: () => Result): Result {
    if (this.#disposal !== null) {
      throw new KvasirError(
        'disposed',
        'the runner was disposed: expected no call after dispose(); load the model again',
      );
    }
    try {
      return call();
    } catch (error) {
      throw toKvasirError(error, 'running');
    }
  }
}

const leakAlarm = new FinalizationRegistry<string>((name) => {
  process.emitWarning(`${name} was collected without dispose(): its KV pool lived until now`, 'KvasirLeakWarning');
});
