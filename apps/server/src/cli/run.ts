import type { Command } from 'commander';
import type { SettingName } from '../settings.ts';
import { encodeConversation, encodeText, type PromptOwner } from '../generation/encode-prompt.ts';
import type { ServedModel } from '../generation/served-model.ts';
import { chooseSeed, startGeneration } from '../generation/start-generation.ts';
import { addSettings, LOADING_SETTINGS, readConfig, toInteger, UsageError, withKvasir } from './command.ts';
import { readText } from './input.ts';

interface RunOptions {
  readonly maxTokens?: string;
  readonly temperature: string;
  readonly seed?: string;
  readonly raw?: true;
  readonly system?: string;
}

const SETTINGS: readonly SettingName[] = LOADING_SETTINGS;

export function addRunCommand(program: Command): void {
  const command = program
    .command('run [prompt...]')
    .description('Answer one prompt, from the arguments or standard input, as it is generated')
    .option('--max-tokens <number>', 'longest answer (default: until the context is full)')
    .option('--temperature <number>', '0 always takes the likeliest token', '0.8')
    .option('--seed <number>', 'same seed, same answer (default: chosen, and told at the end)')
    .option('--system <text>', 'system message')
    .option('--raw', 'continue the prompt as it is, without the chat template');
  addSettings(command, SETTINGS).action(async (words: string[], options: RunOptions & Record<string, unknown>) => {
    const prompt = words.length > 0 ? words.join(' ') : await readText('-');
    const wishes = parseWishes(options);
    await withKvasir(readConfig(options, SETTINGS), async (kvasir, progress) => {
      const model = await kvasir.serve({ keepsAgents: false });
      progress.clear();
      model.engine.start();
      await answer(model, prompt, wishes);
    });
  });
}

interface Wishes {
  readonly maxTokens: number | null;
  readonly temperature: number;
  readonly seed: number;
  readonly isRaw: boolean;
  readonly system: string | null;
}

function parseWishes(options: RunOptions): Wishes {
  const temperature = Number(options.temperature);
  if (!(temperature >= 0 && temperature <= 2)) {
    throw new UsageError(`--temperature: expected a number from 0 to 2, found ${options.temperature}`);
  }
  if (options.raw === true && options.system !== undefined) {
    throw new UsageError('--system: expected no --raw beside it, since only a chat template has a place for it');
  }
  return {
    maxTokens: options.maxTokens === undefined ? null : toInteger(options.maxTokens, 'max-tokens', 1),
    temperature,
    seed: options.seed === undefined ? chooseSeed() : toInteger(options.seed, 'seed', 0),
    isRaw: options.raw === true,
    system: options.system ?? null,
  };
}

/** One prompt, no memory. */
const NOBODY: PromptOwner = { tenant: 'default', agent: null };

async function answer(model: ServedModel, prompt: string, wishes: Wishes): Promise<void> {
  const interrupted = new AbortController();
  const system = wishes.system === null ? [] : [{ role: 'system', content: wishes.system }];
  const promptIds = wishes.isRaw
    ? await encodeText(model, prompt, NOBODY, interrupted.signal)
    : await encodeConversation(model, [...system, { role: 'user', content: prompt }], {}, NOBODY, interrupted.signal);
  const stream = startGeneration(model, {
    prompts: [promptIds],
    numChoices: 1,
    sampling: {
      temperature: wishes.temperature,
      topK: 0,
      topP: 1,
      minP: wishes.temperature === 0 ? 0 : DEFAULT_MIN_P,
      repetitionPenalty: 1,
      frequencyPenalty: 0,
      presencePenalty: 0,
      logitBias: new Map(),
      logprobs: null,
    },
    seed: wishes.seed,
    maxTokens: wishes.maxTokens,
    stops: [],
    ignoreEos: false,
    continues: wishes.isRaw,
    tenant: NOBODY.tenant,
    turn: null,
  });
  const finish = () => stream.choices[0]?.generation.finish();
  process.once('SIGINT', finish);
  for (let pieces = await stream.next(); pieces !== null; pieces = await stream.next()) {
    for (const piece of pieces) process.stdout.write(piece.text);
  }
  process.off('SIGINT', finish);
  const stats = stream.choices[0]?.generation.stats;
  process.stdout.write('\n');
  if (stats !== undefined) process.stderr.write(`${summary(stats, wishes.seed)}\n`);
}

/** Cuts off the tail that makes a small model ramble; changes nothing when the likeliest token is certain. */
const DEFAULT_MIN_P = 0.05;

interface Stats {
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly firstTokenMs: number | null;
  readonly totalMs: number | null;
}

function summary({ promptTokens, outputTokens, firstTokenMs, totalMs }: Stats, seed: number): string {
  const rate = (tokens: number, milliseconds: number) => `${((tokens * 1000) / milliseconds).toFixed(1)} tokens/s`;
  const prefill = firstTokenMs === null ? '' : ` (${rate(promptTokens, firstTokenMs)})`;
  const decodeMs = firstTokenMs === null || totalMs === null ? 0 : totalMs - firstTokenMs;
  const decode = outputTokens > 1 && decodeMs > 0 ? ` (${rate(outputTokens - 1, decodeMs)})` : '';
  return `[${promptTokens} prompt tokens${prefill}, ${outputTokens} generated${decode}, seed ${seed}]`;
}
