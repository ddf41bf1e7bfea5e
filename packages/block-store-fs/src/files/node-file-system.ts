import {
  close,
  closeSync,
  fsync,
  ftruncateSync,
  fdatasync,
  mkdirSync,
  open,
  openSync,
  readdirSync,
  readvSync,
  renameSync,
  statSync,
  unlinkSync,
  utimesSync,
  writevSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { platform } from 'node:process';
import { promisify } from 'node:util';
import { errnoOf } from './storage-failure.ts';
import type { FileFacts, FileSystem } from './file-system.ts';

const flushFile = promisify(fdatasync);
const flushNode = promisify(fsync);
const openFile = promisify(open);
const closeFile = promisify(close);

/** The smallest IOV_MAX of the systems Node runs on. */
const MAX_PIECES = 1024;
const FLAGS = { read: 'r', append: 'a', create: 'wx' } as const;

/** The machine's disks. */
export class NodeFileSystem implements FileSystem {
  open(path: string, mode: 'read' | 'append' | 'create'): number {
    // Append alone would create; a journal that vanished must be noticed instead.
    if (mode === 'append') statSync(path);
    return openSync(path, FLAGS[mode], 0o600);
  }

  close(file: number): void {
    closeSync(file);
  }

  read(file: number, pieces: readonly Uint8Array[], position: number): number {
    let done = 0;
    for (const batch of batches(pieces)) {
      let rest = batch;
      while (rest.length > 0) {
        const count = readvSync(file, rest, position + done);
        if (count === 0) return done;
        done += count;
        rest = dropBytes(rest, count);
      }
    }
    return done;
  }

  write(file: number, pieces: readonly Uint8Array[]): void {
    for (const batch of batches(pieces)) {
      let rest = batch;
      while (rest.length > 0) rest = dropBytes(rest, writevSync(file, rest));
    }
  }

  truncate(file: number, length: number): void {
    ftruncateSync(file, length);
  }

  async flush(files: readonly number[]): Promise<void> {
    await settleAll(files.map((file) => flushFile(file)));
  }

  rename(from: string, to: string): void {
    renameSync(from, to);
  }

  remove(path: string): boolean {
    try {
      unlinkSync(path);
      return true;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false;
      throw error;
    }
  }

  makeDirectory(path: string): void {
    // One by one: Node's own way to make parents does not come back where the system makes none, as below /proc.
    if (this.describe(path) !== null) return;
    const parent = dirname(path);
    if (parent !== path) this.makeDirectory(parent);
    try {
      mkdirSync(path, { mode: 0o700 });
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
    }
  }

  list(path: string): readonly string[] {
    try {
      return readdirSync(path);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
  }

  describe(path: string): FileFacts | null {
    const stats = statSync(path, { throwIfNoEntry: false });
    return stats === undefined ? null : { bytes: stats.size, inode: stats.ino, modifiedMs: stats.mtimeMs };
  }

  async flushDirectories(paths: readonly string[]): Promise<void> {
    // Windows has no handle of a directory to flush; its file systems journal names themselves.
    if (platform === 'win32') return;
    await settleAll(
      paths.map(async (path) => {
        const file = await openFile(path, 'r');
        try {
          await flushNode(file);
        } finally {
          await closeFile(file);
        }
      }),
    );
  }

  touch(path: string): void {
    const now = new Date();
    utimesSync(path, now, now);
  }
}

/** Waits for all, so that no descriptor is closed under a flush that still runs; then throws the first failure. */
async function settleAll(running: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(running)).find((outcome) => outcome.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

function* batches(pieces: readonly Uint8Array[]): Generator<readonly Uint8Array[]> {
  for (let index = 0; index < pieces.length; index += MAX_PIECES) {
    const batch = pieces.slice(index, index + MAX_PIECES).filter((piece) => piece.length > 0);
    if (batch.length > 0) yield batch;
  }
}

function dropBytes(pieces: readonly Uint8Array[], count: number): readonly Uint8Array[] {
  let left = count;
  for (const [index, piece] of pieces.entries()) {
    if (left < piece.length) return [piece.subarray(left), ...pieces.slice(index + 1)];
    left -= piece.length;
  }
  return [];
}
