import { KvasirError } from '@kvasir/domain';
import { readWhole, type FileSystem } from './file-system.ts';
import { errnoOf } from './storage-failure.ts';

/** What tells one process from another, also after its id was given to a later one. */
export interface ProcessFacts {
  readonly pid: number;
  /** When the process began, in whatever the system counts; empty where it cannot be known. */
  readonly startedAt: string;
  /** Processes of other boots and of other pid namespaces (containers) cannot be looked up by id. */
  readonly scope: string;
}

export interface ProcessTable {
  readonly self: ProcessFacts;
  /** `startedAt` of a live process, null when there is none with this id. */
  startOf(pid: number): string | null;
  now(): number;
}

interface LockText extends ProcessFacts {
  /** Tells two openings by one process apart. */
  readonly token: string;
}

/** A lock of another scope counts as held while its holder has touched it this recently. */
export const FOREIGN_LOCK_PATIENCE_MS = 30_000;
export const LOCK_HEARTBEAT_MS = 5_000;

/**
 * At most one process per directory, by a lock file. A lock whose process is gone is taken over: it is renamed away, which
 * only one of several takers can do, and put back if it turns out to be a newer one than was judged.
 */
export class DirectoryLock {
  readonly tookOver: boolean;
  readonly #files: FileSystem;
  readonly #path: string;
  readonly #text: string;

  /** @throws KvasirError `cache-locked`, or the file system's error */
  constructor(files: FileSystem, path: string, processes: ProcessTable, token: string) {
    this.#files = files;
    this.#path = path;
    this.#text = JSON.stringify({ ...processes.self, token } satisfies LockText);
    let tookOver = false;
    while (!this.#tryCreate()) {
      const found = this.#read();
      if (found === null) continue;
      if (isHeld(found, processes, files.describe(path)?.modifiedMs ?? 0)) throw lockedError(path, found);
      this.#takeAway(found, token);
      tookOver = true;
    }
    if (this.#read() !== this.#text) throw lockedError(path, this.#read() ?? '');
    this.tookOver = tookOver;
  }

  /** Says that the holder lives to processes that cannot look it up. */
  beat(): void {
    if (this.#read() === this.#text) this.#files.touch(this.#path);
  }

  release(): void {
    if (this.#read() === this.#text) this.#files.remove(this.#path);
  }

  #tryCreate(): boolean {
    let file: number;
    try {
      file = this.#files.open(this.#path, 'create');
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') return false;
      throw error;
    }
    try {
      this.#files.write(file, [Buffer.from(this.#text)]);
    } catch (error) {
      this.#files.remove(this.#path);
      throw error;
    } finally {
      this.#files.close(file);
    }
    return true;
  }

  #read(): string | null {
    try {
      const bytes = readWhole(this.#files, this.#path);
      return bytes === null ? null : Buffer.from(bytes).toString('utf8');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return null;
      throw error;
    }
  }

  #takeAway(judged: string, token: string): void {
    const aside = `${this.#path}.${token}`;
    try {
      this.#files.rename(this.#path, aside);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw error;
    }
    const taken = Buffer.from(readWhole(this.#files, aside) ?? []).toString('utf8');
    if (taken === judged) {
      this.#files.remove(aside);
      return;
    }
    this.#files.rename(aside, this.#path);
    throw lockedError(this.#path, taken);
  }
}

function isHeld(text: string, processes: ProcessTable, modifiedMs: number): boolean {
  const lock = parseLock(text);
  const isRecent = processes.now() - modifiedMs < FOREIGN_LOCK_PATIENCE_MS;
  // Unreadable: being written at this moment, or left by a power cut.
  if (lock === null) return isRecent && text === '';
  if (lock.scope !== processes.self.scope) return isRecent;
  const startedAt = processes.startOf(lock.pid);
  return startedAt !== null && startedAt === lock.startedAt;
}

function parseLock(text: string): LockText | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
  const lock = value as Partial<LockText> | null;
  const isLock = typeof lock?.pid === 'number' && typeof lock.startedAt === 'string' && typeof lock.scope === 'string';
  return isLock ? (lock as LockText) : null;
}

function lockedError(path: string, text: string): KvasirError {
  const pid = parseLock(text)?.pid ?? null;
  return new KvasirError(
    'cache-locked',
    `${path}: expected a cache directory no other server uses, found it held by process ${pid ?? 'unknown'}; stop that server or choose another directory`,
    { facts: { path, pid } },
  );
}
