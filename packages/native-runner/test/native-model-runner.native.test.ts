import type { ModelRunner, StepHandle } from '@kvasir/domain';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createNativeModelLoader } from '../src/index.ts';
import type { KvasirAddon } from '../src/index.ts';
import { MALFORMED_BATCHES, admission, decodeBatch, prefillBatch } from './batches.ts';
import { FAKE_MODEL, fakeOptions, openFakeAddon } from './fake-addon.ts';

const TOKEN_BYTES = 2 * 2 * 2 * 8 * 2; // layers, K and V, heads, head dimension, f16

let addon: KvasirAddon;
beforeAll(async () => {
  addon = await openFakeAddon();
});

const open: ModelRunner[] = [];
async function load(settings = '', more = {}): Promise<ModelRunner> {
  const runner = await createNativeModelLoader(addon).load(FAKE_MODEL, fakeOptions(settings, more));
  open.push(runner);
  return runner;
}
afterEach(async () => {
  await Promise.all(open.splice(0).map((runner) => runner.dispose()));
});

describe('a step', () => {
  it('returns every part of its result as the backend gave it', async () => {
    const runner = await load();
    const batch = {
      ...prefillBatch([1, 2, 3]),
      rowFlags: Uint8Array.of(1 | 4 | 8 | 16),
      targetIds: Int32Array.of(-1, 4, 5),
      admissions: [admission({ maxOutputs: 1 }, { logprobs: 2, logitBias: new Map([[3, 1.5]]) })],
    };
    const { logits, executeMs, hashes, ...small } = await runner.submit(batch).result;
    const sampled = Number((hashes[0] ?? 0n) % 100n);
    expect(small).toEqual({
      sampledIds: Int32Array.of(sampled),
      stops: Uint8Array.of(2),
      sampledLogprobs: Float32Array.of(-0.5),
      topIds: Int32Array.of(sampled, (sampled + 1) % 100),
      topLogprobs: Float32Array.of(-0.5, -1.5),
      maxLogprobs: 2,
      logitsTokens: Uint32Array.of(0, 1, 2),
      targetLogprobs: Float32Array.of(Number.NaN, -4, -5),
    });
    expect(logits.length).toBe(3 * 100);
    expect(logits.every((logit) => logit >= 0 && logit < 1)).toBe(true);
    expect(executeMs).toBeGreaterThanOrEqual(0);
  });

  it('leaves out what no row asked for', async () => {
    const runner = await load();
    const result = await runner.submit({ ...prefillBatch([1]), rowFlags: Uint8Array.of(0) }).result;
    expect(result).toMatchObject({
      sampledIds: Int32Array.of(-1),
      hashes: BigUint64Array.of(0n),
      logits: new Float32Array(),
      targetLogprobs: new Float32Array(),
      topIds: new Int32Array(),
      maxLogprobs: 0,
    });
  });

  it('copies its arrays before submit returns', async () => {
    const runner = await load('step_us=20000');
    const expected = await runner.submit(prefillBatch([1, 2, 3])).result;
    const batch = prefillBatch([1, 2, 3]);
    const changed = runner.submit(batch);
    batch.tokenIds.fill(99);
    batch.rowFlags.fill(0);
    expect((await changed.result).hashes).toEqual(expected.hashes);
  });

  it('reads its first token from the step in flight before it', async () => {
    const runner = await load('step_us=10000');
    const [first, second] = [runner.submit(prefillBatch([1, 2])), runner.submit(decodeBatch(2, 1))];
    const sampled = (await first.result).sampledIds[0] ?? -1;
    const fed = { ...decodeBatch(2, 1), tokenIds: Int32Array.of(sampled), inputRows: Int32Array.of(-1) };
    expect((await runner.submit(fed).result).hashes).toEqual((await second.result).hashes);
  });

  it('settles in the order of submission', async () => {
    const runner = await load('step_us=2000');
    const order: number[] = [];
    const steps: StepHandle[] = [];
    for (let i = 0; i < 20; i += 1) {
      if (i >= 2) await steps[i - 2]?.result;
      const step = runner.submit(decodeBatch(i, i));
      steps.push(step);
      void step.result.then(() => order.push(i));
    }
    await steps.at(-1)?.result;
    expect(order).toEqual(Array.from({ length: 20 }, (_, i) => i));
  });

  it('is refused while two are unsettled, and accepted again once one has settled', async () => {
    const runner = await load('step_us=5000');
    const first = runner.submit(prefillBatch([1]));
    const second = runner.submit(prefillBatch([2]));
    expect(() => runner.submit(prefillBatch([3]))).toThrow(
      expect.objectContaining({ code: 'invalid-argument', message: expect.stringContaining('found 2') }),
    );
    await first.result;
    await runner.submit(prefillBatch([3])).result;
    await second.result;
  });

  it.each(MALFORMED_BATCHES)('with $name is refused as invalid-argument and does nothing', async ({ batch }) => {
    const runner = await load();
    expect(() => runner.submit(batch(prefillBatch([1, 2, 3])))).toThrow(
      expect.objectContaining({ name: 'KvasirError', code: 'invalid-argument' }),
    );
    await runner.submit(prefillBatch([1, 2, 3])).result;
  });

  it('that the backend refuses names what the backend expected', async () => {
    const runner = await load();
    const batch = prefillBatch([1]);
    batch.groups[0]?.slotMapping.fill(16 * 256);
    expect(() => runner.submit(batch)).toThrow(
      expect.objectContaining({ code: 'invalid-argument', message: 'slot_mapping: expected slots inside the pool' }),
    );
  });

  it('that loses the device fails with device-lost, and so does every later call', async () => {
    const runner = await load('lose_at=2');
    await runner.submit(prefillBatch([1])).result;
    await expect(runner.submit(prefillBatch([1])).result).rejects.toMatchObject({ code: 'device-lost' });
    expect(() => runner.submit(prefillBatch([1]))).toThrow(expect.objectContaining({ code: 'device-lost' }));
  });
});

