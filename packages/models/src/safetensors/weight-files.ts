import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { KvasirError } from '@kvasir/domain';
import { fileAccessError, withFile } from '../files/byte-source.ts';
import { parseJsonObject, readTextFile } from '../files/json-file.ts';
import type { StoredTensor } from '../model-file.ts';
import { readSafetensorsHeader } from './safetensors-header.ts';

export interface WeightFiles {
  readonly files: readonly string[];
  readonly fileSizes: readonly number[];
  readonly tensors: readonly StoredTensor[];
}

const MAX_INDEX_BYTES = 64 * 2 ** 20;
const MAX_SHARDS = 4096;

/**
 * Reads the headers of a Hugging Face directory's weights: `model.safetensors`, or the shards that
 * `model.safetensors.index.json` lists.
 * @param named a weight file the caller asked for by name; taken alone when it is none of the above
 * @returns null when the directory holds no safetensors weights
 * @throws KvasirError as `readSafetensorsHeader`; `file-not-found` naming a missing shard
 */
export function readWeightFiles(directory: string, named?: string): WeightFiles | null {
  const usual = readUsualFiles(directory);
  return named === undefined || usual?.files.includes(named) ? usual : readShards([named]);
}

/** What a directory without safetensors weights holds instead, for the message that refuses it. */
export function describeWeights(directory: string): string {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (cause) {
    throw fileAccessError(directory, cause);
  }
  const gguf = names.filter((name) => name.endsWith('.gguf')).sort();
  if (gguf.length > 0) return `GGUF files (${gguf.slice(0, 5).join(', ')}); pass one of them by its path`;
  if (names.some((name) => /^pytorch_model.*\.bin$|^consolidated.*\.pth$/.test(name))) {
    return 'PyTorch checkpoints; convert them to safetensors or GGUF';
  }
  const others = names.filter((name) => name.endsWith('.safetensors')).sort();
  if (others.length > 0) return `${others.slice(0, 5).join(', ')}; name the weights model.safetensors`;
  return 'no model files';
}

// -------------------------------------------------------------------------------------------------------------- pieces

function readUsualFiles(directory: string): WeightFiles | null {
  const single = join(directory, 'model.safetensors');
  const indexPath = join(directory, 'model.safetensors.index.json');
  if (existsSync(single)) return readShards([single]);
  if (existsSync(indexPath)) return readIndexed(directory, indexPath);
  return null;
}

function readShards(paths: readonly string[]): WeightFiles {
  const fileSizes: number[] = [];
  const tensors: StoredTensor[] = [];
  const owners = new Map<string, string>();
  for (const [file, path] of paths.entries()) {
    const header = withFile(path, (source) => {
      fileSizes.push(source.size);
      return readSafetensorsHeader(source);
    });
    for (const tensor of header.tensors) {
      const owner = owners.get(tensor.name);
      if (owner !== undefined) {
        throw corrupt(path, `expected every tensor in one file, found ${tensor.name} in ${basename(owner)} as well`);
      }
      owners.set(tensor.name, path);
      tensors.push({ ...tensor, file });
    }
  }
  return { files: paths, fileSizes, tensors };
}

function readIndexed(directory: string, indexPath: string): WeightFiles {
  const index = parseJsonObject(indexPath, readTextFile(indexPath, MAX_INDEX_BYTES), { repeatedKeys: 'refuse' });
  const weightMap = index['weight_map'];
  if (typeof weightMap !== 'object' || weightMap === null || Array.isArray(weightMap)) {
    throw corrupt(indexPath, 'expected weight_map to map tensor names to files, found another value');
  }
  const entries = Object.entries(weightMap as Record<string, unknown>);
  for (const [tensor, name] of entries) {
    if (!isShardName(name)) {
      throw corrupt(
        indexPath,
        `weight_map entry ${JSON.stringify(tensor.slice(0, 120))}: expected the name of a .safetensors file in the same directory, found ${(JSON.stringify(name) ?? 'nothing').slice(0, 120)}`,
      );
    }
  }
  const names = [...new Set(entries.map(([, name]) => name as string))].sort();
  if (names.length === 0 || names.length > MAX_SHARDS) {
    throw corrupt(indexPath, `expected weight_map to name 1 to ${MAX_SHARDS} files, found ${names.length}`);
  }
  for (const name of names) {
    if (!existsSync(join(directory, name))) {
      throw new KvasirError(
        'file-not-found',
        `${join(directory, name)}: expected a shard that ${basename(indexPath)} lists, found none; download the missing shard`,
        { facts: { path: join(directory, name), shards: names.length } },
      );
    }
  }
  const weights = readShards(names.map((name) => join(directory, name)));
  checkIndex(indexPath, entries as [string, string][], weights);
  return weights;
}

/** The index and the shards must tell the same story. */
function checkIndex(indexPath: string, entries: readonly [string, string][], weights: WeightFiles): void {
  const owners = new Map(weights.tensors.map(({ name, file }) => [name, basename(weights.files[file] as string)]));
  for (const [tensor, name] of entries) {
    if (owners.get(tensor) !== name) {
      throw corrupt(
        indexPath,
        `expected tensor ${tensor.slice(0, 120)} in ${name}, found it in ${owners.get(tensor) ?? 'no shard'}`,
      );
    }
  }
}

/** A plain file name: an index from elsewhere must not reach outside its directory. */
function isShardName(name: unknown): name is string {
  return typeof name === 'string' && /^[A-Za-z0-9_][A-Za-z0-9._-]{0,250}\.safetensors$/.test(name);
}

function corrupt(path: string, message: string): KvasirError {
  return new KvasirError('file-corrupt', `${path}: ${message}`, { facts: { path } });
}
