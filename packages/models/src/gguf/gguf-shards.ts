import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { KvasirError } from '@kvasir/domain';
import { withFile } from '../files/byte-source.ts';
import type { StoredTensor } from '../model-file.ts';
import { readGgufHeader, type GgufHeader } from './gguf-header.ts';
import type { GgufMetadata } from './gguf-value.ts';

/** What all shards of a GGUF model hold together. */
export interface GgufShards {
  readonly files: readonly string[];
  readonly fileSizes: readonly number[];
  /** The first shard's. */
  readonly metadata: GgufMetadata;
  readonly tensors: readonly StoredTensor[];
}

const SHARD_NAME = /^(?<stem>.+)-(?<number>\d{5})-of-(?<count>\d{5})\.gguf$/;

/**
 * Reads a GGUF model from one file, or from all shards when the file says it is one of several. Shards are written by
 * `gguf-split`: named `stem-00001-of-00003.gguf`, with the keys `split.no`, `split.count` and `split.tensors.count`.
 * @param path any shard, absolute
 * @throws KvasirError as `readGgufHeader`; `file-not-found` naming the shard that is missing
 */
export function readGgufShards(path: string): GgufShards {
  const opened = readShard(path);
  const count = splitNumber(path, opened.metadata, 'split.count') ?? 1;
  if (count <= 1) return joinShards([opened]);
  const paths = shardPaths(path, count);
  const shards = paths.map((shardPath, index) => {
    if (!existsSync(shardPath)) {
      throw new KvasirError(
        'file-not-found',
        `${shardPath}: expected shard ${index + 1} of ${count} beside ${basename(path)}, found none; download the missing shard`,
        { facts: { path: shardPath, shard: index + 1, shards: count } },
      );
    }
    const shard = shardPath === path ? opened : readShard(shardPath);
    expectSplit(shard, 'split.count', count);
    expectSplit(shard, 'split.no', index);
    return shard;
  });
  const joined = joinShards(shards);
  const announced = splitNumber(path, joined.metadata, 'split.tensors.count');
  if (announced !== undefined && announced !== joined.tensors.length) {
    throw corrupt(path, `expected split.tensors.count = ${announced} tensors, found ${joined.tensors.length}`);
  }
  return joined;
}

/** Repository or directory paths of all shards when `file` is named like one, else just `file`. */
export function namesOfShards(file: string): readonly string[] {
  const { stem, count } = SHARD_NAME.exec(file)?.groups ?? {};
  if (stem === undefined || count === undefined) return [file];
  return Array.from({ length: Number(count) }, (_, index) => shardName(stem, index, count));
}

// -------------------------------------------------------------------------------------------------------------- pieces

interface Shard extends GgufHeader {
  readonly path: string;
  readonly size: number;
}

function readShard(path: string): Shard {
  return withFile(path, (source) => ({ ...readGgufHeader(source), path, size: source.size }));
}

function shardPaths(path: string, count: number): string[] {
  const names = namesOfShards(basename(path));
  if (names.length !== count || !names.includes(basename(path))) {
    throw corrupt(
      path,
      `expected a name like stem-00001-of-${String(count).padStart(5, '0')}.gguf for one of ${count} shards, found ${basename(path)}; give the shards their original names`,
    );
  }
  return names.map((name) => join(dirname(path), name));
}

function shardName(stem: string, index: number, count: string): string {
  return `${stem}-${String(index + 1).padStart(5, '0')}-of-${count}.gguf`;
}

function joinShards(shards: readonly Shard[]): GgufShards {
  const owners = new Map<string, string>();
  const tensors: StoredTensor[] = [];
  for (const [file, shard] of shards.entries()) {
    for (const tensor of shard.tensors) {
      const owner = owners.get(tensor.name);
      if (owner !== undefined) {
        throw corrupt(
          shard.path,
          `expected every tensor in one shard, found ${tensor.name} in ${basename(owner)} as well`,
        );
      }
      owners.set(tensor.name, shard.path);
      tensors.push({ ...tensor, file });
    }
  }
  return {
    files: shards.map(({ path }) => path),
    fileSizes: shards.map(({ size }) => size),
    metadata: (shards[0] as Shard).metadata,
    tensors,
  };
}

function expectSplit(shard: Shard, key: string, expected: number): void {
  const found = splitNumber(shard.path, shard.metadata, key);
  if (found !== expected) throw corrupt(shard.path, `expected ${key} = ${expected}, found ${found ?? 'no such key'}`);
}

function splitNumber(path: string, metadata: GgufMetadata, key: string): number | undefined {
  const value = metadata.get(key);
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > 2 ** 31) {
    throw corrupt(path, `expected ${key} to be a count, found ${String(value).slice(0, 40)}`);
  }
  return value;
}

function corrupt(path: string, message: string): KvasirError {
  return new KvasirError('file-corrupt', `${path}: ${message}`, { facts: { path } });
}