describe('blocks', () => {
  it('come back as they were written', async () => {
    const runner = await load();
    const payload = Uint8Array.from({ length: 2 * 256 * TOKEN_BYTES }, (_, i) => (i * 31) & 0xff);
    await runner.writeBlocks(0, Int32Array.of(5, 2), payload);
    expect(Buffer.compare(await runner.readBlocks(0, Int32Array.of(5, 2)), payload)).toBe(0);
    expect((await runner.readBlocks(0, Int32Array.of(3))).every((byte) => byte === 0)).toBe(true);
  });

  it('are read after the steps submitted before, and written before those after', async () => {
    const runner = await load('step_us=5000');
    void runner.submit(prefillBatch([7, 8], 4));
    const block = await runner.readBlocks(0, Int32Array.of(4));
    expect([block[0], block[TOKEN_BYTES], block[2 * TOKEN_BYTES]]).toEqual([7, 8, 0]);
  });

  it('copy their first tokens only', async () => {
    const runner = await load();
    await runner.submit(prefillBatch([7, 8, 9], 1)).result;
    await runner.copyBlocks(0, [{ source: 1, destination: 6, numTokens: 2 }]);
    const block = await runner.readBlocks(0, Int32Array.of(6));
    expect([0, 1, 2].map((token) => block[token * TOKEN_BYTES])).toEqual([7, 8, 0]);
  });

  it.each([
    ['a group the model lacks', (runner: ModelRunner) => runner.readBlocks(1, Int32Array.of(0))],
    ['a block outside the pool', (runner: ModelRunner) => runner.readBlocks(0, Int32Array.of(16))],
    ['a payload of another size', (runner: ModelRunner) => runner.writeBlocks(0, Int32Array.of(0), new Uint8Array(5))],
    [
      'more tokens than a block has',
      (runner: ModelRunner) => runner.copyBlocks(0, [{ source: 0, destination: 1, numTokens: 257 }]),
    ],
  ])('are refused with %s', async (_, call) => {
    await expect(call(await load())).rejects.toMatchObject({ code: 'invalid-argument' });
  });
});

