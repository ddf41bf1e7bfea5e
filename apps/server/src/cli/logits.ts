import type { Command } from 'commander';
import { GREEDY, KvasirError } from '@kvasir/domain';
import type { Kvasir } from '../container.ts';
import { addSettings, LOADING_SETTINGS, readConfig, toInteger, withKvasir } from './command.ts';
import type { Progress } from './progress.ts';
import { SafetensorsWriter, type TensorPlan } from './safetensors-writer.ts';
import { readBytes } from './input.ts';

interface LogitsOptions {
  readonly ids: string;
  readonly out: string;
  readonly greedy?: string;
  readonly oracle?: true;
}

export function addLogitsCommand(program: Command): void {
  const command = program
    .command('logits')
    .description('Write the logits of given token ids as safetensors: `logits` (T, vocabulary) float32')
    .requiredOption('--ids <path>', 'JSON array of token ids; - reads standard input')
    .requiredOption('--out <path>', 'safetensors file to write')
    .option('--greedy <number>', 'also continue greedily: `greedy_ids` (number) int64')
    .option('--oracle', 'float activations and an f32 KV pool: closest to the definition');
  addSettings(command, LOADING_SETTINGS).action(async (options: LogitsOptions & Record<string, unknown>) => {
    const numGreedy = options.greedy === undefined ? 0 : toInteger(options.greedy, 'greedy', 1);
    const oracle = { kvDType: 'f32', activations: 'float' };
    const config = readConfig(options, LOADING_SETTINGS, { logLevel: 'warn' });
    const chosen = options.oracle === true ? ({ ...config, ...oracle } as typeof config) : config;
    const tokenIds = parseIds(await readBytes(options.ids), options.ids);
    await withKvasir(chosen, (kvasir, progress) => writeLogits(kvasir, progress, tokenIds, numGreedy, options.out));
  });
}

async function writeLogits(
  kvasir: Kvasir,
  progress: Progress,
  tokenIds: Int32Array,
  numGreedy: number,
  out: string,
): Promise<void> {
  const contextLength = tokenIds.length + numGreedy;
  const { engine, runner } = await kvasir.load({ poolTokens: contextLength, contextLength, maxBatchSequences: 1 });
  engine.start();
  const tensors: TensorPlan[] = [
    { name: 'logits', dtype: 'F32', shape: [tokenIds.length, runner.info.vocabularySize] },
    ...(numGreedy > 0 ? [{ name: 'greedy_ids', dtype: 'I64', shape: [numGreedy] } as const] : []),
  ];
  const writer = new SafetensorsWriter(out, tensors);
  try {
    await engine.logits({
      tokenIds,
      onRows: (rows, firstToken) => {
        writer.append(rows);
        const numDone = firstToken + rows.length / runner.info.vocabularySize;
        progress.show('logits', numDone, tokenIds.length, 'tokens');
      },
    });
    if (numGreedy > 0) {
      const generation = engine.submit({ promptIds: tokenIds, sampling: GREEDY, maxTokens: numGreedy, stopIds: [] });
      const output = await generation.collect();
      writer.append(BigInt64Array.from(output.tokenIds, BigInt));
    }
  } catch (error) {
    writer.abandon();
    throw error;
  }
  writer.finish();
}

/** @throws KvasirError `file-corrupt` when it is no JSON array of token ids */
function parseIds(bytes: Uint8Array, file: string): Int32Array {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch (cause) {
    throw new KvasirError('file-corrupt', `${file}: expected JSON, found ${String(cause)}`, { cause });
  }
  if (!Array.isArray(value) || value.length === 0) {
    throw new KvasirError('file-corrupt', `${file}: expected a JSON array of token ids, found none`);
  }
  const wrong = value.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= 2 ** 31);
  if (wrong >= 0) {
    throw new KvasirError(
      'file-corrupt',
      `${file}: expected token ids, found ${JSON.stringify(value[wrong])} at index ${wrong}`,
    );
  }
  return Int32Array.from(value as number[]);
}
