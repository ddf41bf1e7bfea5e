import { KvasirError } from '@kvasir/domain';
import { namesOfShards } from '../gguf/gguf-shards.ts';

/** Files that belong to a model besides the one that was named. */
export interface ModelParts {
  /** In the order they are downloaded, the named one among them. */
  readonly required: readonly string[];
  /** Taken where the repository has them. */
  readonly optional: readonly string[];
}

const MAX_SHARDS = 4096;

/**
 * A GGUF file is a model by itself, or with its shards; safetensors weights need what lies beside them.
 * @throws KvasirError `invalid-argument` when the shard numbers in the name make no sense
 */
export function partsOf(file: string): ModelParts {
  if (!/\.safetensors(?:\.index\.json)?$/.test(file)) {
    const required = namesOfShards(file);
    if (required.length > MAX_SHARDS || !required.includes(file)) {
      throw new KvasirError(
        'invalid-argument',
        `${file}: expected the name of one of at most ${MAX_SHARDS} shards, found a number out of range`,
      );
    }
    return { required, optional: [] };
  }
  const folder = file.slice(0, file.lastIndexOf('/') + 1);
  const beside = (name: string) => `${folder}${name}`;
  return {
    required: [beside('config.json'), file],
    optional: ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json', 'chat_template.jinja'].map(beside),
  };
}

/** The shards an index lists, as paths inside the repository. @throws KvasirError `file-corrupt` */
export function shardsOfIndex(indexFile: string, index: Readonly<Record<string, unknown>>): readonly string[] {
  const folder = indexFile.slice(0, indexFile.lastIndexOf('/') + 1);
  const map = index['weight_map'];
  const names = typeof map === 'object' && map !== null ? [...new Set(Object.values(map))] : [];
  const isShard = (name: unknown) =>
    typeof name === 'string' && /^[A-Za-z0-9_][A-Za-z0-9._-]{0,250}\.safetensors$/.test(name);
  if (names.length === 0 || names.length > MAX_SHARDS || !names.every(isShard)) {
    throw new KvasirError(
      'file-corrupt',
      `${indexFile}: expected weight_map to name .safetensors files of the same folder, found something else`,
    );
  }
  return (names as string[]).sort().map((name) => `${folder}${name}`);
}
