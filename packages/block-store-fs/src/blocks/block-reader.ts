import type { BlockKey, BlockMiss, BlockRequest, CacheIdentity, PayloadShape } from '@kvasir/domain';
import { crc32 } from 'node:zlib';
import type { FileSystem } from '../files/file-system.ts';
import { errnoOf, isFileFailure } from '../files/storage-failure.ts';
import { decodeHeader, FIRST_READ_BYTES, headerLength, type BlockHeader } from './block-header.ts';
import { payloadRuns, piecesOf } from './payload-runs.ts';
import { sumOf } from './payload-sum.ts';

export type BlockReading =
  | { readonly isHit: true; readonly bytesRead: number; readonly predecessor: string | null }
  | {
      readonly isHit: false;
      readonly reason: BlockMiss;
      /** Of the file that was judged, so that a later one under its name is not punished; null where none was opened. */
      readonly inode: number | null;
    };

/** Long enough that the system reads ahead at full speed while the last run is summed. */
const RUNS_PER_READ = 4;

/** Thrown between reads when the caller has given up. */
export class ReadCancelled extends Error {}

/**
 * Reads and verifies one block file straight into the caller's memory. Checks come before bytes: a payload is read only
 * when key, identity, size and tokens fit.
 * @throws ReadCancelled
 * Cost: one read and one sum of the file's bytes; runs of 1 MiB, so the sum finds them in the cache.
 */
export function readBlock(
  files: FileSystem,
  path: string,
  request: BlockRequest,
  isCancelled: () => boolean,
): BlockReading {
  let inode: number | null = null;
  try {
    const facts = files.describe(path);
    if (facts === null) return { isHit: false, reason: 'absent', inode };
    inode = facts.inode;
    const file = files.open(path, 'read');
    try {
      const outcome = verify(files, file, facts.bytes, request, isCancelled);
      return typeof outcome === 'string' ? { isHit: false, reason: outcome, inode } : outcome;
    } finally {
      files.close(file);
    }
  } catch (error) {
    if (!isFileFailure(error)) throw error;
    return { isHit: false, reason: errnoOf(error) === 'ENOENT' ? 'absent' : 'unreadable', inode };
  }
}

function verify(
  files: FileSystem,
  file: number,
  fileBytes: number,
  request: BlockRequest,
  isCancelled: () => boolean,
): BlockReading | BlockMiss {
  let start = new Uint8Array(Math.min(FIRST_READ_BYTES, fileBytes));
  if (files.read(file, [start], 0) < start.length) return 'truncated';
  const dataStart = headerLength(start, fileBytes);
  if (typeof dataStart === 'string') return dataStart;
  const tokensBytes = request.tokenIds.length * 4;
  if (start.length < Math.min(dataStart + tokensBytes, fileBytes)) {
    start = new Uint8Array(Math.min(dataStart + tokensBytes, fileBytes));
    if (files.read(file, [start], 0) < start.length) return 'truncated';
  }
  const header = decodeHeader(start.subarray(0, dataStart));
  if (typeof header === 'string') return header;
  const mismatch = compare(header, request);
  if (mismatch !== null) return mismatch;

  const runs = payloadRuns(header.shape, header.numTokens);
  const payloadStart = dataStart + header.numTokens * 4;
  const end = runs.reduce((sum, run) => sum + run.bytes, payloadStart);
  if (fileBytes !== end) return fileBytes < end ? 'truncated' : 'corrupt';
  if (header.numTokens !== request.tokenIds.length) return 'other-tokens';
  const tokens = start.subarray(dataStart, payloadStart);
  if (crc32(tokens) !== header.tokensCrc32) return 'corrupt';
  const asked = Buffer.from(request.tokenIds.buffer, request.tokenIds.byteOffset, tokensBytes);
  if (!asked.equals(tokens)) return 'other-tokens';

  let position = payloadStart;
  for (let first = 0; first < runs.length; first += RUNS_PER_READ) {
    if (isCancelled()) throw new ReadCancelled();
    const group = runs.slice(first, first + RUNS_PER_READ).map((run) => piecesOf(request.into, run));
    const pieces = group.flat();
    const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (files.read(file, pieces, position) < bytes) return 'truncated';
    for (const [index, run] of group.entries()) {
      if (sumOf(run) !== header.payloadSums[first + index]) return 'corrupt';
    }
    position += bytes;
  }
  return { isHit: true, bytesRead: end, predecessor: header.predecessor };
}

function compare(header: BlockHeader, request: BlockRequest): BlockMiss | null {
  if (!isSameKey(header.key, request.key)) return 'foreign';
  return isSameIdentity(header.identity, request.identity) && isSameShape(header.shape, request.shape)
    ? null
    : 'other-identity';
}

function isSameKey(a: BlockKey, b: BlockKey): boolean {
  return a.hash === b.hash && a.group === b.group;
}

function isSameIdentity(a: CacheIdentity, b: CacheIdentity): boolean {
  return (
    a.modelFingerprint === b.modelFingerprint &&
    a.kvDType === b.kvDType &&
    a.layoutVersion === b.layoutVersion &&
    a.numericsId === b.numericsId
  );
}

function isSameShape(a: PayloadShape, b: PayloadShape): boolean {
  return (
    a.dtype === b.dtype &&
    a.layers === b.layers &&
    a.components === b.components &&
    a.heads === b.heads &&
    a.blockTokens === b.blockTokens &&
    a.dim === b.dim &&
    a.isSliceable === b.isSliceable
  );
}