describe('dispose', () => {
  it('lets the running step settle, rejects the queued one and every later call as disposed', async () => {
    const runner = await load('step_us=30000');
    const running = runner.submit(prefillBatch([1]));
    // The running step has begun once its predecessor has settled.
    await running.result;
    const [second, queued] = [runner.submit(prefillBatch([1])), runner.submit(prefillBatch([2]))];
    const read = runner.readBlocks(0, Int32Array.of(0));
    const disposal = runner.dispose();
    await expect(queued.result).rejects.toMatchObject({ code: 'disposed' });
    await expect(read).rejects.toMatchObject({ code: 'disposed' });
    await disposal;
    const outcome = await second.result.then(
      () => 'settled',
      (error: { code: string }) => error.code,
    );
    expect(['settled', 'disposed']).toContain(outcome);
    expect(() => runner.submit(prefillBatch([1]))).toThrow(expect.objectContaining({ code: 'disposed' }));
    expect(() => runner.memory()).toThrow(expect.objectContaining({ code: 'disposed' }));
    await expect(runner.readBlocks(0, Int32Array.of(0))).rejects.toMatchObject({ code: 'disposed' });
  });

  it('may be called twice, at once and later', async () => {
    const runner = await load();
    const [first, second] = [runner.dispose(), runner.dispose()];
    await Promise.all([first, second]);
    await expect(runner.dispose()).resolves.toBeUndefined();
  });

  it('of one runner leaves another alone', async () => {
    const [one, other] = await Promise.all([load('step_us=3000'), load('step_us=3000')]);
    const step = other.submit(prefillBatch([4]));
    await one.dispose();
    await step.result;
    expect((await other.submit(prefillBatch([4])).result).hashes).toEqual((await step.result).hashes);
  });

  it('happens at the end of an `await using` block', async () => {
    let kept: ModelRunner;
    {
      await using runner = await createNativeModelLoader(addon).load(FAKE_MODEL, fakeOptions());
      kept = runner;
    }
    expect(() => kept.memory()).toThrow(expect.objectContaining({ code: 'disposed' }));
  });
});

describe('load', () => {
  it('describes the runner it made', async () => {
    const runner = await load();
    expect(runner.info).toMatchObject({
      backend: 'fake',
      numericsId: 'fake-1/kv-f16',
      instructionPath: 'fake',
      vocabularySize: 100,
      numBlocks: [16],
      maxBatchSequences: 64,
      maxStepsInFlight: 2,
    });
    expect(runner.info.cacheSpec.bytesPerBlock()).toBe(256 * TOKEN_BYTES);
    expect(runner.memory()).toEqual({
      weightsMappedBytes: 0,
      weightsRepackedBytes: 0,
      kvPoolBytes: 16 * 256 * TOKEN_BYTES,
      workspaceBytes: 0,
      pinnedBytes: 0,
      hostBytes: 0,
      allocations: 0,
      residencyChecks: 0,
      residencyFailures: 0,
    });
  });

  it("is planned beforehand: nothing where memory is the host's, and every purpose where a device has its own", async () => {
    const loader = createNativeModelLoader(addon);
    expect(await loader.planMemory(FAKE_MODEL, fakeOptions())).toBeNull();
    expect(await loader.planMemory(FAKE_MODEL, fakeOptions('device_bytes=5000'))).toEqual({
      totalBytes: 5000,
      freeBytes: 5000,
      weightsBytes: 1000,
      kvPoolBytes: 0,
      workspaceBytes: 512,
      pinnedBytes: 10,
    });
    await expect(loader.planMemory(FAKE_MODEL, fakeOptions('', { numBlocks: [1, 1] }))).rejects.toMatchObject({
      code: 'invalid-argument',
    });
  });

  it('reports progress that only grows and ends complete', async () => {
    const reports: [number, number][] = [];
    await load('open_us=300', { onProgress: (done: number, total: number) => reports.push([done, total]) });
    expect(reports.length).toBeGreaterThan(2);
    expect(reports.map(([done]) => done)).toEqual(reports.map(([done]) => done).sort((a, b) => a - b));
    expect(reports.at(-1)).toEqual([100, 100]);
  });

  it('is aborted by its signal: before, during, and when it was faster', async () => {
    const late = new AbortController();
    const during = new AbortController();
    await expect(load('', { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'aborted' });
    await expect(
      load('open_us=2000', { signal: during.signal, onProgress: () => during.abort() }),
    ).rejects.toMatchObject({ code: 'aborted' });
    await expect(
      load('', { signal: late.signal, onProgress: (done: number) => done === 100 && late.abort() }),
    ).rejects.toMatchObject({ code: 'aborted' });
  });

  it.each([
    ['blocks for two groups of one', { numBlocks: [1, 1] }, 'invalid-argument'],
    ['more blocks than memory', { numBlocks: [4_000_000_000] }, 'out-of-memory'],
    ['a negative number of blocks', { maxBatchTokens: -1 }, 'invalid-argument'],
    ['no room for a batch', { maxBatchTokens: 0 }, 'invalid-argument'],
    ['an instruction path nobody has', { instructionPath: 'z80' }, 'unsupported-model'],
  ])('fails with %s', async (_, more, code) => {
    await expect(load('', more)).rejects.toMatchObject({ name: 'KvasirError', code });
  });

  it('refuses an addon of another ABI version', () => {
    expect(() => createNativeModelLoader({ ...addon, abiVersion: 99 })).toThrow(
      expect.objectContaining({ code: 'backend-unavailable', message: expect.stringContaining('found 99') }),
    );
  });
});
