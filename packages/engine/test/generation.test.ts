import { expectedOutputs } from '@kvasir/adapter-fake';
import { GREEDY, type GenerationBatch } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { createFixture, drain, promptOf, request, turns } from './engine-fixture.ts';

describe('BatchEngine generating', () => {
  it('gives the tokens the runner gives a sequence alone, and ends with length', async () => {
    const fixture = createFixture();
    const generation = fixture.engine.submit(request({ maxTokens: 10 }));
    const output = generation.collect();
    await drain(fixture);
    expect([...(await output).tokenIds]).toEqual(expectedOutputs(promptOf(5), { sampling: GREEDY, maxTokens: 10 }));
    expect((await output).finish).toEqual({ reason: 'length' });
    expect(fixture.engine.stats().blocks[0]).toMatchObject({ free: 64, used: 0, retired: 0 });
  });

  it('keeps two steps in flight and still samples nothing past the limit', async () => {
    const fixture = createFixture();
    fixture.runner.hold();
    const generation = fixture.engine.submit(request({ maxTokens: 3 }));
    const stepping = fixture.engine.step();
    expect(fixture.engine.stats().stepsInFlight).toBe(2);
    fixture.runner.releaseAll();
    await stepping;
    await drain(fixture);
    await generation.finished;
    expect(fixture.runner.numStepsRun).toBe(3);
    expect(fixture.engine.stats()).toMatchObject({ outputTokens: 3, discardedTokens: 0, steps: 3 });
  });

  it('ends at a stop token, names it and discards what was sampled past it', async () => {
    const expected = expectedOutputs(promptOf(5), { sampling: GREEDY, maxTokens: 10 });
    const fixture = createFixture();
    const stopTokenId = expected[4] as number;
    const before = expected.indexOf(stopTokenId);
    const generation = fixture.engine.submit(request({ maxTokens: 10, stopIds: [stopTokenId] }));
    const output = generation.collect();
    await drain(fixture);
    expect([...(await output).tokenIds]).toEqual(expected.slice(0, before));
    expect((await output).finish).toEqual({ reason: 'stop', stopTokenId });
    expect(generation.stats.outputTokens).toBe(before + 1);
    expect(fixture.engine.stats().discardedTokens).toBe(1);
  });

  it('streams batches as steps are dealt out, the last one with the finish', async () => {
    const fixture = createFixture({}, { maxStepsInFlight: 1 });
    const iterator = fixture.engine.submit(request({ maxTokens: 2 }))[Symbol.asyncIterator]();
    const first = iterator.next();
    await fixture.engine.step();
    const expected = expectedOutputs(promptOf(5), { sampling: GREEDY, maxTokens: 2 });
    const event = { logprob: null, topLogprobs: null, logitsHash: null };
    expect((await first).value as GenerationBatch).toEqual({
      tokens: [{ ...event, tokenId: expected[0], index: 0 }],
      finish: null,
    });
    await fixture.engine.step();
    expect((await iterator.next()).value as GenerationBatch).toEqual({
      tokens: [{ ...event, tokenId: expected[1], index: 1 }],
      finish: { reason: 'length' },
    });
    expect((await iterator.next()).done).toBe(true);
  });

  it('reports log-probabilities and hashes where they were asked for, beside a sequence that asked for neither', async () => {
    const fixture = createFixture();
    const asking = fixture.engine
      .submit(request({ maxTokens: 2, sampling: { ...GREEDY, logprobs: 2 }, reportHashes: true }))
      .collect();
    const wide = fixture.engine.submit(request({ maxTokens: 2, sampling: { ...GREEDY, logprobs: 5 } })).collect();
    const silent = fixture.engine.submit(request({ maxTokens: 2 })).collect();
    await drain(fixture);
    for (const event of (await asking).tokens) {
      expect(event.topLogprobs).toHaveLength(2);
      expect(event.topLogprobs?.[0]).toEqual({ tokenId: event.tokenId, logprob: event.logprob });
      expect(event.logprob).toBeLessThan(0);
      expect(event.logitsHash).not.toBe(0n);
    }
    expect((await wide).tokens[1]?.topLogprobs).toHaveLength(5);
    expect((await silent).tokens[1]).toMatchObject({ logprob: null, topLogprobs: null, logitsHash: null });
  });

  it('batches what arrives together and says so', async () => {
    const fixture = createFixture();
    const outputs = [1, 2, 3, 4, 5, 6, 7, 8].map((seed) =>
      fixture.engine.submit(request({ promptIds: promptOf(4, seed), maxTokens: 6 })).collect(),
    );
    await drain(fixture);
    for (const [index, output] of outputs.entries()) {
      expect([...(await output).tokenIds]).toEqual(
        expectedOutputs(promptOf(4, index + 1), { sampling: GREEDY, maxTokens: 6 }),
      );
    }
    const { batchSizes, steps } = fixture.engine.stats();
    expect(steps).toBe(6);
    expect(batchSizes[8]).toBe(6);
  });

  it('measures queueing, first token and total on the clock', async () => {
    const fixture = createFixture({}, { maxStepsInFlight: 1 });
    const generation = fixture.engine.submit(request({ maxTokens: 2 }));
    expect(generation.stats).toMatchObject({ queuedMs: null, firstTokenMs: null, totalMs: null, promptTokens: 5 });
    fixture.clock.advance(5);
    const stepping = fixture.engine.step();
    fixture.clock.advance(7);
    await stepping;
    fixture.clock.advance(9);
    await fixture.engine.step();
    expect(generation.stats).toEqual({
      promptTokens: 5,
      cachedTokens: 0,
      outputTokens: 2,
      preemptions: 0,
      queuedMs: 5,
      firstTokenMs: 12,
      totalMs: 21,
    });
  });

  it('generates up to the context and the pool when no maximum is given', async () => {
    const byContext = createFixture({}, { contextLength: 12 });
    const contextOutput = byContext.engine.submit(request({ maxTokens: null })).collect();
    await drain(byContext);
    expect((await contextOutput).tokenIds).toHaveLength(8);
    const byPool = createFixture({ numBlocks: [2] });
    const poolOutput = byPool.engine.submit(request({ maxTokens: null })).collect();
    await drain(byPool);
    expect((await poolOutput).tokenIds).toHaveLength(4);
  });

  it('runs by itself once started, sleeps without work and wakes for more', async () => {
    const fixture = createFixture();
    fixture.engine.start();
    fixture.engine.start();
    const first = await fixture.engine.submit(request()).collect();
    await turns();
    const second = await fixture.engine.submit(request()).collect();
    expect(second).toEqual(first);
    await expect(fixture.engine.step()).rejects.toMatchObject({ code: 'invalid-argument' });
    await fixture.engine.dispose();
  });

  it('refuses a second reader and a second step', async () => {
    const fixture = createFixture();
    fixture.runner.hold();
    const generation = fixture.engine.submit(request());
    const first = generation[Symbol.asyncIterator]().next();
    await expect(generation[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: 'invalid-argument' });
    const stepping = fixture.engine.step();
    await expect(fixture.engine.step()).rejects.toMatchObject({ code: 'invalid-argument' });
    fixture.runner.releaseAll();
    await stepping;
    expect((await first).done).toBe(false);
    await drain(fixture);
    await generation.collect();
    await expect(generation.collect()).rejects.toMatchObject({ code: 'invalid-argument' });
  });
});
