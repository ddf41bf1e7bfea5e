import { FakeClock, FakeModelRunner, type FakeRunnerOptions, RecordingNarrator } from '@kvasir/adapter-fake';
import { GREEDY, type GenerationRequest } from '@kvasir/domain';
import { BatchEngine, type BatchEngineOptions } from '../src/index.ts';

export interface EngineFixture {
  readonly engine: BatchEngine;
  readonly runner: FakeModelRunner;
  readonly clock: FakeClock;
  readonly narrator: RecordingNarrator;
}

/** An engine on a fake runner: blocks of 4 tokens, 64 blocks, 8 sequences, 64 tokens a step unless told otherwise. */
export function createFixture(
  runnerOptions: FakeRunnerOptions = {},
  engineOptions: Partial<BatchEngineOptions> = {},
): EngineFixture {
  const runner = new FakeModelRunner(runnerOptions);
  const clock = new FakeClock();
  const narrator = new RecordingNarrator();
  const engine = new BatchEngine({ runner, clock, narrator }, { contextLength: 1024, ...engineOptions });
  return { engine, runner, clock, narrator };
}

export function ids(...tokenIds: number[]): Int32Array {
  return Int32Array.from(tokenIds);
}

/** `count` token ids below 64 that depend on `seed`. */
export function promptOf(count: number, seed = 1): Int32Array {
  return Int32Array.from({ length: count }, (_, index) => (seed * 31 + index * index * 7 + index * 3) % 64);
}

export function request(overrides: Partial<GenerationRequest> = {}): GenerationRequest {
  return { promptIds: promptOf(5), sampling: GREEDY, maxTokens: 4, stopIds: [], ...overrides };
}

/** Steps until there is nothing to do, checking every block after each step. */
export async function drain({ engine }: EngineFixture, most = 10_000): Promise<number> {
  for (let steps = 0; steps < most; steps++) {
    const report = await engine.step();
    engine.checkIntegrity();
    if (report.kind === 'idle') return steps;
  }
  throw new Error(`expected the engine to run dry within ${most} steps`);
}

/** Lets everything that is ready run. */
export async function turns(count = 3): Promise<void> {
  for (let index = 0; index < count; index++) await new Promise((resolve) => setImmediate(resolve));
}
