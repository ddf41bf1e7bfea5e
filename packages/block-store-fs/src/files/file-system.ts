import { dirname } from 'node:path';

/**
 * Everything this package does to a disk. Synchronous, because it runs in worker threads, except for flushing: several
 * flushes at once cost a device about as much as one. A recorder or a fault model takes its place in tests.
 *
 * Failures are Node's errors with their `code`; a path that does not exist is a value where that is expected.
 */
export interface FileSystem {
  /** `create` makes a new file and fails with EEXIST; `append` opens one that exists and writes at its end. */
  open(path: string, mode: 'read' | 'append' | 'create'): number;
  close(file: number): void;
  /** Fills the pieces in turn from `position` on. @returns bytes read, fewer only at the file's end */
  read(file: number, pieces: readonly Uint8Array[], position: number): number;
  /** Writes all pieces, in turn, at the file's end. */
  write(file: number, pieces: readonly Uint8Array[]): void;
  truncate(file: number, length: number): void;
  /** What was written to each file outlives a power cut once this resolves. Its name may not: see `flushDirectories`. */
  flush(files: readonly number[]): Promise<void>;
  /** Replaces `to`. */
  rename(from: string, to: string): void;
  /** @returns false where there was nothing */
  remove(path: string): boolean;
  /** With its parents; one that exists is fine. */
  makeDirectory(path: string): void;
  /** Names in a directory, in no order; none where it does not exist. */
  list(path: string): readonly string[];
  describe(path: string): FileFacts | null;
  /** Names created, renamed and removed in these directories outlive a power cut once this resolves. */
  flushDirectories(paths: readonly string[]): Promise<void>;
  /** Marks the file as used now: a lock's heartbeat. */
  touch(path: string): void;
}

export interface FileFacts {
  readonly bytes: number;
  /** Tells a file from another that later takes its name. */
  readonly inode: number;
  readonly modifiedMs: number;
}

/** A directory with its parents, all of which outlive a power cut when it resolves. */
export async function makeDurableDirectory(files: FileSystem, path: string): Promise<void> {
  const parents: string[] = [];
  for (
    let missing = path;
    files.describe(missing) === null && dirname(missing) !== missing;
    missing = dirname(missing)
  ) {
    parents.push(dirname(missing));
  }
  files.makeDirectory(path);
  if (parents.length > 0) await files.flushDirectories(parents);
}

/** The whole file. @returns null where there is none */
export function readWhole(files: FileSystem, path: string): Uint8Array | null {
  const facts = files.describe(path);
  if (facts === null) return null;
  const file = files.open(path, 'read');
  try {
    const bytes = new Uint8Array(facts.bytes);
    return bytes.subarray(0, files.read(file, [bytes], 0));
  } finally {
    files.close(file);
  }
}

/** A file that is there whole under its name or not at all. Flushed, name included, when it resolves. */
export async function writeAtomically(
  files: FileSystem,
  place: { readonly directory: string; readonly path: string; readonly temporary: string },
  pieces: readonly Uint8Array[],
): Promise<void> {
  const file = files.open(place.temporary, 'create');
  try {
    try {
      files.write(file, pieces);
      await files.flush([file]);
    } finally {
      files.close(file);
    }
    files.rename(place.temporary, place.path);
  } catch (error) {
    files.remove(place.temporary);
    throw error;
  }
  await files.flushDirectories([place.directory]);
}
