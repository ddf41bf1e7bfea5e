import type { BlockCopy, ModelRunner, RunnerInfo, RunnerMemory, StepBatch, StepHandle } from '@kvasir/domain';

/** What the device was given, counted where it was given. */
export interface RunnerTraffic {
  /** Tokens of all steps. */
  tokens: number;
  /** Bytes of KV written to the pool and read from it. */
  writtenBytes: number;
  readBytes: number;
}

/** A mistake on the way to the device: what a test of equal outputs must notice. */
export type Sabotage = 'none' | 'flip-bit' | 'repeat-block' | 'shift-positions';

/** A runner that counts what passes through it and, when asked to, makes one mistake. It does not own the other. */
export class WatchedRunner implements ModelRunner {
  readonly traffic: RunnerTraffic = { tokens: 0, writtenBytes: 0, readBytes: 0 };
  sabotage: Sabotage = 'none';
  readonly #runner: ModelRunner;

  constructor(runner: ModelRunner) {
    this.#runner = runner;
  }

  get info(): RunnerInfo {
    return this.#runner.info;
  }

  submit(batch: StepBatch): StepHandle {
    this.traffic.tokens += batch.tokenIds.length;
    return this.#runner.submit(this.#spoil(batch));
  }

  copyBlocks(group: number, copies: readonly BlockCopy[]): Promise<void> {
    return this.#runner.copyBlocks(group, copies);
  }

  readBlocks(group: number, blockIds: Int32Array, into?: Uint8Array): Promise<Uint8Array> {
    this.traffic.readBytes += blockIds.length * this.info.cacheSpec.bytesPerBlock(group);
    return this.#runner.readBlocks(group, blockIds, into);
  }

  writeBlocks(group: number, blockIds: Int32Array, payloads: Uint8Array): Promise<void> {
    this.traffic.writtenBytes += payloads.length;
    if (this.sabotage !== 'flip-bit') return this.#runner.writeBlocks(group, blockIds, payloads);
    const spoilt = payloads.slice();
    // The sign of a value in the middle of the first head's first token: a slot every match keeps.
    const at = (this.info.cacheSpec.groups[group]?.layers[0]?.headDim ?? 2) - 1;
    spoilt[at] = (spoilt[at] as number) ^ 0x80;
    return this.#runner.writeBlocks(group, blockIds, spoilt);
  }

  memory(): RunnerMemory {
    return this.#runner.memory();
  }

  dispose(): Promise<void> {
    return this.#runner.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #spoil(batch: StepBatch): StepBatch {
    if (this.sabotage === 'repeat-block') {
      return {
        ...batch,
        groups: batch.groups.map((group) => {
          const blockTables = group.blockTables.slice();
          const [first, second] = blockTables;
          if (group.blockTableWidth > 1 && second !== undefined && second >= 0) {
            blockTables[1] = first as number;
          }
          return { ...group, blockTables };
        }),
      };
    }
    if (this.sabotage === 'shift-positions') {
      return {
        ...batch,
        positions: batch.positions.map((position) => position - 1),
        contextLengths: batch.contextLengths.map((length) => length - 1),
        groups: batch.groups.map((group) => ({
          ...group,
          slotMapping: group.slotMapping.map((slot) => (slot < 0 ? slot : slot - 1)),
        })),
      };
    }
    return batch;
  }
}
