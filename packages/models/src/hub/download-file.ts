import { createHash, type Hash } from 'node:crypto';
import { createReadStream, rmSync, statSync } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { KvasirError } from '@kvasir/domain';
import { connectionError, type HubClient, type HubFile } from './hub-client.ts';
import type { HubReference } from './hub-reference.ts';
import { cacheError } from './model-cache.ts';

export interface DownloadFileOptions {
  readonly client: HubClient;
  readonly reference: HubReference;
  readonly expected: HubFile;
  /** Where the bytes go; what is there already is kept and continued. */
  readonly incompletePath: string;
  /** Attempts after a broken connection that brought no byte at all. */
  readonly retries: number;
  readonly signal?: AbortSignal | undefined;
  readonly onBytes: (bytesDone: number) => void;
}

const RETRY_DELAYS_MS = [0, 500, 1000, 2000, 4000];

/**
 * Downloads one file into `incompletePath`, resuming what is there, and verifies size and hash.
 *
 * A connection that breaks is taken up again where it stopped. A file of the wrong hash is deleted.
 * @returns bytes that came over the network
 * @throws KvasirError `download-failed`, `unauthorized`, `model-not-found`, `file-corrupt`, `file-unreadable`, `aborted`
 */
export async function downloadFile(options: DownloadFileOptions): Promise<number> {
  const { expected, incompletePath } = options;
  let received = 0;
  let fruitless = 0;
  while (true) {
    const before = received;
    try {
      const hash = await continueDownload(options, (bytes) => {
        received += bytes;
      });
      verifyHash(expected, incompletePath, hash);
      return received;
    } catch (error) {
      fruitless = received > before ? 0 : fruitless + 1;
      if (!isPassing(error) || fruitless > options.retries) throw error;
    }
    await pause(RETRY_DELAYS_MS[Math.min(fruitless, RETRY_DELAYS_MS.length - 1)] as number, options.signal);
  }
}

// -------------------------------------------------------------------------------------------------------------- pieces

/** One connection: from the bytes that are there to the end. Returns the hash of the whole. */
async function continueDownload(options: DownloadFileOptions, onReceived: (bytes: number) => void): Promise<Hash> {
  const { client, expected, incompletePath, reference, signal } = options;
  let done = partialSize(incompletePath);
  if (done > expected.bytes) {
    rmSync(incompletePath, { force: true });
    done = 0;
  }
  if (done === expected.bytes && done > 0) return hashOf(expected, incompletePath);
  const response = await client.open(reference, done);
  if (response.status === 416) {
    // The storage has fewer bytes than we hold: what we hold is of something else.
    await response.body?.cancel();
    rmSync(incompletePath, { force: true });
    throw passing(response.url, 'expected to resume, found HTTP 416');
  }
  if (response.status === 206) checkRange(response, done, expected);
  else done = 0;
  const hash = done === 0 ? newHash(expected) : await hashOf(expected, incompletePath);
  const file = await openAt(incompletePath, done);
  try {
    options.onBytes(done);
    for await (const chunk of bodyOf(response, signal)) {
      if (done + chunk.length > expected.bytes) throw sizeMismatch(expected, `more than ${done + chunk.length}`);
      await writeFully(file, chunk, done, incompletePath);
      hash.update(chunk);
      done += chunk.length;
      onReceived(chunk.length);
      options.onBytes(done);
    }
    await file.sync();
  } finally {
    await file.close();
  }
  if (done < expected.bytes)
    throw passing(response.url, `expected ${expected.bytes} bytes, found the end after ${done}`);
  return hash;
}

function partialSize(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function checkRange(response: Response, offset: number, expected: HubFile): void {
  const range = response.headers.get('content-range') ?? '';
  const { start, total } = /^bytes (?<start>\d+)-\d+\/(?<total>\d+|\*)$/.exec(range)?.groups ?? {};
  if (Number(start) !== offset) throw sizeMismatch(expected, `a part that starts at ${start ?? 'no'} byte`);
  if (total !== '*' && Number(total) !== expected.bytes) throw sizeMismatch(expected, `${total}`);
}

async function openAt(path: string, offset: number): Promise<FileHandle> {
  try {
    const file = await open(path, offset > 0 ? 'r+' : 'w');
    await file.truncate(offset);
    return file;
  } catch (cause) {
    throw cacheError(path, cause);
  }
}

async function* bodyOf(response: Response, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
  if (response.body === null) return;
  try {
    for await (const chunk of response.body) yield chunk as Uint8Array;
  } catch (cause) {
    throw connectionError(response.url, cause, signal);
  }
}

async function writeFully(file: FileHandle, chunk: Uint8Array, position: number, path: string): Promise<void> {
  try {
    for (let done = 0; done < chunk.length; ) {
      done += (await file.write(chunk, done, chunk.length - done, position + done)).bytesWritten;
    }
  } catch (cause) {
    throw cacheError(path, cause);
  }
}

function newHash({ hash, bytes }: HubFile): Hash {
  if (hash.kind === 'sha256') return createHash('sha256');
  return createHash('sha1').update(`blob ${bytes}\0`);
}

async function hashOf(expected: HubFile, path: string): Promise<Hash> {
  const hash = newHash(expected);
  try {
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  } catch (cause) {
    throw cacheError(path, cause);
  }
  return hash;
}

function verifyHash(expected: HubFile, path: string, hash: Hash): void {
  const found = hash.digest('hex');
  if (found === expected.hash.hex) return;
  rmSync(path, { force: true });
  throw new KvasirError(
    'file-corrupt',
    `${expected.file}: expected ${expected.hash.kind} ${expected.hash.hex}, found ${found}; the download was deleted, try again or use another endpoint`,
    { facts: { file: expected.file, expected: expected.hash.hex, found } },
  );
}

function sizeMismatch(expected: HubFile, found: string): KvasirError {
  return new KvasirError(
    'file-corrupt',
    `${expected.file}: expected ${expected.bytes} bytes as the Hub announced, found ${found}; try again or use another endpoint`,
    { facts: { file: expected.file, expected: expected.bytes } },
  );
}

/** Failures of the moment: a broken connection, a busy server. */
function isPassing(error: unknown): boolean {
  if (!(error instanceof KvasirError) || error.code !== 'download-failed') return false;
  const { isOffline, status } = error.facts;
  return isOffline === true || status === 429 || (typeof status === 'number' && status >= 500);
}

function passing(url: string, message: string): KvasirError {
  return new KvasirError('download-failed', `${new URL(url).origin}: ${message}; try again`, {
    facts: { isOffline: true },
  });
}

async function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await delay(milliseconds, undefined, signal === undefined ? {} : { signal });
  } catch (cause) {
    throw new KvasirError('aborted', 'the download was stopped; it can be resumed', { cause });
  }
}
