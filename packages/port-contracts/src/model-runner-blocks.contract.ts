import type { ModelRunner } from '@kvasir/domain';
import { expect, it } from 'vitest';
import { prefill, type Row, stepRows, submitRows, tokensOf } from './step-bench.ts';

/** Blocks as payloads and copies; part of `describeModelRunner`. */
export function describeBlocks(open: () => ModelRunner): void {
  const promptFor = (runner: ModelRunner, seed = 1): Int32Array =>
    tokensOf(runner, 2 * runner.info.cacheSpec.blockTokens + 3, seed);
  /** Runs a prompt's last token again without writing: the bits tell what its blocks hold. */
  const probe = (promptIds: Int32Array, table: readonly number[]): Row => ({
    tokenIds: promptIds.subarray(-1),
    position: promptIds.length - 1,
    table,
    isRead: true,
  });
  const groupsOf = (runner: ModelRunner): number[] => [...runner.info.numBlocks.keys()];

  it('returns payloads of the size the cache spec computes, and takes them back into other blocks', async () => {
    const runner = open();
    const promptIds = promptFor(runner);
    const { hashes } = await prefill(runner, promptIds, [0, 1, 2]);
    for (const group of groupsOf(runner)) {
      const payloads = await runner.readBlocks(group, Int32Array.of(0, 1, 2));
      expect(payloads).toHaveLength(3 * runner.info.cacheSpec.bytesPerBlock(group));
      await runner.writeBlocks(group, Int32Array.of(8, 6, 10), payloads);
      expect(await runner.readBlocks(group, Int32Array.of(6))).toEqual(
        await runner.readBlocks(group, Int32Array.of(1)),
      );
    }
    expect((await stepRows(runner, [probe(promptIds, [8, 6, 10])])).hashes).toEqual(hashes);
  });

  it('reads into memory of the caller, shared or not, and refuses memory of another length', async () => {
    const runner = open();
    await prefill(runner, promptFor(runner), [0, 1, 2]);
    const ids = Int32Array.of(2, 0);
    const payloads = await runner.readBlocks(0, ids);
    for (const memory of [new ArrayBuffer(payloads.length), new SharedArrayBuffer(payloads.length)]) {
      const into = new Uint8Array(memory).fill(0xa5);
      expect(await runner.readBlocks(0, ids, into)).toBe(into);
      expect(Buffer.compare(into, payloads)).toBe(0);
    }
    const tooLong = new Uint8Array(payloads.length + 1);
    await expect(runner.readBlocks(0, ids, tooLong)).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('notices one changed byte of a restored block', async () => {
    const runner = open();
    const promptIds = promptFor(runner);
    const { hashes } = await prefill(runner, promptIds, [0, 1, 2]);
    const payloads = await runner.readBlocks(0, Int32Array.of(1));
    // A high byte of a value in the middle of the block: a low bit of a mantissa might be lost in rounding.
    const at = Math.floor(payloads.length / 4) | 3;
    payloads[at] = (payloads[at] as number) ^ 0x41;
    await runner.writeBlocks(0, Int32Array.of(1), payloads);
    expect((await stepRows(runner, [probe(promptIds, [0, 1, 2])])).hashes).not.toEqual(hashes);
  });

  it('writes nothing for a token whose slot is -1', async () => {
    const runner = open();
    const promptIds = promptFor(runner);
    const { hashes } = await prefill(runner, promptIds, [0, 1, 2]);
    const before = await runner.readBlocks(0, Int32Array.of(2));
    expect((await stepRows(runner, [probe(promptIds, [0, 1, 2])])).hashes).toEqual(hashes);
    expect(await runner.readBlocks(0, Int32Array.of(2))).toEqual(before);
  });

  it('copies the leading slots of a block, so that a fork goes on without recomputing', async () => {
    const runner = open();
    const { blockTokens } = runner.info.cacheSpec;
    const promptIds = promptFor(runner);
    await prefill(runner, promptIds, [0, 1, 2]);
    // The fork leaves the prompt inside the second block and goes its own way.
    const numShared = blockTokens + 2;
    const forkIds = Int32Array.from([...promptIds.subarray(0, numShared), ...tokensOf(runner, 3, 8)]);
    const fresh = await prefill(runner, forkIds, [3, 4]);
    for (const group of groupsOf(runner)) {
      await runner.copyBlocks(group, [{ source: 1, destination: 5, numTokens: 2 }]);
    }
    const tail = { tokenIds: forkIds.subarray(numShared), position: numShared, table: [0, 5] };
    expect((await stepRows(runner, [tail])).hashes).toEqual(fresh.hashes);
  });

  it('runs copies and payloads in order with the steps around them', async () => {
    const runner = open();
    const promptIds = tokensOf(runner, 3, 1);
    const otherIds = tokensOf(runner, 3, 2);
    const { hashes } = await prefill(runner, promptIds, [0]);
    await prefill(runner, otherIds, [1]);
    // Submitted without waiting: the copy must come after the first step and before the block is written again.
    const first = submitRows(runner, [{ tokenIds: promptIds, position: 0, table: [1] }]);
    const copies = groupsOf(runner).map((group) =>
      runner.copyBlocks(group, [{ source: 1, destination: 2, numTokens: 3 }]),
    );
    await first.result;
    const second = submitRows(runner, [{ tokenIds: otherIds, position: 0, table: [1] }]);
    await Promise.all([second.result, ...copies]);
    expect((await stepRows(runner, [probe(promptIds, [2])])).hashes).toEqual(hashes);
  });

  it('reads a block as it was when that was asked for, however soon later steps overwrite it', async () => {
    const runner = open();
    const prompts = Array.from({ length: 5 }, (_, seed) => tokensOf(runner, 3, 20 + seed));
    const expected = [];
    for (const promptIds of prompts) expected.push((await prefill(runner, promptIds, [0])).hashes);
    // Five steps write the same block and each is read before the next; no read is waited for.
    const steps: Promise<unknown>[] = [];
    const readings = [];
    for (const promptIds of prompts) {
      if (steps.length >= runner.info.maxStepsInFlight) await steps.shift();
      steps.push(submitRows(runner, [{ tokenIds: promptIds, position: 0, table: [1] }]).result);
      readings.push(Promise.all(groupsOf(runner).map((group) => runner.readBlocks(group, Int32Array.of(1)))));
    }
    await Promise.all(steps);
    for (const [index, reading] of readings.entries()) {
      const payloads = await reading;
      for (const group of groupsOf(runner)) {
        await runner.writeBlocks(group, Int32Array.of(2), payloads[group] as Uint8Array);
      }
      const { hashes } = await stepRows(runner, [probe(prompts[index] as Int32Array, [2])]);
      expect(hashes).toEqual(expected[index]);
    }
  });

  it('gives a block that was taken from a sequence in flight to the next one whole', async () => {
    const runner = open();
    const victimIds = promptFor(runner, 3);
    const heirIds = promptFor(runner, 4);
    const expected = await prefill(runner, heirIds, [9, 10, 11]);
    await prefill(runner, victimIds, [0, 1, 2]);
    // The victim is aborted while its step flies; its blocks go to the heir once that step is done.
    const flying = submitRows(runner, [{ tokenIds: [1], position: victimIds.length, table: [0, 1, 2] }]);
    await flying.result;
    expect((await prefill(runner, heirIds, [2, 0, 1])).hashes).toEqual(expected.hashes);
  });

  it('refuses blocks, groups and sizes that are none, and goes on', async () => {
    const runner = open();
    const refusal = { code: 'invalid-argument' };
    const numBlocks = runner.info.numBlocks[0] as number;
    const bytes = runner.info.cacheSpec.bytesPerBlock(0);
    const outside = Int32Array.of(numBlocks);
    await expect(runner.readBlocks(0, outside)).rejects.toMatchObject(refusal);
    await expect(runner.readBlocks(runner.info.numBlocks.length, Int32Array.of(0))).rejects.toMatchObject(refusal);
    await expect(runner.writeBlocks(0, outside, new Uint8Array(bytes))).rejects.toMatchObject(refusal);
    await expect(runner.writeBlocks(0, Int32Array.of(0), new Uint8Array(bytes - 1))).rejects.toMatchObject(refusal);
    const copy = { source: 0, destination: 1, numTokens: 1 };
    for (const bad of [{ source: -1 }, { destination: numBlocks }, { numTokens: 1 << 20 }]) {
      await expect(runner.copyBlocks(0, [{ ...copy, ...bad }])).rejects.toMatchObject(refusal);
    }
    expect(await runner.readBlocks(0, new Int32Array(0))).toHaveLength(0);
  });
}
