import { ROW_FLAGS, type ModelRunner, type StepBatch } from '@kvasir/domain';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { describeBlocks } from './model-runner-blocks.contract.ts';
import { describeSampling } from './model-runner-sampling.contract.ts';
import { batchOf, prefill, type Row, stepRows, submitRows, tokensOf } from './step-bench.ts';

export interface ModelRunnerHarness {
  /**
   * A fresh runner with poisoned memory and at least these limits: 16 tokens a block, 12 blocks in each layer group, 4 sequences, a
   * table of 8 blocks and 2 blocks' worth of tokens in a step. The suite disposes it.
   */
  open(): Promise<ModelRunner>;
}

/** What every ModelRunner owes the engine. Bits are compared by the hash of the logits. */
export function describeModelRunner(name: string, harness: ModelRunnerHarness): void {
  describe(`${name} as a ModelRunner`, () => {
    let runner: ModelRunner;
    beforeEach(async () => {
      runner = await harness.open();
    });
    afterEach(async () => {
      await runner.dispose();
    });
    const open = (): ModelRunner => runner;
    describeLimits(open);
    describeEquality(open);
    describeReading(open);
    describeRefusals(open);
    describeSampling(open);
    describeBlocks(open);
    describeLifetime(open, harness);
  });
}

/** More than two blocks, ending inside the third. */
function longPrompt(runner: ModelRunner, seed = 1): Int32Array {
  return tokensOf(runner, 2 * runner.info.cacheSpec.blockTokens + 3, seed);
}

function describeLimits(open: () => ModelRunner): void {
  it('states limits a schedule can be made from', () => {
    const { info } = open();
    expect(info.vocabularySize).toBeGreaterThan(1);
    expect(info.numBlocks).toHaveLength(info.cacheSpec.groups.length);
    for (const numBlocks of info.numBlocks) expect(numBlocks).toBeGreaterThanOrEqual(12);
    expect(info.maxBatchTokens).toBeGreaterThanOrEqual(2 * info.cacheSpec.blockTokens);
    expect(info.maxBatchSequences).toBeGreaterThanOrEqual(4);
    expect(info.maxBlocksPerSequence).toBeGreaterThanOrEqual(8);
    expect(info.numSamplerSlots).toBeGreaterThanOrEqual(info.maxBatchSequences);
    expect([1, 2]).toContain(info.maxStepsInFlight);
    for (const identity of [info.backend, info.device, info.numericsId, info.instructionPath]) {
      expect(identity).not.toBe('');
    }
  });

  it('states its memory, and allocates nothing from one decoding step to the next', async () => {
    const runner = open();
    const promptIds = longPrompt(runner);
    await prefill(runner, promptIds, [0, 1, 2]);
    const step = (index: number) =>
      stepRows(runner, [{ tokenIds: [index], position: promptIds.length + index, table: [0, 1, 2] }]);
    await step(0);
    const before = runner.memory();
    const spec = runner.info.cacheSpec;
    const poolBytes = runner.info.numBlocks.reduce((sum, count, group) => sum + count * spec.bytesPerBlock(group), 0);
    expect(before.kvPoolBytes).toBeGreaterThanOrEqual(poolBytes);
    await step(1);
    expect(runner.memory().allocations).toBe(before.allocations);
  });
}

