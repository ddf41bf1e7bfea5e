import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { KvasirError } from '@kvasir/domain';
import { buildDescriptor } from '../architectures/registry.ts';
import { readJsonObject } from '../files/json-file.ts';
import type { GenerationConfig, HuggingFaceModelFile } from '../model-file.ts';
import { readChatTemplates } from './chat-templates.ts';
import { describeWeights, readWeightFiles } from './weight-files.ts';

const MAX_CONFIG_BYTES = 16 * 2 ** 20;

/**
 * Opens a Hugging Face directory: config.json, its weights, and what it says about generation. A directory that holds a
 * tokenizer and no weights is opened for its vocabulary.
 * @param directory absolute
 * @param named a .safetensors file in it that the caller asked for by name, absolute
 * @throws KvasirError `file-not-found` and those of the files in it
 */
export function openHuggingFace(directory: string, named?: string): HuggingFaceModelFile {
  const configPath = join(directory, 'config.json');
  const hasConfig = existsSync(configPath);
  const weights = readWeightFiles(directory, named);
  const hasTokenizer = existsSync(join(directory, 'tokenizer.json'));
  if (!hasConfig && (weights !== null || !hasTokenizer)) {
    throw new KvasirError(
      'file-not-found',
      `${configPath}: expected the config.json of a Hugging Face model, found ${weights === null ? describeWeights(directory) : 'weights without it'}`,
      { facts: { path: configPath } },
    );
  }
  if (weights === null && !hasTokenizer) {
    throw new KvasirError(
      'file-not-found',
      `${directory}: expected model.safetensors, model.safetensors.index.json or tokenizer.json, found ${describeWeights(directory)}`,
      { facts: { path: directory } },
    );
  }
  const metadata = hasConfig ? readJsonObject(configPath, MAX_CONFIG_BYTES) : {};
  const file: HuggingFaceModelFile = {
    format: 'safetensors',
    path: directory,
    name: basename(directory),
    architecture: architectureOf(configPath, metadata),
    files: weights?.files ?? [],
    fileSizes: weights?.fileSizes ?? [],
    tensors: weights?.tensors ?? [],
    metadata,
    tokenizerSource: { kind: 'huggingface', directory },
    chatTemplates: readChatTemplates(directory),
    generationConfig: readGenerationConfig(directory, configPath, metadata),
    descriptor: () => buildDescriptor(file),
  };
  return file;
}

// -------------------------------------------------------------------------------------------------------------- pieces

function architectureOf(path: string, config: Readonly<Record<string, unknown>>): string {
  const architectures = config['architectures'];
  if (architectures === undefined || architectures === null) return '';
  if (Array.isArray(architectures) && architectures.every((name) => typeof name === 'string')) {
    return (architectures[0] as string | undefined) ?? '';
  }
  throw new KvasirError('file-corrupt', `${path}: expected architectures to list names, found another value`, {
    facts: { path, key: 'architectures' },
  });
}

/** generation_config.json goes before config.json, key by key. */
function readGenerationConfig(
  directory: string,
  configPath: string,
  config: Readonly<Record<string, unknown>>,
): GenerationConfig {
  const path = join(directory, 'generation_config.json');
  const generation = existsSync(path) ? readJsonObject(path, MAX_CONFIG_BYTES) : {};
  const idsOf = (key: string) => {
    const ids = tokenIds(path, key, generation[key]);
    return ids.length > 0 ? ids : tokenIds(configPath, key, config[key]);
  };
  return { eosTokenIds: [...new Set(idsOf('eos_token_id'))], bosTokenId: idsOf('bos_token_id')[0] ?? null };
}

function tokenIds(path: string, key: string, value: unknown): number[] {
  if (value === undefined || value === null) return [];
  const ids: unknown[] = Array.isArray(value) ? value : [value];
  if (ids.length <= 1024 && ids.every((id) => typeof id === 'number' && Number.isSafeInteger(id) && id >= 0)) {
    return ids as number[];
  }
  throw new KvasirError(
    'file-corrupt',
    `${path}: ${key}: expected a token id or a list of them, found ${JSON.stringify(value).slice(0, 120)}`,
    { facts: { path, key } },
  );
}
