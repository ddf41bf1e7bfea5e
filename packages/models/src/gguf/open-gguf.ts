import { basename } from 'node:path';
import { KvasirError } from '@kvasir/domain';
import { buildDescriptor } from '../architectures/registry.ts';
import type { GenerationConfig, GgufModelFile } from '../model-file.ts';
import { readGgufShards } from './gguf-shards.ts';
import { GgufStringList, type GgufMetadata, type GgufValue } from './gguf-value.ts';

/**
 * Opens a GGUF model from any of its files.
 * @param path absolute
 * @throws KvasirError as `readGgufShards`
 */
export function openGguf(path: string): GgufModelFile {
  const { files, fileSizes, metadata, tensors } = readGgufShards(path);
  const firstFile = files[0] as string;
  const file: GgufModelFile = {
    format: 'gguf',
    path: firstFile,
    name: optional(firstFile, metadata, 'general.name', 'string') ?? basename(firstFile, '.gguf'),
    architecture: optional(firstFile, metadata, 'general.architecture', 'string') ?? '',
    files,
    fileSizes,
    tensors,
    metadata,
    tokenizerSource: { kind: 'gguf', metadata },
    chatTemplates: chatTemplatesOf(firstFile, metadata),
    generationConfig: generationConfigOf(firstFile, metadata),
    descriptor: () => buildDescriptor(file),
  };
  return file;
}

// -------------------------------------------------------------------------------------------------------------- pieces

interface Kinds {
  string: string;
  number: number;
}

function optional<Kind extends keyof Kinds>(
  path: string,
  metadata: GgufMetadata,
  key: string,
  kind: Kind,
): Kinds[Kind] | undefined {
  const value = metadata.get(key);
  if (value === undefined || typeof value === kind) return value as Kinds[Kind] | undefined;
  throw new KvasirError(
    'file-corrupt',
    `${path}: metadata key ${JSON.stringify(key)}: expected a ${kind}, found ${kindOf(value)}`,
    { facts: { path, key } },
  );
}

function kindOf(value: GgufValue): string {
  return typeof value === 'object' ? 'an array' : `a ${typeof value}`;
}

/** `tokenizer.chat_template` is the default; `tokenizer.chat_template.NAME` are others. */
function chatTemplatesOf(path: string, metadata: GgufMetadata): ReadonlyMap<string, string> {
  const prefix = 'tokenizer.chat_template';
  const templates = new Map<string, string>();
  for (const key of metadata.keys()) {
    if (key !== prefix && !key.startsWith(`${prefix}.`)) continue;
    const template = optional(path, metadata, key, 'string');
    if (template !== undefined) templates.set(key === prefix ? 'default' : key.slice(prefix.length + 1), template);
  }
  return templates;
}

/** Ids outside the vocabulary are left out: some converters write 2^32 - 1 for none. */
function generationConfigOf(path: string, metadata: GgufMetadata): GenerationConfig {
  const tokens = metadata.get('tokenizer.ggml.tokens');
  const vocabularySize = tokens instanceof GgufStringList ? tokens.length : Number.POSITIVE_INFINITY;
  const idOf = (key: string) => {
    const id = optional(path, metadata, `tokenizer.ggml.${key}`, 'number');
    return id !== undefined && Number.isInteger(id) && id >= 0 && id < vocabularySize ? id : null;
  };
  const ends = [idOf('eos_token_id'), idOf('eot_token_id'), idOf('eom_token_id')].filter((id) => id !== null);
  return { eosTokenIds: [...new Set(ends)], bosTokenId: idOf('bos_token_id') };
}