function describeEquality(open: () => ModelRunner): void {
  it('gives the same bits however a prompt is chunked', async () => {
    const runner = open();
    const { blockTokens } = runner.info.cacheSpec;
    const promptIds = longPrompt(runner);
    const hashes: bigint[] = [];
    for (const chunkTokens of [2 * blockTokens, blockTokens, blockTokens - 1, 3]) {
      const result = await prefill(runner, promptIds, [0, 1, 2], { chunkTokens });
      hashes.push(result.hashes[0] as bigint);
    }
    expect(hashes[0]).not.toBe(0n);
    expect(hashes).toEqual(hashes.map(() => hashes[0]));
  });

  it('gives the same bits in any blocks, in any order, and others for another prompt', async () => {
    const runner = open();
    const promptIds = longPrompt(runner);
    const inOrder = await prefill(runner, promptIds, [0, 1, 2]);
    const scattered = await prefill(runner, promptIds, [9, 4, 7]);
    const other = await prefill(runner, longPrompt(runner, 2), [3, 5, 6]);
    expect(scattered.hashes[0]).toBe(inOrder.hashes[0]);
    expect(other.hashes[0]).not.toBe(inOrder.hashes[0]);
  });

  it('gives the same bits beside strangers, prefilling and decoding ones alike', async () => {
    const runner = open();
    const promptIds = longPrompt(runner);
    const prompt = promptIds.subarray(0, -1);
    const last: Row = { tokenIds: promptIds.subarray(-1), position: prompt.length, table: [0, 1, 2] };
    await prefill(runner, prompt, [0, 1, 2]);
    const alone = await stepRows(runner, [last]);
    await prefill(runner, prompt, [10, 3, 8]);
    const short = tokensOf(runner, 5, 3);
    await prefill(runner, short, [6]);
    const together = await stepRows(runner, [
      { tokenIds: tokensOf(runner, 7, 4), position: 0, table: [4] },
      { ...last, table: [10, 3, 8] },
      { tokenIds: [1], position: 5, table: [6] },
    ]);
    expect(together.hashes[1]).toBe(alone.hashes[0]);
    const swapped = await stepRows(runner, [
      { tokenIds: [1], position: 5, table: [6] },
      { ...last, table: [10, 3, 8] },
    ]);
    expect(swapped.hashes).toEqual(together.hashes.slice(1).reverse());
  });

  it("reads the context it is given: a stranger's block in the table changes the bits", async () => {
    const runner = open();
    const promptIds = longPrompt(runner);
    const row = { tokenIds: promptIds.subarray(-1), position: promptIds.length - 1, isRead: true };
    const right = await prefill(runner, promptIds, [0, 1, 2]);
    await prefill(runner, longPrompt(runner, 2), [3, 4, 5]);
    const wrong = await stepRows(runner, [{ ...row, table: [0, 4, 2] }]);
    const again = await stepRows(runner, [{ ...row, table: [0, 1, 2] }]);
    expect(wrong.hashes[0]).not.toBe(right.hashes[0]);
    expect(again.hashes[0]).toBe(right.hashes[0]);
  });

  it('keeps what it was given: arrays may be written again once submit has returned', async () => {
    const runner = open();
    const promptIds = tokensOf(runner, 9, 1);
    const kept = await prefill(runner, promptIds, [0, 1, 2]);
    const batch = batchOf(runner, [{ tokenIds: promptIds, position: 0, table: [3] }]);
    const handle = runner.submit(batch);
    for (const array of [batch.tokenIds, batch.positions, batch.contextLengths, batch.cuSeqlensQ]) array.fill(0);
    for (const { blockTables, slotMapping } of batch.groups) {
      blockTables.fill(0);
      slotMapping.fill(0);
    }
    batch.rowFlags.fill(0);
    expect((await handle.result).hashes[0]).toBe(kept.hashes[0]);
  });
}

