import { KvasirError } from '@kvasir/domain';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MetadataReader } from '../model/metadata-reader.ts';
import { readJson } from '../model/json-file.ts';
import { TOKEN_KINDS } from '../model/tokenizer-model.ts';
import type { TokenizerSource } from '../source.ts';

/** A model's chat templates and what they may write. */
export interface TemplateSource {
  /** Jinja texts by name; `default` is the one used when none is asked for. */
  readonly templates: ReadonlyMap<string, string>;
  /** `bos_token`, `eos_token` and their like, as templates find them. */
  readonly tokenVariables: Readonly<Record<string, string>>;
  /** Texts of the control tokens. */
  readonly specialTexts: readonly string[];
}

const TOKEN_NAMES = [
  'bos_token',
  'eos_token',
  'unk_token',
  'pad_token',
  'sep_token',
  'cls_token',
  'mask_token',
] as const;
/** What GGUF calls the same. */
const GGUF_NAMES = ['bos', 'eos', 'unknown', 'padding', 'seperator', 'cls', 'mask'] as const;

export function readTemplateSource(source: TokenizerSource): Promise<TemplateSource> | TemplateSource {
  return source.kind === 'gguf' ? fromGguf(new MetadataReader(source.metadata)) : fromDirectory(source.directory);
}

function fromGguf(reader: MetadataReader): TemplateSource {
  const texts = reader.strings('tokenizer.ggml.tokens') ?? [];
  const kinds = reader.numbers('tokenizer.ggml.token_type') ?? [];
  const templates = new Map<string, string>();
  for (const name of reader.strings('tokenizer.chat_templates') ?? []) {
    const template = reader.string(`tokenizer.chat_template.${name}`);
    if (template !== null) templates.set(name, template);
  }
  const main = reader.string('tokenizer.chat_template');
  if (main !== null) templates.set('default', main);
  const tokenVariables: Record<string, string> = {};
  for (const [index, name] of TOKEN_NAMES.entries()) {
    const id = reader.tokenId(`tokenizer.ggml.${GGUF_NAMES[index]}_token_id`, texts.length);
    if (id !== null) tokenVariables[name] = texts[id] as string;
  }
  const specialTexts = texts.filter((_, id) => kinds[id] === TOKEN_KINDS.control || kinds[id] === TOKEN_KINDS.unknown);
  return { templates, tokenVariables, specialTexts };
}

async function fromDirectory(directory: string): Promise<TemplateSource> {
  const [config, specialTokensMap, tokenizer] = await Promise.all([
    readJson(directory, 'tokenizer_config.json'),
    readJson(directory, 'special_tokens_map.json'),
    readJson(directory, 'tokenizer.json'),
  ]);
  const tokens: Record<string, unknown> = { ...specialTokensMap, ...config };
  const tokenVariables: Record<string, string> = {};
  for (const name of TOKEN_NAMES) {
    const text = contentOf(tokens[name]);
    if (text !== null) tokenVariables[name] = text;
  }
  const added: readonly unknown[] = Array.isArray(tokenizer?.added_tokens) ? tokenizer.added_tokens : [];
  const specialTexts = added.filter((token) => isRecord(token) && token.special === true).map(contentOf);
  return {
    templates: new Map([...configuredTemplates(config?.chat_template), ...(await templateFiles(directory))]),
    tokenVariables,
    specialTexts: specialTexts.filter((text) => text !== null),
  };
}

/** One text, or a list of named ones. */
function configuredTemplates(value: unknown): [string, string][] {
  if (typeof value === 'string') return [['default', value]];
  if (!Array.isArray(value)) return [];
  return value.flatMap((item: unknown): [string, string][] =>
    isRecord(item) && typeof item.name === 'string' && typeof item.template === 'string'
      ? [[item.name, item.template]]
      : [],
  );
}

/** Files go before what tokenizer_config.json holds, as in transformers. */
async function templateFiles(directory: string): Promise<[string, string][]> {
  const templates: [string, string][] = [];
  const main = await readText(join(directory, 'chat_template.jinja'));
  if (main !== null) templates.push(['default', main]);
  const folder = join(directory, 'additional_chat_templates');
  for (const file of await listFolder(folder)) {
    const text = file.endsWith('.jinja') ? await readText(join(folder, file)) : null;
    if (text !== null) templates.push([file.slice(0, -'.jinja'.length), text]);
  }
  return templates;
}

async function readText(path: string): Promise<string | null> {
  return orNullIfAbsent(readFile(path, 'utf8'), path);
}

async function listFolder(path: string): Promise<readonly string[]> {
  return (await orNullIfAbsent(readdir(path), path)) ?? [];
}

async function orNullIfAbsent<Result>(reading: Promise<Result>, path: string): Promise<Result | null> {
  try {
    return await reading;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new KvasirError('file-unreadable', `${path}: expected to be readable, found ${String(error)}`, {
      cause: error,
    });
  }
}

function contentOf(value: unknown): string | null {
  if (typeof value === 'string') return value;
  return isRecord(value) && typeof value.content === 'string' ? value.content : null;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
