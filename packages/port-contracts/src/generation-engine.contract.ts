import {
  type Generation,
  type GenerationEngine,
  type GenerationRequest,
  GREEDY,
  type SamplingParams,
  type TokenEvent,
} from '@kvasir/domain';
import { describe, expect, it } from 'vitest';

export interface EngineSetting {
  /** Blocks in each layer group; at least 12 when not named. */
  readonly numBlocks?: number;
  readonly maxBatchTokens?: number;
  readonly prefillChunkTokens?: number;
  readonly maxStepsInFlight?: number;
}

export interface OpenedEngine {
  readonly engine: GenerationEngine;
  readonly blockTokens: number;
  /** Ends the engine and what lies under it. */
  close(): Promise<void>;
}

export interface GenerationEngineHarness {
  /** An engine over a fresh runner: at least 4 sequences at once and a context of 6 blocks. */
  open(setting: EngineSetting): Promise<OpenedEngine>;
}

const SEEDED: SamplingParams = {
  ...GREEDY,
  temperature: 0.9,
  topP: 0.95,
  seed: 12n,
  repetitionPenalty: 1.2,
  frequencyPenalty: 0.3,
};

/** What a GenerationEngine over any runner owes its callers. Bits are compared by the hash of the logits. */
export function describeGenerationEngine(name: string, harness: GenerationEngineHarness): void {
  const within = async (setting: EngineSetting, use: (opened: OpenedEngine) => Promise<void>): Promise<void> => {
    const opened = await harness.open(setting);
    try {
      await use(opened);
      await drain(opened.engine);
      expectIdle(opened.engine);
    } finally {
      await opened.close();
    }
  };

  describe(`${name} as a GenerationEngine`, () => {
    it('gives the same ids and bits alone, together, chunked, with one step in flight and with two', async () => {
      const runs: TokenEvent[][] = [];
      const settings: EngineSetting[] = [
        { maxStepsInFlight: 1 },
        { maxStepsInFlight: 2 },
        { maxBatchTokens: 7, prefillChunkTokens: 3 },
      ];
      for (const setting of settings) {
        await within(setting, async ({ engine, blockTokens }) => {
          const alone = engine.submit(requestOf(engine, blockTokens, 1)).collect();
          await drain(engine);
          runs.push([...(await alone).tokens]);
          const together = [2, 1, 3, 4].map((seed) => engine.submit(requestOf(engine, blockTokens, seed)).collect());
          await drain(engine);
          runs.push([...((await together[1])?.tokens ?? [])]);
        });
      }
      expect(runs[0]?.length).toBe(9);
      for (const run of runs) expect(run).toEqual(runs[0]);
    });

    it('gives the same ids and bits after preemption', async () => {
      const outputs: (readonly TokenEvent[])[][] = [];
      let numPreempted = 0;
      for (const numBlocks of [12, 4]) {
        await within({ numBlocks }, async ({ engine, blockTokens }) => {
          const generations = [1, 2, 3].map((seed) => {
            const promptIds = tokensOf(engine, blockTokens - 3, seed);
            return engine.submit({ ...requestOf(engine, blockTokens, seed), promptIds, maxTokens: 9 });
          });
          const collected = generations.map((generation) => generation.collect());
          await drain(engine);
          outputs.push(await Promise.all(collected.map(async (output) => (await output).tokens)));
          numPreempted = engine.stats().preemptions;
        });
      }
      expect(numPreempted).toBeGreaterThan(0);
      expect(outputs[1]).toEqual(outputs[0]);
    });

    it('aborts with a step in flight: nobody else notices, and every block comes back', async () => {
      await within({}, async ({ engine, blockTokens }) => {
        const undisturbed = engine.submit(requestOf(engine, blockTokens, 1)).collect();
        await drain(engine);
        const victim = engine.submit(requestOf(engine, blockTokens, 2));
        const other = engine.submit(requestOf(engine, blockTokens, 1)).collect();
        const stepping = engine.step();
        expect(engine.stats().stepsInFlight).toBeGreaterThan(0);
        victim.abort();
        expect(await victim.finished).toEqual({ reason: 'abort' });
        await stepping;
        await drain(engine);
        expect((await other).tokens).toEqual((await undisturbed).tokens);
        expect(victim.stats.outputTokens).toBe(0);
      });
    });

    it('aborts in prefill, in decode and in the queue, and gives the blocks to whoever comes next', async () => {
      await within({ numBlocks: 4 }, async ({ engine, blockTokens }) => {
        const expected = engine.submit(requestOf(engine, blockTokens, 5)).collect();
        await drain(engine);
        const victims: Generation[] = [];
        for (let numSteps = 0; numSteps < 4; numSteps++) {
          const victim = engine.submit(requestOf(engine, blockTokens, 6 + numSteps));
          for (let step = 0; step < numSteps; step++) await engine.step();
          victim.abort();
          victims.push(victim);
        }
        const heir = engine.submit(requestOf(engine, blockTokens, 5)).collect();
        await drain(engine);
        expect((await heir).tokens).toEqual((await expected).tokens);
        for (const victim of victims) expect(await victim.finished).toEqual({ reason: 'abort' });
      });
    });

    it('ends at a stop token with steps in flight and counts nothing past it', async () => {
      await within({}, async ({ engine, blockTokens }) => {
        const whole = engine.submit(requestOf(engine, blockTokens, 1)).collect();
        await drain(engine);
        const ids = [...(await whole).tokenIds];
        const stopTokenId = ids[5] as number;
        const stopping = engine.submit({ ...requestOf(engine, blockTokens, 1), stopIds: [stopTokenId] });
        const output = stopping.collect();
        await drain(engine);
        expect([...(await output).tokenIds]).toEqual(ids.slice(0, ids.indexOf(stopTokenId)));
        expect((await output).finish).toEqual({ reason: 'stop', stopTokenId });
        expect(stopping.stats.outputTokens).toBe(ids.indexOf(stopTokenId) + 1);
      });
    });

    it('scores and reads a text the same in chunks and at once, beside a generation', async () => {
      const scores: Float32Array[] = [];
      const lastRows: Float32Array[] = [];
      for (const maxBatchTokens of [undefined, 5]) {
        await within(maxBatchTokens === undefined ? {} : { maxBatchTokens }, async ({ engine, blockTokens }) => {
          const tokenIds = tokensOf(engine, blockTokens + 5, 7);
          const beside = engine.submit(requestOf(engine, blockTokens, 2)).collect();
          const scoring = engine.score({ tokenIds });
          const { vocabularySize } = engine.limits;
          let next = 0;
          const reading = engine.logits({
            tokenIds,
            onRows: (rows, firstToken) => {
              expect(firstToken).toBe(next);
              next += rows.length / vocabularySize;
              if (next === tokenIds.length) lastRows.push(rows.slice(-vocabularySize));
            },
          });
          await drain(engine);
          await Promise.all([reading, beside]);
          scores.push(await scoring);
        });
      }
      expect(scores[0]?.[0]).toBeNaN();
      expect(scores[0]?.subarray(1).every((logprob) => logprob <= 0)).toBe(true);
      expect(scores[1]).toEqual(scores[0]);
      expect(lastRows[1]).toEqual(lastRows[0]);
    });

    it('runs by itself, and aborts when its reader leaves', async () => {
      const opened = await harness.open({});
      const { engine, blockTokens } = opened;
      engine.start();
      const leaving = engine.submit({ ...requestOf(engine, blockTokens, 1), maxTokens: blockTokens });
      for await (const batch of leaving) if (batch.tokens.length > 0) break;
      expect(await leaving.finished).toEqual({ reason: 'abort' });
      expect((await engine.submit(requestOf(engine, blockTokens, 2)).collect()).tokenIds).toHaveLength(9);
      await opened.close();
      expectIdle(engine);
    });

    it('disposes with steps in flight, tells everybody and gives every block back', async () => {
      const opened = await harness.open({});
      const { engine, blockTokens } = opened;
      const running = engine.submit(requestOf(engine, blockTokens, 1));
      const stepping = engine.step();
      const queued = engine.submit(requestOf(engine, blockTokens, 2));
      await Promise.all([engine.dispose(), engine.dispose(), stepping]);
      for (const generation of [running, queued]) {
        expect(await generation.finished).toMatchObject({ reason: 'error', error: { code: 'disposed' } });
      }
      expectIdle(engine);
      expect(() => engine.submit(requestOf(engine, blockTokens, 3))).toThrow(
        expect.objectContaining({ code: 'disposed' }),
      );
      await opened.close();
    });

    it('refuses what could never run, by code', async () => {
      await within({ numBlocks: 3 }, async ({ engine, blockTokens }) => {
        const { contextLength, vocabularySize } = engine.limits;
        const base = requestOf(engine, blockTokens, 1);
        const codeOf = (overrides: Partial<GenerationRequest>): unknown => {
          try {
            engine.submit({ ...base, ...overrides }).abort();
            return 'accepted';
          } catch (error) {
            return (error as { code: unknown }).code;
          }
        };
        expect(codeOf({ promptIds: new Int32Array(0) })).toBe('invalid-argument');
        expect(codeOf({ promptIds: Int32Array.of(vocabularySize) })).toBe('invalid-argument');
        expect(codeOf({ maxTokens: 0 })).toBe('invalid-argument');
        expect(codeOf({ maxTokens: contextLength + 1 })).toBe('context-length-exceeded');
        expect(codeOf({ maxTokens: 3 * blockTokens })).toBe('pool-too-small');
        expect(codeOf({})).toBe('accepted');
      });
    });
  });
}

/** A prompt a little longer than a block, 9 seeded outputs with hashes. */
function requestOf(engine: GenerationEngine, blockTokens: number, seed: number): GenerationRequest {
  return {
    promptIds: tokensOf(engine, blockTokens + 2 + seed, seed),
    sampling: SEEDED,
    maxTokens: 9,
    stopIds: [],
    reportHashes: true,
  };
}

function tokensOf({ limits }: GenerationEngine, count: number, seed: number): Int32Array {
  let state = seed * 7919 + 1;
  return Int32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limits.vocabularySize);
  });
}

async function drain(engine: GenerationEngine): Promise<void> {
  for (let step = 0; step < 10_000; step++) if ((await engine.step()).kind === 'idle') return;
  throw new Error('expected the engine to run dry within 10,000 steps');
}

function expectIdle(engine: GenerationEngine): void {
  const { running, waiting, stepsInFlight, blocks } = engine.stats();
  expect({ running, waiting, stepsInFlight }).toEqual({ running: 0, waiting: 0, stepsInFlight: 0 });
  for (const { free, total, used, retired } of blocks) {
    expect({ free, used, retired }).toEqual({ free: total, used: 0, retired: 0 });
  }
}
