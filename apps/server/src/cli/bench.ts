import path from 'node:path';
import type { Command } from 'commander';
import type { ModelFile } from '@kvasir/models';
import { currentCommit, describeHardware, type Hardware } from '../bench/hardware.ts';
import { contextOf, measure, summarize, testName, type BenchTest, type Sample } from '../bench/measure.ts';
import type { Config } from '../config.ts';
import type { Kvasir, LoadedModel } from '../container.ts';
import { addSettings, LOADING_SETTINGS, readConfig, toInteger, toIntegers, withKvasir } from './command.ts';
import type { Progress } from './progress.ts';

interface BenchOptions {
  readonly prompt: string;
  readonly gen: string;
  readonly depth: string;
  readonly batch: string;
  readonly repetitions: string;
  readonly json?: true;
}

const DESCRIPTION = `Measure prefill and decode through the batch engine, tests named as llama-bench names them.

Prompt tokens are random. pp: prompt tokens a second of one sequence; tg: tokens a second of all sequences together
while nothing else runs. Each test runs once unmeasured before its repetitions.`;

export function addBenchCommand(program: Command): void {
  const command = program
    .command('bench')
    .summary('Measure prefill and decode through the batch engine')
    .description(DESCRIPTION)
    .option('-p, --prompt <tokens,…>', 'prompt lengths; 0 leaves prefill out', '512')
    .option('-n, --gen <tokens,…>', 'tokens to decode; 0 leaves decode out', '128')
    .option('-d, --depth <tokens,…>', 'context already there', '0')
    .option('-b, --batch <number,…>', 'sequences that decode at once', '1')
    .option('-r, --repetitions <number>', 'runs of each test', '5')
    .option('--json', 'one JSON object on standard output');
  addSettings(command, LOADING_SETTINGS).action(async (options: BenchOptions & Record<string, unknown>) => {
    const tests = toTests(options);
    const repetitions = toInteger(options.repetitions, 'repetitions', 1);
    const config = readConfig(options, LOADING_SETTINGS);
    await withKvasir(config, async (kvasir, progress) => {
      const report = await runTests(kvasir, config, progress, tests, repetitions);
      progress.clear();
      process.stdout.write(options.json === true ? `${JSON.stringify(report, null, 2)}\n` : toTable(report));
    });
  });
}

function toTests(options: BenchOptions): BenchTest[] {
  const depths = toIntegers(options.depth, 'depth', 0);
  const batches = toIntegers(options.batch, 'batch', 1);
  const prompts = toIntegers(options.prompt, 'prompt', 0).filter((tokens) => tokens > 0);
  const outputs = toIntegers(options.gen, 'gen', 0).filter((tokens) => tokens > 0);
  return depths.flatMap((depth) => [
    ...prompts.map((tokens) => ({ kind: 'prefill', tokens, depth, batch: 1 }) as const),
    ...batches.flatMap((batch) => outputs.map((tokens) => ({ kind: 'decode', tokens, depth, batch }) as const)),
  ]);
}

interface BenchReport {
  readonly model: { readonly file: string; readonly type: string; readonly bytes: number; readonly parameters: number };
  readonly backend: {
    readonly name: string;
    readonly device: string;
    readonly instructionPath: string;
    readonly numericsId: string;
  };
  readonly settings: Pick<Config, 'threads' | 'kvDType' | 'activations' | 'maxBatchTokens'>;
  readonly hardware: Hardware;
  readonly commit: string | null;
  readonly command: string;
  readonly date: string;
  readonly tests: readonly (BenchTest &
    Sample & { readonly name: string; readonly tokensPerSecond: readonly number[] })[];
}

async function runTests(
  kvasir: Kvasir,
  config: Config,
  progress: Progress,
  tests: readonly BenchTest[],
  repetitions: number,
): Promise<BenchReport> {
  const file = await kvasir.modelFile();
  const chunk = config.prefillChunkTokens > 0 ? config.prefillChunkTokens : SMALLEST_CHUNK;
  const contexts = tests.map((test) => contextOf(test, chunk));
  const loaded = await kvasir.load({
    contextLength: Math.max(...contexts),
    // Every sequence has its last block to itself.
    poolTokens: Math.max(...tests.map((test, index) => test.batch * ((contexts[index] ?? 0) + BLOCK))),
    maxBatchSequences: Math.max(...tests.map((test) => test.batch)),
  });
  const nextId = createIds(loaded.runner.info.vocabularySize);
  const results: BenchReport['tests'][number][] = [];
  const numRuns = tests.length * (repetitions + 1);
  for (const test of tests) {
    const tokensPerSecond: number[] = [];
    for (let run = 0; run <= repetitions; run += 1) {
      progress.show(`bench ${testName(test)}`, results.length * (repetitions + 1) + run, numRuns, 'chunks');
      const rate = await measure(loaded.engine, test, nextId);
      if (run > 0) tokensPerSecond.push(rate);
    }
    results.push({ name: testName(test), ...test, ...summarize(tokensPerSecond), tokensPerSecond });
  }
  return { ...describeRun(file, loaded, config), tests: results };
}

const BLOCK = 256;
/** What the engine does at the least while others decode, when nothing is configured. */
const SMALLEST_CHUNK = 64;

/** Token ids from a small generator of its own: the same in every run. Source: Numerical Recipes' LCG constants. */
function createIds(vocabularySize: number): () => number {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state % vocabularySize;
  };
}

function describeRun(file: ModelFile, { runner }: LoadedModel, config: Config): Omit<BenchReport, 'tests'> {
  const { backend, device, instructionPath, numericsId } = runner.info;
  const { threads, kvDType, activations, maxBatchTokens } = config;
  return {
    model: {
      file: file.path,
      type: `${file.architecture} ${mainDType(file)}`,
      bytes: file.tensors.reduce((sum, { byteLength }) => sum + byteLength, 0),
      parameters: file.tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0),
    },
    backend: { name: backend, device, instructionPath, numericsId },
    settings: { threads, kvDType, activations, maxBatchTokens },
    hardware: describeHardware(),
    commit: currentCommit(),
    command: ['kvasir', ...process.argv.slice(2)].join(' '),
    date: new Date().toISOString(),
  };
}

/** The dtype most of the bytes are in. */
function mainDType(file: ModelFile): string {
  const bytes = new Map<string, number>();
  for (const { dtype, byteLength } of file.tensors) bytes.set(dtype, (bytes.get(dtype) ?? 0) + byteLength);
  return [...bytes].sort(([, a], [, b]) => b - a)[0]?.[0] ?? 'none';
}

function toTable(report: BenchReport): string {
  const { model, backend, settings, tests } = report;
  const head = ['model', 'size', 'params', 'backend', 'threads', 'test', 't/s'];
  const threads = settings.threads === 0 ? `auto of ${report.hardware.cores}` : String(settings.threads);
  const size = `${(model.bytes / 2 ** 20).toFixed(2)} MiB`;
  const params = `${(model.parameters / 1e6).toFixed(2)} M`;
  const rows = tests.map(({ name, mean, standardDeviation }) => [
    `${model.type} ${path.basename(model.file)}`,
    size,
    params,
    backend.name,
    threads,
    name,
    `${mean.toFixed(2)} ± ${standardDeviation.toFixed(2)}`,
  ]);
  const widths = head.map((title, column) => Math.max(...[head, ...rows].map((row) => (row[column] ?? title).length)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join(' | ')} |`;
  const rule = `| ${widths.map((width, column) => (column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`;
  return `${[line(head), rule, ...rows.map(line)].join('\n')}\n`;
}
