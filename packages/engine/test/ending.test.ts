import { expectedOutputs } from '@kvasir/adapter-fake';
import { GREEDY, KvasirError } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { createFixture, drain, promptOf, request, turns } from './engine-fixture.ts';

const freePool = { free: 64, used: 0, retired: 0 };

describe('BatchEngine ending sequences', () => {
  it('aborts a waiting sequence without running anything', async () => {
    const fixture = createFixture();
    const generation = fixture.engine.submit(request());
    generation.abort();
    generation.abort();
    expect(await generation.finished).toEqual({ reason: 'abort' });
    expect(await fixture.engine.step()).toEqual({ kind: 'idle' });
    await expect(generation.collect()).rejects.toMatchObject({ code: 'aborted' });
  });

  it('aborts with two steps in flight: blocks are retired until both are done and nothing is dealt out', async () => {
    const fixture = createFixture();
    fixture.runner.hold();
    const generation = fixture.engine.submit(request({ maxTokens: 20 }));
    const stepping = fixture.engine.step();
    generation.abort();
    expect(await generation.finished).toEqual({ reason: 'abort' });
    expect(fixture.engine.stats().blocks[0]).toMatchObject({ free: 62, used: 0, retired: 2 });
    fixture.runner.release();
    expect(await stepping).toMatchObject({ kind: 'ran', numOutputTokens: 0 });
    expect(fixture.engine.stats().blocks[0]).toMatchObject({ retired: 2 });
    fixture.runner.releaseAll();
    await drain(fixture);
    expect(fixture.engine.stats()).toMatchObject({ steps: 2, discardedTokens: 2, outputTokens: 0 });
    expect(fixture.engine.stats().blocks[0]).toMatchObject(freePool);
  });

  it('aborts in the middle of a prefill and gives the blocks to the next sequence', async () => {
    const fixture = createFixture({ numBlocks: [10] }, { maxBatchTokens: 8 });
    const long = fixture.engine.submit(request({ promptIds: promptOf(36, 2), maxTokens: 4 }));
    const next = fixture.engine.submit(request({ promptIds: promptOf(30, 3), maxTokens: 4 }));
    await fixture.engine.step();
    long.abort();
    const output = next.collect();
    await drain(fixture);
    expect([...(await output).tokenIds]).toEqual(expectedOutputs(promptOf(30, 3), { sampling: GREEDY, maxTokens: 4 }));
  });

  it('ends with stop when the caller found a stop string, and nobody else notices', async () => {
    const fixture = createFixture();
    const stopped = fixture.engine.submit(request({ maxTokens: 50 }));
    const other = fixture.engine.submit(request({ promptIds: promptOf(7, 9), maxTokens: 9 })).collect();
    await fixture.engine.step();
    stopped.finish();
    stopped.finish();
    await drain(fixture);
    expect((await stopped.collect()).finish).toEqual({ reason: 'stop', stopTokenId: null });
    expect([...(await other).tokenIds]).toEqual(expectedOutputs(promptOf(7, 9), { sampling: GREEDY, maxTokens: 9 }));
    expect(fixture.engine.stats().blocks[0]).toMatchObject(freePool);
  });

  it('aborts by signal, before and after submission, and lets go of the signal at the end', async () => {
    const fixture = createFixture();
    const aborted = AbortSignal.abort();
    expect(await fixture.engine.submit(request({ signal: aborted })).finished).toEqual({ reason: 'abort' });
    const controller = new AbortController();
    const running = fixture.engine.submit(request({ maxTokens: 50, signal: controller.signal }));
    await fixture.engine.step();
    controller.abort();
    expect(await running.finished).toEqual({ reason: 'abort' });
    const late = new AbortController();
    const finished = fixture.engine.submit(request({ maxTokens: 2, signal: late.signal }));
    await drain(fixture);
    late.abort();
    expect(await finished.finished).toEqual({ reason: 'length' });
  });

  it('aborts when its reader leaves early', async () => {
    const fixture = createFixture();
    fixture.engine.start();
    const generation = fixture.engine.submit(request({ maxTokens: 200 }));
    for await (const batch of generation) {
      if (batch.tokens.length > 0) break;
    }
    expect(await generation.finished).toEqual({ reason: 'abort' });
    await fixture.engine.dispose();
    expect(fixture.engine.stats().blocks[0]).toMatchObject(freePool);
  });

  it('disposes with steps in flight: everybody learns, every block comes back, the runner stays', async () => {
    const fixture = createFixture();
    fixture.runner.hold();
    fixture.engine.start();
    const running = fixture.engine.submit(request({ maxTokens: 50 }));
    await turns();
    const waiting = fixture.engine.submit(request());
    const disposing = fixture.engine.dispose();
    expect(await running.finished).toMatchObject({ reason: 'error', error: { code: 'disposed' } });
    expect(await waiting.finished).toMatchObject({ reason: 'error', error: { code: 'disposed' } });
    fixture.runner.releaseAll();
    await disposing;
    await fixture.engine.dispose();
    expect(fixture.engine.stats()).toMatchObject({ stepsInFlight: 0, running: 0, waiting: 0 });
    expect(fixture.engine.stats().blocks[0]).toMatchObject(freePool);
    expect(() => fixture.engine.submit(request())).toThrow(expect.objectContaining({ code: 'disposed' }));
    expect(fixture.runner.memory().kvPoolBytes).toBeGreaterThan(0);
  });

  it('disposes while a step is being driven by hand', async () => {
    const fixture = createFixture();
    fixture.runner.hold();
    const generation = fixture.engine.submit(request({ maxTokens: 50 }));
    const stepping = fixture.engine.step();
    const disposing = fixture.engine[Symbol.asyncDispose]();
    fixture.runner.releaseAll();
    await Promise.all([stepping, disposing]);
    expect(await generation.finished).toMatchObject({ reason: 'error' });
    expect(fixture.engine.stats().blocks[0]).toMatchObject(freePool);
  });
});

