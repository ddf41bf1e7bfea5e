import { expectedOutputs } from '@kvasir/adapter-fake';
import {
  type Generation,
  type GenerationFinish,
  GREEDY,
  KvasirError,
  type SamplingParams,
  isKvasirError,
} from '@kvasir/domain';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createFixture, drain, type EngineFixture, promptOf } from './engine-fixture.ts';

/**
 * Random lives of the engine on a runner whose outputs betray a wrong slot, a lost penalty history or a wrong position:
 * arrivals, aborts, stop strings, failing steps, pools far too small for everybody, held and released steps. Whatever the
 * schedule, each generation gets exactly the tokens it gets alone, and no block is ever lost.
 */

interface Submission {
  readonly numPromptTokens: number;
  readonly seed: number;
  readonly maxTokens: number;
  readonly sampling: SamplingParams;
  readonly stopIds: readonly number[];
}

type Action =
  | { readonly kind: 'submit'; readonly submission: Submission }
  | { readonly kind: 'score'; readonly numTokens: number }
  | { readonly kind: 'abort' | 'finish'; readonly which: number }
  | { readonly kind: 'step'; readonly times: number }
  /** A step is left in flight while the next action happens. */
  | { readonly kind: 'fly' }
  | { readonly kind: 'fail' };

const sampling = fc.oneof(
  fc.constant(GREEDY),
  fc.record({ seed: fc.bigInt({ min: 0n, max: 99n }), topK: fc.nat({ max: 20 }) }).map(({ seed, topK }) => ({
    ...GREEDY,
    temperature: 0.9,
    topP: 0.95,
    topK,
    seed,
    repetitionPenalty: 1.2,
    frequencyPenalty: 0.4,
    presencePenalty: 0.2,
  })),
);
const submission: fc.Arbitrary<Submission> = fc.record({
  numPromptTokens: fc.integer({ min: 1, max: 20 }),
  seed: fc.nat({ max: 1000 }),
  maxTokens: fc.integer({ min: 1, max: 13 }),
  sampling,
  stopIds: fc.array(fc.nat({ max: 63 }), { maxLength: 4 }),
});
const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('submit' as const), submission }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('score' as const), numTokens: fc.integer({ min: 2, max: 20 }) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('abort' as const, 'finish' as const), which: fc.nat() }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('step' as const), times: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('fly' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('fail' as const) }) },
);
const setting = fc.record({
  numBlocks: fc.array(fc.integer({ min: 8, max: 16 }), { minLength: 1, maxLength: 2 }),
  maxBatchTokens: fc.integer({ min: 1, max: 24 }),
  maxBatchSequences: fc.integer({ min: 1, max: 5 }),
  prefillChunkTokens: fc.integer({ min: 1, max: 12 }),
  maxStepsInFlight: fc.constantFrom(1, 2),
});

class Life {
  readonly fixture: EngineFixture;
  readonly #generations: { readonly generation: Generation; readonly submission: Submission }[] = [];
  readonly #scores: Promise<string>[] = [];
  readonly #numGroups: number;

  constructor(fixture: EngineFixture, numGroups: number) {
    this.fixture = fixture;
    this.#numGroups = numGroups;
  }

  async act(next: Action): Promise<void> {
    const { engine, runner } = this.fixture;
    switch (next.kind) {
      case 'submit':
        this.#submit(next.submission);
        break;
      case 'score':
        this.#scores.push(
          engine.score({ tokenIds: promptOf(next.numTokens, 3) }).then(
            (logprobs) => (logprobs.filter((value) => Number.isNaN(value)).length === 1 ? 'whole' : 'holes'),
            (error: unknown) => (isKvasirError(error) ? error.code : 'unknown'),
          ),
        );
        break;
      case 'abort':
      case 'finish':
        this.#generations[next.which % Math.max(1, this.#generations.length)]?.generation[next.kind]();
        break;
      case 'step':
        for (let step = 0; step < next.times; step++) await engine.step();
        break;
      case 'fly':
        await this.#fly();
        break;
      case 'fail':
        runner.failNext(new KvasirError('out-of-memory', 'the device found no memory'));
        break;
    }
    engine.checkIntegrity();
  }

  /** Ends, arrivals and inspection while steps are with the device. */
  async #fly(): Promise<void> {
    const { engine, runner } = this.fixture;
    runner.hold();
    const stepping = engine.step();
    engine.checkIntegrity();
    this.#generations.at(-1)?.generation.abort();
    this.#submit({ numPromptTokens: 5, seed: 11, maxTokens: 5, sampling: GREEDY, stopIds: [] });
    engine.checkIntegrity();
    runner.releaseAll();
    await stepping;
  }

  #submit(wanted: Submission): void {
    const { numPromptTokens, seed, ...rest } = wanted;
    const generation = this.fixture.engine.submit({ promptIds: promptOf(numPromptTokens, seed), ...rest });
    this.#generations.push({ generation, submission: wanted });
  }

  /** Runs dry, then reads what everybody got and what they should have got. */
  async endings(): Promise<readonly Ending[]> {
    await drain(this.fixture);
    const endings: Ending[] = [];
    for (const { generation, submission: wanted } of this.#generations) {
      const tokenIds: number[] = [];
      for await (const batch of generation) tokenIds.push(...batch.tokens.map((event) => event.tokenId));
      const promptIds = promptOf(wanted.numPromptTokens, wanted.seed);
      const expected = expectedOutputs(promptIds, { ...wanted, numGroups: this.#numGroups });
      endings.push({ finish: await generation.finished, tokenIds, expected, maxTokens: wanted.maxTokens });
    }
    return endings;
  }

  scores(): Promise<string[]> {
    return Promise.all(this.#scores);
  }
}

interface Ending {
  readonly finish: GenerationFinish;
  readonly tokenIds: number[];
  readonly expected: number[];
  readonly maxTokens: number;
}

/** Ended by itself, not by its caller or by an error. */
function isWhole({ finish }: Ending): boolean {
  return finish.reason === 'length' || (finish.reason === 'stop' && finish.stopTokenId !== null);
}

describe('BatchEngine under random lives', () => {
  it('gives every generation the tokens it gets alone and every block back', async () => {
    await fc.assert(
      fc.asyncProperty(setting, fc.array(action, { minLength: 5, maxLength: 40 }), async (chosen, actions) => {
        const { numBlocks, maxStepsInFlight, maxBatchSequences, ...engineOptions } = chosen;
        const fixture = createFixture({ numBlocks, maxStepsInFlight, maxBatchSequences }, engineOptions);
        const life = new Life(fixture, numBlocks.length);
        for (const next of actions) await life.act(next);
        for (const ending of await life.endings()) {
          const { finish, tokenIds, expected, maxTokens } = ending;
          expect(tokenIds).toEqual(isWhole(ending) ? expected : expected.slice(0, tokenIds.length));
          expect(finish.reason === 'length').toBe(isWhole(ending) && tokenIds.length === maxTokens);
          expect(['none', 'out-of-memory', 'internal']).toContain(
            finish.reason === 'error' ? finish.error.code : 'none',
          );
        }
        for (const score of await life.scores()) expect(['whole', 'out-of-memory', 'internal']).toContain(score);
        const { blocks, running, waiting, stepsInFlight, failure } = fixture.engine.stats();
        expect({ running, waiting, stepsInFlight, failure }).toEqual({
          running: 0,
          waiting: 0,
          stepsInFlight: 0,
          failure: null,
        });
        for (const pool of blocks) expect(pool).toMatchObject({ free: pool.total, used: 0, retired: 0 });
      }),
      { numRuns: 400 },
    );
  });
});
