import { statfs } from 'node:fs/promises';
import { resolve } from 'node:path';
import { KvasirError, isKvasirError } from '@kvasir/domain';
import { readJsonObject } from '../files/json-file.ts';
import { downloadFile } from './download-file.ts';
import { withDownloadLock } from './download-lock.ts';
import { HubClient, type HubFile } from './hub-client.ts';
import type { HubReference } from './hub-reference.ts';
import { ModelCache, cacheError } from './model-cache.ts';
import { partsOf, shardsOfIndex } from './model-parts.ts';

export interface DownloadOptions {
  /** Where downloaded models are kept; created when absent. */
  readonly cacheDirectory: string;
  /** The Hub or a mirror of it; `https://huggingface.co` when absent. */
  readonly endpoint?: string;
  /** Access token; sent to the endpoint's host alone, never to where it redirects. */
  readonly token?: string;
  /** Attempts after a connection that brought nothing before giving up; 5 when absent. One that brought bytes is free. */
  readonly retries?: number;
  readonly onProgress?: (progress: DownloadProgress) => void;
  readonly signal?: AbortSignal;
}

/** Over all files of the model. Starts above 0 when a download is resumed. */
export interface DownloadProgress {
  /** The file being downloaded, its path inside the repository. */
  readonly file: string;
  readonly fileIndex: number;
  readonly numFiles: number;
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface DownloadedModel {
  /** What to give to `openModel`, absolute. */
  readonly path: string;
  /** All files, absolute. */
  readonly files: readonly string[];
  /** The commit the files belong to. */
  readonly commit: string;
  /** Bytes that came over the network this time; 0 when everything was in the cache. */
  readonly bytesDownloaded: number;
  /** The endpoint could not be reached and the cached copy of this revision is used. */
  readonly isOffline: boolean;
}

const HUGGING_FACE = 'https://huggingface.co';
const MAX_INDEX_BYTES = 64 * 2 ** 20;

/**
 * Downloads a model file from the Hugging Face Hub into the cache, with what belongs to it: every shard of a split GGUF,
 * configuration and tokenizer of safetensors weights. A file already there is not downloaded again.
 *
 * An interrupted download leaves `<file>.incomplete` and the next call goes on from there. A file appears under its name
 * only when its size and SHA-256 (git blob SHA-1 for files outside LFS) are what the Hub announced.
 * @throws KvasirError `download-failed` (facts: url, status), `unauthorized`, `model-not-found`, `file-corrupt` (size or
 *   hash differ; a file of the wrong hash is deleted), `file-unreadable` (the cache cannot be written), `aborted`,
 *   `invalid-argument` (endpoint or token)
 */
export async function downloadModel(reference: HubReference, options: DownloadOptions): Promise<DownloadedModel> {
  const { token, signal, endpoint = HUGGING_FACE } = options;
  const client = new HubClient({ endpoint, token, signal });
  const cache = new ModelCache(resolve(options.cacheDirectory), reference.repository);
  const parts = partsOf(reference.file);
  // A commit never changes: what the cache has of one needs no question.
  const known = cachedModel(cache, reference, parts.required);
  if (known !== null && known.commit === reference.revision) return known;
  let found: HubFile[];
  try {
    found = await describeParts(client, reference, parts);
  } catch (error) {
    if (known === null || !isKvasirError(error) || error.code !== 'download-failed') throw error;
    return { ...known, isOffline: true };
  }
  const { commit } = found[0] as HubFile;
  let bytesDownloaded = await fetchAll(client, cache, reference, found, options);
  if (reference.file.endsWith('.index.json')) {
    const shards: HubFile[] = [];
    for (const file of indexedShards(cache, commit, reference.file)) {
      shards.push(await client.describe({ ...reference, file, revision: commit }));
    }
    bytesDownloaded += await fetchAll(client, cache, reference, shards, options);
    found.push(...shards);
  }
  cache.remember(reference, commit);
  return {
    path: cache.pathOf(
      commit,
      parts.required.includes(reference.file) ? reference.file : (parts.required[0] as string),
    ),
    files: found.map(({ file }) => cache.pathOf(commit, file)),
    commit,
    bytesDownloaded,
    isOffline: false,
  };
}

// -------------------------------------------------------------------------------------------------------------- pieces

/** Asks about every file before the first byte is fetched, and holds all of them to one commit. */
async function describeParts(
  client: HubClient,
  reference: HubReference,
  parts: { readonly required: readonly string[]; readonly optional: readonly string[] },
): Promise<HubFile[]> {
  const found: HubFile[] = [];
  for (const file of parts.required) {
    found.push(await client.describe({ ...reference, file, revision: found[0]?.commit ?? reference.revision }));
  }
  for (const file of parts.optional) {
    try {
      found.push(await client.describe({ ...reference, file, revision: (found[0] as HubFile).commit }));
    } catch (error) {
      if (!isKvasirError(error) || error.code !== 'model-not-found') throw error;
    }
  }
  return found;
}

/** What the cache has of a revision as it was last seen; null unless it is all there. */
function cachedModel(cache: ModelCache, reference: HubReference, required: readonly string[]): DownloadedModel | null {
  const commit = cache.commitOf(reference.revision);
  if (commit === null || !required.every((file) => cache.has(commit, file))) return null;
  const shards = reference.file.endsWith('.index.json') ? indexedShards(cache, commit, reference.file) : [];
  if (!shards.every((file) => cache.has(commit, file))) return null;
  const files = [...required, ...shards].map((file) => cache.pathOf(commit, file));
  return { path: cache.pathOf(commit, reference.file), files, commit, bytesDownloaded: 0, isOffline: false };
}

function indexedShards(cache: ModelCache, commit: string, indexFile: string): readonly string[] {
  return shardsOfIndex(indexFile, readJsonObject(cache.pathOf(commit, indexFile), MAX_INDEX_BYTES));
}

async function fetchAll(
  client: HubClient,
  cache: ModelCache,
  reference: HubReference,
  found: readonly HubFile[],
  options: DownloadOptions,
): Promise<number> {
  const bytesTotal = found.reduce((sum, { bytes }) => sum + bytes, 0);
  const missing = found.filter((file) => !cache.has(file.commit, file.file) && !cache.adopt(file));
  await expectRoom(options.cacheDirectory, missing, cache);
  let bytesBefore = bytesTotal - missing.reduce((sum, { bytes }) => sum + bytes, 0);
  let bytesDownloaded = 0;
  for (const file of missing) {
    const fileIndex = found.indexOf(file);
    const incompletePath = `${cache.prepare(file.commit, file.file)}.incomplete`;
    bytesDownloaded += await withDownloadLock(incompletePath, async () => {
      const received = await downloadFile({
        client,
        reference: { ...reference, file: file.file, revision: file.commit },
        expected: file,
        incompletePath,
        retries: options.retries ?? 5,
        signal: options.signal,
        onBytes: (bytes) => {
          const bytesDone = bytesBefore + bytes;
          options.onProgress?.({ file: file.file, fileIndex, numFiles: found.length, bytesDone, bytesTotal });
        },
      });
      cache.admit(file, incompletePath);
      return received;
    });
    bytesBefore += file.bytes;
  }
  return bytesDownloaded;
}

/** Fails before hours of transfer, not at their end. */
async function expectRoom(cacheDirectory: string, missing: readonly HubFile[], cache: ModelCache): Promise<void> {
  const first = missing[0];
  if (first === undefined) return;
  cache.prepare(first.commit, first.file);
  const free = await freeBytes(cacheDirectory);
  const needed = missing.reduce((sum, file) => sum + file.bytes - cache.incompleteBytes(file.commit, file.file), 0);
  if (needed <= free) return;
  throw new KvasirError(
    'download-failed',
    `${cacheDirectory}: expected room for ${needed} bytes, found ${free}; free some or choose another cache directory`,
    { facts: { path: cacheDirectory, bytes: needed, free } },
  );
}

async function freeBytes(directory: string): Promise<number> {
  try {
    const { bavail, bsize } = await statfs(directory);
    return bavail * bsize;
  } catch (cause) {
    throw cacheError(directory, cause);
  }
}
