import { GREEDY, type KvasirError, isKvasirError } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { createFixture, drain, ids, promptOf, request } from './engine-fixture.ts';

const withCode = (code: string, message?: RegExp) =>
  expect.objectContaining(message === undefined ? { code } : { code, message: expect.stringMatching(message) });

function refusalOf(act: () => unknown): KvasirError {
  try {
    act();
  } catch (error) {
    if (isKvasirError(error)) return error;
    throw error;
  }
  throw new Error('expected a refusal, found none');
}

describe('BatchEngine refusing', () => {
  it('names every problem of a request at once', () => {
    const { engine } = createFixture();
    const bad = request({
      promptIds: ids(),
      stopIds: [64],
      maxTokens: 0,
      sampling: {
        temperature: -1,
        topK: 0.5,
        topP: 0,
        minP: 2,
        repetitionPenalty: 0,
        frequencyPenalty: Number.NaN,
        presencePenalty: Number.POSITIVE_INFINITY,
        logitBias: new Map([[99, 1]]),
        seed: -1n,
        logprobs: 65,
      },
    });
    const refusal = refusalOf(() => engine.submit(bad));
    expect(refusal.code).toBe('invalid-argument');
    expect(refusal.facts.problems).toHaveLength(13);
    expect(refusal.message).toMatch(/stopIds\[0\]: expected a token id from 0 to 63, found 64/);
  });

  it('refuses token ids outside the vocabulary', () => {
    const { engine } = createFixture();
    expect(() => engine.submit(request({ promptIds: ids(1, -1) }))).toThrow(
      withCode('invalid-argument', /promptIds\[1\]/),
    );
  });

  it('refuses what the context can never hold, to the token', async () => {
    const fixture = createFixture({}, { contextLength: 10 });
    expect(() => fixture.engine.submit(request({ promptIds: promptOf(8), maxTokens: 4 }))).toThrow(
      withCode('context-length-exceeded'),
    );
    expect(() => fixture.engine.submit(request({ promptIds: promptOf(11), maxTokens: null }))).toThrow(
      withCode('context-length-exceeded'),
    );
    const fits = fixture.engine.submit(request({ promptIds: promptOf(8), maxTokens: 3 })).collect();
    const fullPrompt = fixture.engine.submit(request({ promptIds: promptOf(10), maxTokens: null })).collect();
    await drain(fixture);
    expect((await fits).tokenIds).toHaveLength(3);
    expect((await fullPrompt).tokenIds).toHaveLength(1);
  });

  it('refuses what the pool can never hold, to the token', async () => {
    const fixture = createFixture({ numBlocks: [3, 2] });
    expect(fixture.engine.limits).toEqual({
      contextLength: 256,
      poolTokens: 8,
      maxBatchSequences: 8,
      vocabularySize: 64,
    });
    expect(() => fixture.engine.submit(request({ promptIds: promptOf(6), maxTokens: 4 }))).toThrow(
      withCode('pool-too-small'),
    );
    const fits = fixture.engine.submit(request({ promptIds: promptOf(6), maxTokens: 3 })).collect();
    await drain(fixture);
    expect((await fits).tokenIds).toHaveLength(3);
  });

  it('says overloaded when the queue is full, beyond what the next step would admit', async () => {
    const fixture = createFixture({ maxBatchSequences: 2 }, { maxQueue: 1 });
    const accepted = [1, 2, 3].map((seed) => fixture.engine.submit(request({ promptIds: promptOf(4, seed) })));
    expect(() => fixture.engine.submit(request())).toThrow(withCode('overloaded'));
    await expect(fixture.engine.score({ tokenIds: promptOf(4) })).rejects.toMatchObject({ code: 'overloaded' });
    await drain(fixture);
    for (const generation of accepted) expect((await generation.finished).reason).toBe('length');
    fixture.engine.submit(request()).abort();
  });

  it('refuses options that are no positive integers or beyond what the runner was loaded for', () => {
    expect(() => createFixture({}, { contextLength: 0 })).toThrow(withCode('invalid-argument', /contextLength/));
    expect(() => createFixture({}, { maxBatchTokens: 65 })).toThrow(withCode('invalid-argument', /maxBatchTokens/));
    expect(() => createFixture({}, { maxStepsInFlight: 3 })).toThrow(withCode('invalid-argument', /maxStepsInFlight/));
    expect(() => createFixture({}, { prefillChunkTokens: 1.5 })).toThrow(
      withCode('invalid-argument', /prefillChunkTokens/),
    );
  });

  it('fills in defaults and lowers them to what the runner can', () => {
    const { engine } = createFixture({ maxBatchTokens: 6, maxStepsInFlight: 1 }, { contextLength: 10_000 });
    expect(engine.settings).toEqual({
      contextLength: 256,
      maxBatchTokens: 6,
      maxBatchSequences: 6,
      prefillChunkTokens: 6,
      maxQueue: 256,
      maxStepsInFlight: 1,
      attentionParityTokens: Number.POSITIVE_INFINITY,
    });
  });

  it('keeps the prompt as it was submitted', async () => {
    const fixture = createFixture();
    const promptIds = promptOf(5);
    const changed = fixture.engine.submit(request({ promptIds })).collect();
    promptIds.fill(0);
    const fresh = fixture.engine.submit(request({ sampling: GREEDY })).collect();
    await drain(fixture);
    expect((await changed).tokenIds).toEqual((await fresh).tokenIds);
  });
});
