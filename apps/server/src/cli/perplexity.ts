import type { Command } from 'commander';
import { KvasirError } from '@kvasir/domain';
import type { GenerationEngine } from '@kvasir/domain';
import type { Kvasir } from '../container.ts';
import { addSettings, LOADING_SETTINGS, readConfig, toInteger, UsageError, withKvasir } from './command.ts';
import type { Progress } from './progress.ts';
import { readText } from './input.ts';

interface PerplexityOptions {
  readonly textFile: string;
  readonly context: string;
  readonly stride?: string;
  readonly chunks?: string;
  readonly json?: true;
}

const DESCRIPTION = `Measure how well a model predicts a text.

The text is cut into chunks of --context tokens, each scored by itself over its second half (tokens context/2 + 1 on),
its first token replaced by BOS where the model wants one; what is left over at the end is dropped. This is how
llama-perplexity does it, so equal --context gives comparable figures. With --stride the windows overlap and each
scores its last stride tokens.`;

export function addPerplexityCommand(program: Command): void {
  const command = program
    .command('perplexity')
    .summary('Measure how well a model predicts a text')
    .description(DESCRIPTION)
    .requiredOption('--text-file <path>', 'UTF-8 text; - reads standard input')
    .option('--context <tokens>', 'tokens of a chunk', '2048')
    .option('--stride <tokens>', 'overlapping windows, this far apart')
    .option('--chunks <number>', 'score only the first so many')
    .option('--json', 'one JSON object on standard output');
  addSettings(command, LOADING_SETTINGS).action(async (options: PerplexityOptions & Record<string, unknown>) => {
    const plan = parsePlan(options);
    const config = readConfig(options, LOADING_SETTINGS);
    await withKvasir(config, async (kvasir, progress) => {
      const text = await readText(options.textFile);
      const result = await measure(kvasir, progress, text, plan);
      progress.clear();
      process.stdout.write(options.json === true ? `${JSON.stringify(result)}\n` : report(result));
    });
  });
}

interface Plan {
  readonly context: number;
  readonly stride: number | null;
  readonly maxChunks: number;
}

function parsePlan(options: PerplexityOptions): Plan {
  const context = toInteger(options.context, 'context', 4);
  const stride = options.stride === undefined ? null : toInteger(options.stride, 'stride', 1);
  if (stride !== null && stride >= context) {
    throw new UsageError(`--stride: expected less than --context (${context}), found ${stride}`);
  }
  const maxChunks = options.chunks === undefined ? Number.POSITIVE_INFINITY : toInteger(options.chunks, 'chunks', 1);
  return { context, stride, maxChunks };
}

/** Mean negative log-likelihood in nats and what follows from it. */
export interface PerplexityResult {
  readonly perplexity: number;
  /** One standard error of `perplexity`. */
  readonly standardError: number;
  readonly bitsPerByte: number;
  readonly nllPerToken: number;
  readonly scoredTokens: number;
  readonly chunks: number;
  readonly context: number;
  readonly stride: number | null;
  readonly tokens: number;
  readonly seconds: number;
  readonly model: string;
}

async function measure(kvasir: Kvasir, progress: Progress, text: string, plan: Plan): Promise<PerplexityResult> {
  const [file, tokenizer] = await Promise.all([kvasir.modelFile(), kvasir.tokenizer()]);
  const tokenIds = await tokenizer.encode(text, { special: false, addBosEos: true });
  const bosId = tokenizer.info.addBos ? tokenizer.info.bosId : null;
  const windows = cutWindows(tokenIds, plan, bosId);
  const { engine } = await kvasir.load({
    poolTokens: plan.context * SCORED_AT_ONCE,
    contextLength: plan.context,
    maxBatchSequences: SCORED_AT_ONCE,
  });
  engine.start();
  const startMs = performance.now();
  const logprobs = await scoreWindows(engine, windows, (done) =>
    progress.show('perplexity', done, windows.length, 'chunks'),
  );
  const seconds = (performance.now() - startMs) / 1000;
  const scored = windows.flatMap(({ ids, firstScored }) => [...ids.subarray(firstScored)]);
  const scoredBytes = scored.reduce((sum, id) => sum + tokenizer.tokenBytes(id).length, 0);
  return {
    ...toStatistics(logprobs, scoredBytes),
    chunks: windows.length,
    context: plan.context,
    stride: plan.stride,
    tokens: tokenIds.length,
    seconds,
    model: file.path,
  };
}

/** Two windows at once keep the step budget full across their ends. */
const SCORED_AT_ONCE = 2;

interface Window {
  readonly ids: Int32Array;
  readonly firstScored: number;
}

/** @throws KvasirError `invalid-argument` when the text is shorter than one window */
export function cutWindows(tokenIds: Int32Array, { context, stride, maxChunks }: Plan, bosId: number | null): Window[] {
  const step = stride ?? context;
  const firstScored = stride === null ? Math.floor(context / 2) + 1 : context - stride;
  const windows: Window[] = [];
  for (let start = 0; start + context <= tokenIds.length && windows.length < maxChunks; start += step) {
    const ids = tokenIds.slice(start, start + context);
    if (bosId !== null) ids[0] = bosId;
    windows.push({ ids, firstScored });
  }
  if (windows.length === 0) {
    throw new KvasirError(
      'invalid-argument',
      `text: expected at least --context ${context} tokens, found ${tokenIds.length}; lower --context`,
    );
  }
  return windows;
}

async function scoreWindows(
  engine: GenerationEngine,
  windows: readonly Window[],
  onDone: (numDone: number) => void,
): Promise<number[]> {
  const scores: number[][] = windows.map(() => []);
  let next = 0;
  let numDone = 0;
  const work = async (): Promise<void> => {
    for (let index = next++; index < windows.length; index = next++) {
      const window = windows[index];
      if (window === undefined) return;
      const logprobs = await engine.score({ tokenIds: window.ids });
      scores[index] = [...logprobs.subarray(window.firstScored)];
      numDone += 1;
      onDone(numDone);
    }
  };
  await Promise.all(Array.from({ length: SCORED_AT_ONCE }, work));
  return scores.flat();
}

function toStatistics(
  logprobs: readonly number[],
  bytes: number,
): Pick<PerplexityResult, 'perplexity' | 'standardError' | 'bitsPerByte' | 'nllPerToken' | 'scoredTokens'> {
  const count = logprobs.length;
  const nll = -logprobs.reduce((sum, logprob) => sum + logprob, 0);
  const mean = nll / count;
  const variance = logprobs.reduce((sum, logprob) => sum + (logprob + mean) ** 2, 0) / count;
  const perplexity = Math.exp(mean);
  return {
    perplexity,
    standardError: perplexity * Math.sqrt(variance / Math.max(1, count - 1)),
    bitsPerByte: nll / Math.LN2 / bytes,
    nllPerToken: mean,
    scoredTokens: count,
  };
}

function report(result: PerplexityResult): string {
  const { perplexity, standardError, bitsPerByte, chunks, context, scoredTokens, seconds } = result;
  return [
    `perplexity ${perplexity.toFixed(4)} ± ${standardError.toFixed(5)}`,
    `bits per byte ${bitsPerByte.toFixed(4)}`,
    `${scoredTokens} tokens scored in ${chunks} chunks of ${context}, ${seconds.toFixed(1)} s`,
    '',
  ].join('\n');
}