function describeReading(open: () => ModelRunner): void {
  it('returns logits of every token, the last of them those it returns for the last alone', async () => {
    const runner = open();
    const { vocabularySize } = runner.info;
    const promptIds = tokensOf(runner, 6, 1);
    const all = await prefill(runner, promptIds, [0], { flags: ROW_FLAGS.logitsAll });
    expect(all.logits).toHaveLength(6 * vocabularySize);
    expect(all.logitsTokens).toEqual(Uint32Array.of(0, 1, 2, 3, 4, 5));
    for (let length = 1; length <= 6; length++) {
      const last = await prefill(runner, promptIds.subarray(0, length), [1], { flags: ROW_FLAGS.logitsLast });
      expect(last.logits).toEqual(all.logits.subarray((length - 1) * vocabularySize, length * vocabularySize));
    }
  });

  it('places rows of logits by the batch token they belong to', async () => {
    const runner = open();
    const { vocabularySize } = runner.info;
    const result = await stepRows(runner, [
      { tokenIds: tokensOf(runner, 3, 1), position: 0, table: [0], flags: 0 },
      { tokenIds: tokensOf(runner, 2, 2), position: 0, table: [1], flags: ROW_FLAGS.logitsAll },
      { tokenIds: tokensOf(runner, 4, 3), position: 0, table: [2], flags: ROW_FLAGS.logitsLast + ROW_FLAGS.hash },
    ]);
    expect(result.logitsTokens).toEqual(Uint32Array.of(3, 4, 8));
    expect(result.logits).toHaveLength(3 * vocabularySize);
    expect(result.sampledIds).toEqual(Int32Array.of(-1, -1, -1));
    expect([...result.hashes].map((hash) => hash !== 0n)).toEqual([false, false, true]);
  });

  it('returns the log-probability of targets where they are asked for', async () => {
    const runner = open();
    const { vocabularySize } = runner.info;
    const promptIds = tokensOf(runner, 5, 1);
    const { logits } = await prefill(runner, promptIds, [0], { flags: ROW_FLAGS.logitsAll });
    const targetIds = [...promptIds.subarray(1), -1];
    const result = await stepRows(runner, [
      { tokenIds: promptIds, position: 0, table: [1], flags: ROW_FLAGS.targets, targetIds },
      { tokenIds: [1, 2], position: 0, table: [2], flags: ROW_FLAGS.hash },
    ]);
    expect(result.targetLogprobs).toHaveLength(7);
    expect([...result.targetLogprobs.subarray(4)]).toEqual([Number.NaN, Number.NaN, Number.NaN]);
    for (let token = 0; token < 4; token++) {
      const row = logits.subarray(token * vocabularySize, (token + 1) * vocabularySize);
      const highest = Math.max(...row);
      const total = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - highest), 0));
      const expected = (row[targetIds[token] as number] as number) - highest - total;
      expect(result.targetLogprobs[token]).toBeCloseTo(expected, 3);
    }
  });
}

/** Each breaks one promise of the port. */
const BREAKS: Readonly<Record<string, (batch: StepBatch, runner: ModelRunner) => Partial<StepBatch>>> = {
  'no token': () => ({ tokenIds: new Int32Array(0), positions: new Int32Array(0) }),
  'a token id outside the vocabulary': (batch, runner) => ({
    tokenIds: batch.tokenIds.with(0, runner.info.vocabularySize),
  }),
  'a negative token id': (batch) => ({ tokenIds: batch.tokenIds.with(1, -1) }),
  'positions that skip one': (batch) => ({ positions: batch.positions.with(1, 7) }),
  'a negative position': (batch) => ({ positions: batch.positions.with(0, -1) }),
  'cumulative lengths that do not end at T': (batch) => ({ cuSeqlensQ: batch.cuSeqlensQ.with(1, 2) }),
  'a context length that is not the last position + 1': (batch) => ({
    contextLengths: batch.contextLengths.with(0, 9),
  }),
  'a block id outside the pool': (batch, runner) => ({
    groups: batch.groups.map((group, index) => ({
      ...group,
      blockTables: group.blockTables.with(0, runner.info.numBlocks[index] as number),
    })),
  }),
  'a missing block': (batch) => ({
    groups: batch.groups.map((group) => ({ ...group, blockTables: group.blockTables.with(0, -1) })),
  }),
  'a slot outside the pool': (batch, runner) => ({
    groups: batch.groups.map((group, index) => ({
      ...group,
      slotMapping: group.slotMapping.with(
        0,
        (runner.info.numBlocks[index] as number) * runner.info.cacheSpec.blockTokens,
      ),
    })),
  }),
  'a missing layer group': () => ({ groups: [] }),
  'an input row of no batch': (batch, runner) => ({
    inputRows: batch.inputRows.with(0, runner.info.maxBatchSequences),
  }),
  'a sampler slot that is none': (batch, runner) => ({
    samplerSlots: batch.samplerSlots.with(0, runner.info.numSamplerSlots),
    rowFlags: batch.rowFlags.with(0, ROW_FLAGS.sample),
  }),
  'targets asked for and not given': (batch) => ({ rowFlags: batch.rowFlags.with(0, ROW_FLAGS.targets) }),
};