describe('BatchEngine when a step fails', () => {
  it("ends that step's sequences with the error, recomputes those that only came after it, and goes on", async () => {
    const fixture = createFixture();
    fixture.runner.hold();
    fixture.runner.failNext(new KvasirError('out-of-memory', 'device memory: expected 1 MiB, found none'));
    const failing = fixture.engine.submit(request({ maxTokens: 20 }));
    fixture.engine.start();
    await turns();
    expect(fixture.engine.stats().stepsInFlight).toBe(2);
    fixture.runner.releaseAll();
    expect(await failing.finished).toMatchObject({ reason: 'error', error: { code: 'out-of-memory' } });
    await expect(failing.collect()).rejects.toMatchObject({ code: 'out-of-memory' });
    const next = await fixture.engine.submit(request({ maxTokens: 6 })).collect();
    expect([...next.tokenIds]).toEqual(expectedOutputs(promptOf(5), { sampling: GREEDY, maxTokens: 6 }));
    await fixture.engine.dispose();
    expect(fixture.engine.stats().failedSteps).toBe(2);
    expect(fixture.narrator.named('step-failed')).toHaveLength(2);
    expect(fixture.engine.stats().blocks[0]).toMatchObject(freePool);
  });

  it('recomputes a sequence whose step failed only because the one before it had', async () => {
    const fixture = createFixture({ maxBatchTokens: 6 });
    fixture.runner.hold();
    fixture.runner.failNext(new KvasirError('out-of-memory', 'the first step found no memory'));
    // The first prompt fills step 1; step 2 decodes it from step 1's sample, beside the second prompt.
    const failing = fixture.engine.submit(request({ promptIds: promptOf(6), maxTokens: 20 }));
    const innocent = fixture.engine.submit(request({ promptIds: promptOf(5, 4), maxTokens: 3 }));
    const output = innocent.collect();
    const stepping = fixture.engine.step();
    fixture.runner.releaseAll();
    expect(await stepping).toMatchObject({ kind: 'failed', stepId: 1, error: { code: 'out-of-memory' } });
    expect(await failing.finished).toMatchObject({ reason: 'error', error: { code: 'out-of-memory' } });
    expect(await fixture.engine.step()).toMatchObject({ kind: 'failed', stepId: 2, error: { code: 'internal' } });
    expect(innocent.stats.preemptions).toBe(1);
    await drain(fixture);
    expect([...(await output).tokenIds]).toEqual(expectedOutputs(promptOf(5, 4), { sampling: GREEDY, maxTokens: 3 }));
    expect(fixture.engine.stats().blocks[0]).toMatchObject(freePool);
  });

  it('ends with device-lost for good: queued ones too, and later ones at submit', async () => {
    const fixture = createFixture({ maxBatchSequences: 1 });
    fixture.engine.start();
    fixture.runner.failNext(new KvasirError('device-lost', 'device: expected an answer, found none'));
    const running = fixture.engine.submit(request());
    const queued = fixture.engine.submit(request());
    expect(await running.finished).toMatchObject({ reason: 'error', error: { code: 'device-lost' } });
    expect(await queued.finished).toMatchObject({ reason: 'error', error: { code: 'device-lost' } });
    expect(() => fixture.engine.submit(request())).toThrow(expect.objectContaining({ code: 'device-lost' }));
    expect(() => fixture.engine.start()).toThrow(expect.objectContaining({ code: 'device-lost' }));
    expect(fixture.engine.stats().failure).toMatchObject({ code: 'device-lost' });
    expect(fixture.narrator.named('engine-failed')).toHaveLength(1);
    await fixture.engine.dispose();
    expect(fixture.engine.stats().blocks[0]).toMatchObject(freePool);
  });

  it('ends a step the runner refuses, and goes on with the next', async () => {
    const fixture = createFixture();
    const submit = fixture.runner.submit.bind(fixture.runner);
    let refusals = 1;
    fixture.runner.submit = (batch) => {
      if (refusals-- > 0) throw new KvasirError('invalid-argument', 'batch: expected another one');
      return submit(batch);
    };
    const refused = fixture.engine.submit(request());
    await drain(fixture);
    expect(await refused.finished).toMatchObject({ reason: 'error', error: { code: 'invalid-argument' } });
    const next = fixture.engine.submit(request()).collect();
    await drain(fixture);
    expect((await next).tokenIds).toHaveLength(4);
  });

  it('ends for good when the runner was disposed under it', async () => {
    const fixture = createFixture();
    await fixture.runner.dispose();
    const generation = fixture.engine.submit(request());
    await drain(fixture);
    expect(await generation.finished).toMatchObject({ reason: 'error', error: { code: 'disposed' } });
    expect(fixture.engine.stats().failure).toMatchObject({ code: 'disposed' });
  });

  it('turns what is no KvasirError into internal with its cause', async () => {
    const fixture = createFixture();
    const cause = new TypeError('x is not a function');
    fixture.runner.submit = () => ({ result: Promise.reject(cause) });
    const generation = fixture.engine.submit(request());
    await drain(fixture);
    expect(await generation.finished).toMatchObject({ reason: 'error', error: { code: 'internal', cause } });
  });

  it('ends a sequence whose row came back without a token', async () => {
    const fixture = createFixture({ maxStepsInFlight: 1 });
    const submit = fixture.runner.submit.bind(fixture.runner);
    fixture.runner.submit = (batch) => ({
      result: submit(batch).result.then((result) => ({ ...result, sampledIds: Int32Array.of(-1) })),
    });
    const generation = fixture.engine.submit(request());
    await drain(fixture);
    expect(await generation.finished).toMatchObject({ reason: 'error', error: { code: 'internal' } });
  });

  it('ends for good, with every block back, when a result cannot be dealt out', async () => {
    const fixture = createFixture();
    const submit = fixture.runner.submit.bind(fixture.runner);
    fixture.runner.submit = (batch) => ({
      result: submit(batch).result.then((result) => ({ ...result, sampledIds: undefined as unknown as Int32Array })),
    });
    const generation = fixture.engine.submit(request());
    expect(await fixture.engine.step()).toMatchObject({ kind: 'failed', error: { code: 'internal' } });
    expect(await generation.finished).toMatchObject({ reason: 'error' });
    await drain(fixture);
    expect(fixture.engine.stats().blocks[0]).toMatchObject(freePool);
  });
});
