import { expectedOutputs } from '@kvasir/adapter-fake';
import { GREEDY } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { createFixture, drain, ids, promptOf, request } from './engine-fixture.ts';

/** Natural log of the softmax of one row. */
function logSoftmax(row: Float32Array): number[] {
  const highest = Math.max(...row);
  const total = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - highest), 0));
  return Array.from(row, (logit) => logit - highest - total);
}

async function readLogits(fixture: ReturnType<typeof createFixture>, tokenIds: Int32Array): Promise<Float32Array[]> {
  const rows: Float32Array[] = [];
  const reading = fixture.engine.logits({
    tokenIds,
    onRows: (chunk, firstToken) => {
      expect(firstToken).toBe(rows.length);
      for (let at = 0; at < chunk.length; at += 64) rows.push(chunk.slice(at, at + 64));
    },
  });
  await drain(fixture);
  await reading;
  return rows;
}

describe('BatchEngine reading', () => {
  it('hands on the logits of every token in order, however the text is chunked', async () => {
    const tokenIds = promptOf(50);
    const atOnce = await readLogits(createFixture(), tokenIds);
    const chunked = await readLogits(createFixture({}, { maxBatchTokens: 7 }), tokenIds);
    expect(atOnce).toHaveLength(50);
    expect(chunked).toEqual(atOnce);
    const next = expectedOutputs(tokenIds, { sampling: GREEDY, maxTokens: 1 })[0] as number;
    expect(atOnce[49]?.indexOf(Math.max(...(atOnce[49] as Float32Array)))).toBe(next);
  });

  it('scores each token by the logits of the one before, beside a generation', async () => {
    const tokenIds = promptOf(50, 3);
    const rows = await readLogits(createFixture(), tokenIds);
    const fixture = createFixture({}, { maxBatchTokens: 9 });
    const generating = fixture.engine.submit(request({ maxTokens: 8 })).collect();
    const scoring = fixture.engine.score({ tokenIds });
    await drain(fixture);
    const logprobs = await scoring;
    expect(logprobs[0]).toBeNaN();
    for (let index = 1; index < 50; index++) {
      const expected = logSoftmax(rows[index - 1] as Float32Array)[tokenIds[index] as number] as number;
      expect(logprobs[index]).toBeCloseTo(expected, 4);
    }
    expect([...(await generating).tokenIds]).toEqual(expectedOutputs(promptOf(5), { sampling: GREEDY, maxTokens: 8 }));
  });

  it('hands each row on once and scores the same when it is preempted on the way', async () => {
    const build = () =>
      createFixture({ numBlocks: [12] }, { maxBatchTokens: 5, prefillChunkTokens: 2, contextLength: 48 });
    const undisturbed = await readLogits(build(), promptOf(30, 5));
    const fixture = build();
    const older = fixture.engine.submit(request({ promptIds: promptOf(4), maxTokens: 40 })).collect();
    await fixture.engine.step();
    const rows = await readLogits(fixture, promptOf(30, 5));
    expect(rows).toEqual(undisturbed);
    expect((await older).tokenIds).toHaveLength(40);
  });

  it('rejects when aborted, before and during, and gives the blocks back', async () => {
    const fixture = createFixture({}, { maxBatchTokens: 4 });
    const early = fixture.engine.score({ tokenIds: promptOf(20), signal: AbortSignal.abort() });
    await expect(early).rejects.toMatchObject({ code: 'aborted' });
    const controller = new AbortController();
    const late = fixture.engine.logits({ tokenIds: promptOf(20), onRows: () => {}, signal: controller.signal });
    await fixture.engine.step();
    controller.abort();
    await expect(late).rejects.toMatchObject({ code: 'aborted' });
    await drain(fixture);
    expect(fixture.engine.stats().blocks[0]).toMatchObject({ free: 64 });
  });

  it('ends only the reading whose callback throws', async () => {
    const fixture = createFixture();
    const cause = new RangeError('disk full');
    const reading = fixture.engine.logits({
      tokenIds: promptOf(9),
      onRows: () => {
        throw cause;
      },
    });
    const other = fixture.engine.submit(request()).collect();
    await Promise.all([expect(reading).rejects.toMatchObject({ code: 'internal', cause }), drain(fixture)]);
    expect((await other).tokenIds).toHaveLength(4);
  });

  it('refuses texts that are too short, too long or not of the vocabulary', async () => {
    const { engine } = createFixture({}, { contextLength: 8 });
    await expect(engine.score({ tokenIds: ids(1) })).rejects.toMatchObject({ code: 'invalid-argument' });
    await expect(engine.score({ tokenIds: ids(1, 99) })).rejects.toMatchObject({ code: 'invalid-argument' });
    await expect(engine.logits({ tokenIds: ids(), onRows: () => {} })).rejects.toMatchObject({
      code: 'invalid-argument',
    });
    await expect(engine.logits({ tokenIds: promptOf(9), onRows: () => {} })).rejects.toMatchObject({
      code: 'context-length-exceeded',
    });
    await engine.dispose();
    await expect(engine.score({ tokenIds: promptOf(4) })).rejects.toMatchObject({ code: 'disposed' });
  });
});
