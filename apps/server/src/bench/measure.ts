import { GREEDY, KvasirError } from '@kvasir/domain';
import type { Generation, GenerationEngine } from '@kvasir/domain';

/** One thing to measure: `prefill` of `tokens` prompt tokens or `decode` of `tokens` a sequence, at a context depth. */
export interface BenchTest {
  readonly kind: 'prefill' | 'decode';
  readonly tokens: number;
  /** Tokens already in the context. */
  readonly depth: number;
  /** Sequences at once. */
  readonly batch: number;
}

/** As llama-bench names them: pp512, tg128 @ d4096; our batch follows. */
export function testName({ kind, tokens, depth, batch }: BenchTest): string {
  const base = `${kind === 'prefill' ? 'pp' : 'tg'}${tokens}`;
  return `${base}${depth > 0 ? ` @ d${depth}` : ''}${batch > 1 ? ` b${batch}` : ''}`;
}

/**
 * Tokens a sequence may reach in a test. While later sequences of a batch are still prefilled, the earlier ones decode.
 */
export function contextOf({ kind, tokens, depth, batch }: BenchTest, prefillChunkTokens: number): number {
  if (kind === 'prefill') return depth + tokens + 1;
  const stepsOfPrefill = Math.ceil((batch * Math.max(depth, 1)) / prefillChunkTokens) + batch;
  return Math.max(depth, 1) + stepsOfPrefill + tokens + WARM_STEPS + 2;
}

/** Decode steps before the clock starts: the pipeline is full and every sequence decodes. */
const WARM_STEPS = 2;

/**
 * Runs a test once.
 *
 * Prefill: from the step that completes `depth` tokens to the one that completes `depth + tokens`. Decode: `tokens` steps
 * in which every sequence decodes and nothing else runs.
 * @returns tokens a second over all sequences
 */
export async function measure(engine: GenerationEngine, test: BenchTest, nextId: () => number): Promise<number> {
  const generations = submitAll(engine, test, nextId);
  try {
    return test.kind === 'prefill' ? await timePrefill(engine, test) : await timeDecode(engine, test);
  } finally {
    for (const generation of generations) generation.abort();
    while ((await engine.step()).kind !== 'idle');
  }
}

function submitAll(engine: GenerationEngine, test: BenchTest, nextId: () => number): Generation[] {
  const promptTokens = test.kind === 'prefill' ? test.depth + test.tokens : Math.max(test.depth, 1);
  return Array.from({ length: test.batch }, () =>
    engine.submit({
      promptIds: Int32Array.from({ length: promptTokens }, nextId),
      sampling: GREEDY,
      maxTokens: test.kind === 'prefill' ? 1 : null,
      stopIds: [],
    }),
  );
}

async function timePrefill(engine: GenerationEngine, test: BenchTest): Promise<number> {
  let startMs = performance.now();
  let startTokens = 0;
  for (let done = 0; ; ) {
    done += (await stepOnce(engine)).numPrefillTokens;
    if (done >= test.batch * (test.depth + test.tokens)) {
      return ((done - startTokens) * 1000) / (performance.now() - startMs);
    }
    if (done <= test.batch * test.depth) {
      startMs = performance.now();
      startTokens = done;
    }
  }
}

async function timeDecode(engine: GenerationEngine, test: BenchTest): Promise<number> {
  let numWarm = 0;
  while (numWarm < WARM_STEPS) {
    const report = await stepOnce(engine);
    numWarm = report.numPrefillTokens === 0 && report.numSequences === test.batch ? numWarm + 1 : 0;
  }
  const startMs = performance.now();
  for (let step = 0; step < test.tokens; step += 1) {
    const report = await stepOnce(engine);
    if (report.numDecodeTokens !== test.batch) {
      throw new KvasirError(
        'invariant-broken',
        `bench: expected ${test.batch} sequences to decode, found ${report.numDecodeTokens}`,
      );
    }
  }
  return (test.batch * test.tokens * 1000) / (performance.now() - startMs);
}

async function stepOnce(engine: GenerationEngine) {
  const report = await engine.step();
  if (report.kind === 'ran') return report;
  if (report.kind === 'failed') throw report.error;
  throw new KvasirError('invariant-broken', 'bench: expected a step to run, found nothing to do');
}

export interface Sample {
  readonly mean: number;
  readonly standardDeviation: number;
  readonly median: number;
}

export function summarize(values: readonly number[]): Sample {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return {
    mean,
    standardDeviation: values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0,
    median: sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2,
  };
}
