import { expectedOutputs } from '@kvasir/adapter-fake';
import { GREEDY, type StepReport } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { createFixture, drain, type EngineFixture, promptOf, request } from './engine-fixture.ts';

async function reports(fixture: EngineFixture): Promise<StepReport[]> {
  const all: StepReport[] = [];
  for (;;) {
    const report = await fixture.engine.step();
    fixture.engine.checkIntegrity();
    if (report.kind === 'idle') return all;
    all.push(report);
  }
}

describe('BatchEngine scheduling', () => {
  it('prefills in chunks of the token budget', async () => {
    const fixture = createFixture({}, { maxBatchTokens: 10 });
    const output = fixture.engine.submit(request({ promptIds: promptOf(25), maxTokens: 2 })).collect();
    const steps = await reports(fixture);
    expect(steps.map((step) => step.kind === 'ran' && [step.numPrefillTokens, step.numDecodeTokens])).toEqual([
      [10, 0],
      [10, 0],
      [5, 0],
      [0, 1],
    ]);
    expect([...(await output).tokenIds]).toEqual(expectedOutputs(promptOf(25), { sampling: GREEDY, maxTokens: 2 }));
  });

  it('gives every decoding sequence a token in each step while a long prompt gets its smaller budget', async () => {
    const fixture = createFixture({}, { maxBatchTokens: 64, prefillChunkTokens: 8 });
    const streams = [1, 2, 3, 4].map((seed) =>
      fixture.engine.submit(request({ promptIds: promptOf(3, seed), maxTokens: 30 })),
    );
    for (let step = 0; step < 3; step++) await fixture.engine.step();
    const late = fixture.engine.submit(request({ promptIds: promptOf(100, 7), maxTokens: 2 }));
    const chunks: number[] = [];
    while (late.stats.firstTokenMs === null) {
      const before = streams.map((stream) => stream.stats.outputTokens);
      const report = await fixture.engine.step();
      const after = streams.map((stream) => stream.stats.outputTokens);
      expect(after).toEqual(before.map((count) => count + 1));
      if (report.kind === 'ran' && report.numPrefillTokens > 0) chunks.push(report.numPrefillTokens);
    }
    expect(chunks).toEqual([8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 4]);
    await drain(fixture);
  });

  it('lets a short prompt pass a long one that came first', async () => {
    const fixture = createFixture({}, { maxBatchTokens: 40, prefillChunkTokens: 40 });
    const long = fixture.engine.submit(request({ promptIds: promptOf(200), maxTokens: 1 }));
    const short = fixture.engine.submit(request({ promptIds: promptOf(12, 2), maxTokens: 1 }));
    await fixture.engine.step();
    expect((await short.finished).reason).toBe('length');
    expect(long.stats.firstTokenMs).toBeNull();
    await drain(fixture);
    expect((await long.finished).reason).toBe('length');
  });

  it('runs no more sequences than the runner has sampler slots, and the rest after them', async () => {
    const fixture = createFixture({ numSamplerSlots: 2 });
    const outputs = [1, 2, 3, 4, 5].map((seed) =>
      fixture.engine.submit(request({ promptIds: promptOf(3, seed), maxTokens: 3 })).collect(),
    );
    const steps = await reports(fixture);
    expect(Math.max(...steps.map((step) => (step.kind === 'ran' ? step.numSequences : 0)))).toBe(2);
    for (const [index, output] of outputs.entries()) {
      expect([...(await output).tokenIds]).toEqual(
        expectedOutputs(promptOf(3, index + 1), { sampling: GREEDY, maxTokens: 3 }),
      );
    }
  });

  it('joins a newcomer at the next step and leaves out who has finished', async () => {
    const fixture = createFixture({}, { maxStepsInFlight: 1 });
    fixture.engine.submit(request({ maxTokens: 3 }));
    expect(await fixture.engine.step()).toMatchObject({ numSequences: 1 });
    fixture.engine.submit(request({ promptIds: promptOf(3, 2), maxTokens: 3 }));
    expect(await fixture.engine.step()).toMatchObject({ numSequences: 2, numPrefillTokens: 3, numDecodeTokens: 1 });
    expect(await fixture.engine.step()).toMatchObject({ numSequences: 2, numPrefillTokens: 0, numDecodeTokens: 2 });
    expect(await fixture.engine.step()).toMatchObject({ numSequences: 1, numDecodeTokens: 1 });
    expect(await fixture.engine.step()).toEqual({ kind: 'idle' });
  });

  it('preempts the latest arrival when blocks run short, and the outputs stay the same', async () => {
    const fixture = createFixture({ numBlocks: [8] });
    const sampling = { ...GREEDY, temperature: 1, seed: 7n, frequencyPenalty: 0.5, repetitionPenalty: 1.3 };
    const first = fixture.engine.submit(request({ promptIds: promptOf(8), maxTokens: 20, sampling }));
    const second = fixture.engine.submit(request({ promptIds: promptOf(8, 2), maxTokens: 20, sampling }));
    const outputs = [first.collect(), second.collect()];
    await drain(fixture);
    expect(first.stats.preemptions).toBe(0);
    expect(second.stats.preemptions).toBeGreaterThan(0);
    expect(fixture.narrator.named('sequence-preempted')).toHaveLength(second.stats.preemptions);
    expect(fixture.engine.stats().preemptions).toBe(second.stats.preemptions);
    for (const [index, output] of outputs.entries()) {
      expect([...(await output).tokenIds]).toEqual(
        expectedOutputs(promptOf(8, index + 1), { sampling, maxTokens: 20 }),
      );
    }
    expect(fixture.engine.stats().blocks[0]).toMatchObject({ free: 8, used: 0, retired: 0, peak: 8 });
  });

  it.each([1, 2])('lets an old prompt take back the blocks a later sequence grew into, %i deep', async (depth) => {
    const options = { maxBatchTokens: 20, prefillChunkTokens: 1, maxStepsInFlight: depth };
    const fixture = createFixture({ numBlocks: [17] }, options);
    const old = fixture.engine.submit(request({ promptIds: promptOf(60), maxTokens: 4 }));
    const later = fixture.engine.submit(request({ promptIds: promptOf(2, 2), maxTokens: 30 }));
    const outputs = [old.collect(), later.collect()] as const;
    await drain(fixture);
    expect([old.stats.preemptions, later.stats.preemptions]).toEqual([0, 1]);
    expect([...(await outputs[0]).tokenIds]).toEqual(expectedOutputs(promptOf(60), { sampling: GREEDY, maxTokens: 4 }));
    expect([...(await outputs[1]).tokenIds]).toEqual(
      expectedOutputs(promptOf(2, 2), { sampling: GREEDY, maxTokens: 30 }),
    );
  });

  it('reserves in every layer group or in none', async () => {
    const fixture = createFixture({ numBlocks: [16, 6] });
    const outputs = [1, 2, 3].map((seed) =>
      fixture.engine.submit(request({ promptIds: promptOf(6, seed), maxTokens: 10 })).collect(),
    );
    await drain(fixture);
    for (const [index, output] of outputs.entries()) {
      expect([...(await output).tokenIds]).toEqual(
        expectedOutputs(promptOf(6, index + 1), { sampling: GREEDY, maxTokens: 10, numGroups: 2 }),
      );
    }
    const [wide, narrow] = fixture.engine.stats().blocks;
    expect([wide?.free, narrow?.free]).toEqual([16, 6]);
    expect(narrow?.peak).toBeLessThanOrEqual(6);
  });

  it("never runs two sequences in one another's blocks: a foreign slot would change the output", async () => {
    const fixture = createFixture({ numBlocks: [4], maxBatchSequences: 2 });
    const expected = expectedOutputs(promptOf(3), { sampling: GREEDY, maxTokens: 6 });
    const outputs = Array.from({ length: 12 }, () =>
      fixture.engine.submit(request({ promptIds: promptOf(3), maxTokens: 6 })).collect(),
    );
    await drain(fixture);
    for (const output of outputs) expect([...(await output).tokenIds]).toEqual(expected);
  });
});
