import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { KvasirError } from '@kvasir/domain';

/** Random access to a file's bytes; parsers read through this so that tests can hand them damaged bytes from memory. */
export interface ByteSource {
  /** For messages. */
  readonly path: string;
  /** Bytes in the file. */
  readonly size: number;
  /**
   * Fills `target` from `offset` on; the caller has checked the range against `size`.
   * @throws KvasirError `file-truncated` when the file has become shorter, `file-unreadable`
   */
  read(offset: number, target: Uint8Array): void;
}

/** Opens a regular file, hands it to `use` and closes it whatever happens. Reads are synchronous: headers are small. */
export function withFile<T>(path: string, use: (source: ByteSource) => T): T {
  const absolute = resolve(path);
  const size = regularFileSize(absolute);
  let descriptor: number;
  try {
    descriptor = openSync(absolute, 'r');
  } catch (cause) {
    throw fileAccessError(absolute, cause);
  }
  try {
    return use({ path: absolute, size, read: (offset, target) => readFully(absolute, descriptor, offset, target) });
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Size of a regular file. Pipes and devices are refused before they are opened: opening a pipe would wait for a writer.
 * @throws KvasirError `file-not-found`, `file-unreadable`
 */
export function regularFileSize(path: string): number {
  let status;
  try {
    status = statSync(path);
  } catch (cause) {
    throw fileAccessError(path, cause);
  }
  if (!status.isFile()) {
    const kind = status.isDirectory() ? 'a directory' : 'a pipe, socket or device';
    throw new KvasirError('file-unreadable', `${path}: expected a regular file, found ${kind}`, { facts: { path } });
  }
  return status.size;
}

/** Turns an error of node:fs into ours; anything else is rethrown as it is. */
export function fileAccessError(path: string, cause: unknown): KvasirError {
  if (!(cause instanceof Error) || !('code' in cause)) throw cause;
  const systemCode = String(cause.code);
  const isMissing = systemCode === 'ENOENT' || systemCode === 'ENOTDIR';
  const message = isMissing
    ? `${path}: expected a file, found none; check the path`
    : `${path}: cannot be read (${systemCode}: ${cause.message})`;
  return new KvasirError(isMissing ? 'file-not-found' : 'file-unreadable', message, {
    facts: { path, systemCode },
    cause,
  });
}

function readFully(path: string, descriptor: number, offset: number, target: Uint8Array): void {
  for (let done = 0; done < target.length; ) {
    let count: number;
    try {
      count = readSync(descriptor, target, done, target.length - done, offset + done);
    } catch (cause) {
      throw fileAccessError(path, cause);
    }
    if (count === 0) {
      throw new KvasirError(
        'file-truncated',
        `${path}: expected ${target.length} bytes at byte ${offset}, found the end of the file after ${done}; it became shorter while it was read`,
        { facts: { path, offset, bytes: target.length } },
      );
    }
    done += count;
  }
}