function describeRefusals(open: () => ModelRunner): void {
  for (const [what, breakIt] of Object.entries(BREAKS)) {
    it(`refuses ${what} with invalid-argument, and goes on as if nothing had been`, async () => {
      const runner = open();
      const promptIds = tokensOf(runner, 3, 1);
      const good = batchOf(runner, [{ tokenIds: promptIds, position: 0, table: [0] }]);
      const before = await runner.submit(good).result;
      expect(() => runner.submit({ ...good, ...breakIt(good, runner) })).toThrow(
        expect.objectContaining({ code: 'invalid-argument' }),
      );
      const after = await runner.submit(good).result;
      expect(after.hashes).toEqual(before.hashes);
    });
  }

  it('refuses more tokens than it was loaded for', () => {
    const runner = open();
    const { maxBatchTokens, cacheSpec } = runner.info;
    const tokenIds = tokensOf(runner, maxBatchTokens + 1, 1);
    const table = Array.from({ length: cacheSpec.blocksForTokens(maxBatchTokens + 1) }, (_, index) => index);
    expect(() => submitRows(runner, [{ tokenIds, position: 0, table }])).toThrow(
      expect.objectContaining({ code: 'invalid-argument' }),
    );
  });
}

function describeLifetime(open: () => ModelRunner, harness: ModelRunnerHarness): void {
  it('disposes twice as once and refuses everything afterwards', async () => {
    const runner = open();
    await Promise.all([runner.dispose(), runner.dispose()]);
    await runner.dispose();
    const refusal = expect.objectContaining({ code: 'disposed' });
    expect(() => submitRows(runner, [{ tokenIds: [1], position: 0, table: [0] }])).toThrow(refusal);
    expect(() => runner.memory()).toThrow(refusal);
    await expect(runner.readBlocks(0, Int32Array.of(0))).rejects.toMatchObject({ code: 'disposed' });
    await expect(runner.copyBlocks(0, [])).rejects.toMatchObject({ code: 'disposed' });
  });

  it('settles every step in flight when it is disposed: with its result or with disposed', async () => {
    const runner = open();
    const promptIds = longPrompt(runner);
    const handles = Array.from({ length: runner.info.maxStepsInFlight }, (_, index) =>
      submitRows(runner, [{ tokenIds: promptIds.subarray(0, 2), position: 0, table: [index] }]),
    );
    const settled = Promise.allSettled(handles.map((handle) => handle.result));
    await runner.dispose();
    for (const outcome of await settled) {
      const code = outcome.status === 'fulfilled' ? 'disposed' : (outcome.reason as { code: string }).code;
      expect(code).toBe('disposed');
    }
  });

  it('lives beside another runner without touching it', async () => {
    const runner = open();
    const promptIds = longPrompt(runner);
    const before = await prefill(runner, promptIds, [0, 1, 2]);
    const other = await harness.open();
    await prefill(other, longPrompt(runner, 5), [0, 1, 2]);
    await other.dispose();
    const row = { tokenIds: promptIds.subarray(-1), position: promptIds.length - 1, table: [0, 1, 2], isRead: true };
    expect((await stepRows(runner, [row])).hashes[0]).toBe(before.hashes[0]);
  });
}
