import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { KvasirError } from '@kvasir/domain';
import {
  SETTINGS,
  SETTING_NAMES,
  toFlag,
  toVariable,
  type Setting,
  type SettingName,
  type Settings,
} from './settings.ts';

/** All settings with their values, and where a person would look to change each. */
export interface Config extends Settings {
  readonly cacheDir: string;
  /** null: nothing outlives the process. */
  readonly memoryDir: string | null;
  readonly hfEndpoint: string;
  /** Whether standard error is a terminal that understands colours and redrawn lines. */
  readonly isTerminal: boolean;
}

export interface ConfigSources {
  /** By setting name, as given on the command line. */
  readonly flags: Readonly<Partial<Record<SettingName, unknown>>>;
  /** Configuration file named on the command line; null looks for `kvasir.config.json` in the working directory. */
  readonly file: string | null;
  /** A command's own defaults, below everything a person sets. */
  readonly defaults?: Readonly<Partial<Record<SettingName, unknown>>>;
}

/** Variables with our prefix that are no settings: where the file is, and what the repository's own tests read. */
const FOREIGN_VARIABLES = /^KVASIR_(SHARED$|CONFIG$|BENCHMARKS$|FUZZ_|NATIVE$|TEST_)/;
const DEFAULT_FILE = 'kvasir.config.json';
const DEFAULT_ENDPOINT = 'https://huggingface.co';

/**
 * Reads defaults < configuration file < environment < command line, once.
 *
 * @throws ConfigError with every problem: unknown names, values of the wrong kind or out of range, each with its source
 */
export function loadConfig(
  sources: ConfigSources,
  environment: Readonly<Record<string, string | undefined>> = process.env,
  workingDirectory: string = process.cwd(),
): Config {
  const problems: string[] = [];
  const file = sources.file ?? environment['KVASIR_CONFIG'] ?? null;
  const layers = [
    fromRecord(sources.defaults ?? {}),
    fromFile(file, workingDirectory, problems),
    fromEnvironment(environment, problems),
    fromRecord(sources.flags),
  ];
  const merged = new Map(layers.flatMap((layer) => [...layer]));
  const values: Partial<Record<SettingName, unknown>> = {};
  for (const name of SETTING_NAMES) {
    const given = merged.get(name);
    const description: Setting = SETTINGS[name];
    const parsed = description.schema.safeParse(given?.value);
    if (parsed.success) values[name] = parsed.data;
    else
      for (const issue of parsed.error.issues)
        problems.push(`${given?.source ?? name}: ${issue.message}${shown(name, given?.value)}`);
  }
  if (problems.length === 0 && values.poolTokens !== 0 && values.poolBytes !== 0) {
    problems.push('poolTokens and poolBytes: expected one of them, found both');
  }
  if (problems.length === 0 && Object.values(values.apiKeys ?? {}).some((keys) => keys.includes(values.apiKey ?? ''))) {
    problems.push('apiKey and apiKeys: expected each key once, found one in both');
  }
  if (problems.length > 0) throw new ConfigError(problems);
  const settings = values as Settings;
  const cacheDir = path.resolve(workingDirectory, settings.cacheDir ?? defaultCacheDir(environment));
  const memoryDir = path.resolve(workingDirectory, settings.memoryDir ?? path.join(cacheDir, 'memory'));
  return {
    ...settings,
    cacheDir,
    memoryDir: settings.memoryDir === 'none' ? null : memoryDir,
    hfEndpoint: settings.hfEndpoint ?? DEFAULT_ENDPOINT,
    isTerminal: process.stderr.isTTY === true && environment['TERM'] !== 'dumb' && environment['CI'] === undefined,
  };
}

/** A configuration that cannot be used; the process ends with exit code 2. */
export class ConfigError extends KvasirError {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super('invalid-argument', `configuration: ${problems.join('; ')}`, { facts: { problems } });
    this.problems = problems;
  }
}

interface Given {
  readonly value: unknown;
  /** What the user wrote it as: `--port`, `KVASIR_PORT`, `kvasir.config.json: port`. */
  readonly source: string;
}
type Layer = ReadonlyMap<SettingName, Given>;

function fromRecord(values: ConfigSources['flags']): Layer {
  const layer = new Map<SettingName, Given>();
  for (const name of SETTING_NAMES) {
    if (values[name] !== undefined) layer.set(name, { value: values[name], source: `--${toFlag(name)}` });
  }
  return layer;
}

function fromEnvironment(environment: Readonly<Record<string, string | undefined>>, problems: string[]): Layer {
  const layer = new Map<SettingName, Given>();
  for (const [variable, name] of [
    ['HF_ENDPOINT', 'hfEndpoint'],
    ['HF_TOKEN', 'hfToken'],
  ] as const) {
    if (environment[variable]) layer.set(name, { value: environment[variable], source: variable });
  }
  const names = new Map(SETTING_NAMES.map((name) => [toVariable(name), name]));
  for (const [variable, value] of Object.entries(environment)) {
    if (!variable.startsWith('KVASIR_') || FOREIGN_VARIABLES.test(variable)) continue;
    const name = names.get(variable);
    if (name === undefined) problems.push(`${variable}: expected a known variable, found none of that name; unset it`);
    else if (value !== undefined && value !== '') layer.set(name, { value, source: variable });
  }
  return layer;
}

function fromFile(file: string | null, workingDirectory: string, problems: string[]): Layer {
  const layer = new Map<SettingName, Given>();
  const location = path.resolve(workingDirectory, file ?? DEFAULT_FILE);
  const content = readConfigFile(location, file !== null, problems);
  for (const [key, value] of Object.entries(content)) {
    const source = `${path.basename(location)}: ${key}`;
    if ((SETTING_NAMES as readonly string[]).includes(key)) layer.set(key as SettingName, { value, source });
    else problems.push(`${source}: expected a known setting, found none of that name`);
  }
  return layer;
}

function readConfigFile(location: string, required: boolean, problems: string[]): object {
  let text: string;
  try {
    text = readFileSync(location, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' && !required) return {};
    problems.push(`${location}: expected a readable configuration file, found ${code ?? String(error)}`);
    return {};
  }
  try {
    const content: unknown = JSON.parse(text);
    if (typeof content === 'object' && content !== null && !Array.isArray(content)) return content;
    problems.push(`${location}: expected a JSON object`);
  } catch (error) {
    problems.push(`${location}: expected JSON, found ${error instanceof Error ? error.message : String(error)}`);
  }
  return {};
}

function defaultCacheDir(environment: Readonly<Record<string, string | undefined>>): string {
  return path.join(environment['XDG_CACHE_HOME'] || path.join(homedir(), '.cache'), 'kvasir');
}

const SECRETS: readonly SettingName[] = ['apiKey', 'apiKeys', 'hfToken'];

function shown(name: SettingName, value: unknown): string {
  return value === undefined || SECRETS.includes(name) ? '' : `, found ${JSON.stringify(value)}`;
}
