import { isKvasirError } from '@kvasir/domain';
import { Command, CommanderError, Option } from 'commander';
import { ConfigError, loadConfig, type Config } from '../config.ts';
import { createKvasir, type Kvasir } from '../container.ts';
import { defaultText, SETTINGS, toFlag, toVariable, type SettingName } from '../settings.ts';
import { createProgress, type Progress } from './progress.ts';

/** Settings of every command that loads a model. */
export const LOADING_SETTINGS: readonly SettingName[] = [
  'model',
  'backend',
  'threads',
  'instructionPath',
  'activations',
  'contextLength',
  'kvDType',
  'poolTokens',
  'poolBytes',
  'gpuMemoryUtilization',
  'maxBatchTokens',
  'maxBatchSequences',
  'prefillChunkTokens',
  'cacheDir',
  'hfEndpoint',
  'hfToken',
  'logLevel',
];

/** Settings of commands that only read a model's file. */
export const FILE_SETTINGS: readonly SettingName[] = ['model', 'cacheDir', 'hfEndpoint', 'hfToken', 'logLevel'];

/** Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong. */
export const EXIT = { done: 0, failed: 1, usage: 2 } as const;

/** The command line itself is wrong in a way its parser cannot see. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Adds a flag a setting. Values stay text here; the configuration's schema reads them. */
export function addSettings(command: Command, names: readonly SettingName[]): Command {
  for (const name of names) {
    const { value, help } = SETTINGS[name];
    const description = `${help} (${toVariable(name)}; default: ${defaultText(name)})`;
    command.addOption(new Option(`--${toFlag(name)} <${value}>`, description));
  }
  return command
    .option('--config <path>', 'configuration file (default: kvasir.config.json where it exists)')
    .option('--verbose', 'show where an error came from');
}

/** The configuration of a command, and its flags left as they are. */
export function readConfig(
  options: Readonly<Record<string, unknown>>,
  names: readonly SettingName[],
  defaults: Readonly<Partial<Record<SettingName, unknown>>> = { logLevel: 'warn' },
): Config {
  const flags: Partial<Record<SettingName, unknown>> = {};
  for (const name of names) flags[name] = options[toAttribute(name)];
  const file = options['config'];
  return loadConfig({ flags, file: typeof file === 'string' ? file : null, defaults });
}

/** How commander names the flag of a setting. */
function toAttribute(name: SettingName): string {
  return toFlag(name).replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** Runs `work` with a configured Kvasir and disposes it whatever happens. */
export async function withKvasir(
  config: Config,
  work: (kvasir: Kvasir, progress: Progress) => Promise<void>,
): Promise<void> {
  const progress = createProgress(config.isTerminal);
  const kvasir = createKvasir(config, {
    onDownload: ({ file, bytesDone, bytesTotal }) =>
      progress.show(`downloading ${file}`, bytesDone, bytesTotal, 'bytes'),
    onLoad: (bytesDone, bytesTotal) => progress.show('loading', bytesDone, bytesTotal, 'bytes'),
  });
  try {
    await work(kvasir, progress);
  } finally {
    progress.clear();
    await kvasir.dispose();
  }
}

/** Parses a numeric flag of a command. @throws UsageError */
export function toInteger(text: string, flag: string, minimum: number): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= minimum) return value;
  throw new UsageError(`--${flag}: expected an integer of at least ${minimum}, found ${JSON.stringify(text)}`);
}

/** `512,4096` as numbers. @throws UsageError */
export function toIntegers(text: string, flag: string, minimum: number): number[] {
  return text.split(',').map((item) => toInteger(item.trim(), flag, minimum));
}

/** Says in one line a problem what went wrong and which exit code it means. Commander has spoken for its own errors. */
export function reportFailure(error: unknown, isVerbose: boolean, write: (text: string) => void): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
  const stack = isVerbose && error instanceof Error ? `${error.stack ?? ''}\n` : '';
  if (error instanceof ConfigError) {
    for (const problem of error.problems) write(`error ${error.code}: ${problem}\n`);
    write(stack);
    return EXIT.usage;
  }
  if (error instanceof UsageError) {
    write(`error usage: ${error.message}\n${stack}`);
    return EXIT.usage;
  }
  const code = isKvasirError(error) ? error.code : 'internal';
  write(`error ${code}: ${oneLine(error instanceof Error ? error.message : String(error))}\n${stack}`);
  return EXIT.failed;
}

function oneLine(text: string): string {
  return text.replaceAll(/\s*\n\s*/g, ' ');
}
