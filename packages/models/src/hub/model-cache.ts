import {
  copyFileSync,
  existsSync,
  linkSync,
  readFileSync,
  readdirSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { KvasirError } from '@kvasir/domain';
import type { HubFile } from './hub-client.ts';
import type { HubReference } from './hub-reference.ts';
import { makeDirectories } from '../make-directories.ts';

/**
 * Where downloaded models lie:
 *
 *     <cache>/<organisation>/<repository>/refs/<revision>        the commit a branch or tag pointed at when last seen
 *     <cache>/<organisation>/<repository>/<commit>/<file>        a verified file
 *     <cache>/<organisation>/<repository>/<commit>/<file>.verified     its size and hash
 *     <cache>/<organisation>/<repository>/<commit>/<file>.incomplete   what an interrupted download left
 *
 * Files of one commit lie together because shards must; a file that did not change between commits is linked, not
 * downloaded again.
 */
export class ModelCache {
  readonly #directory: string;

  constructor(cacheDirectory: string, repository: string) {
    this.#directory = join(cacheDirectory, ...repository.split('/'));
  }

  pathOf(commit: string, file: string): string {
    return join(this.#directory, commit, ...file.split('/'));
  }

  /** Makes the folder a file will lie in; returns the file's path. */
  prepare(commit: string, file: string): string {
    const path = this.pathOf(commit, file);
    guard(path, () => makeDirectories(dirname(path)));
    return path;
  }

  /** Whether the file is there, verified when it came and still of its size. */
  has(commit: string, file: string): boolean {
    const record = this.#recordOf(commit, file);
    const path = this.pathOf(commit, file);
    return record !== null && existsSync(path) && statSync(path).size === record.bytes;
  }

  /** Bytes an interrupted download of the file left. */
  incompleteBytes(commit: string, file: string): number {
    return statSync(`${this.pathOf(commit, file)}.incomplete`, { throwIfNoEntry: false })?.size ?? 0;
  }

  /** Gives a verified download its name; from here on `has` is true. */
  admit(found: HubFile, incompletePath: string): void {
    const path = this.prepare(found.commit, found.file);
    guard(path, () => {
      renameSync(incompletePath, path);
      this.#record(found);
    });
  }

  /** Links the same file from another commit. @returns whether there was one */
  adopt(found: HubFile): boolean {
    const other = this.#commits().find((commit) => {
      return this.#recordOf(commit, found.file)?.hash === found.hash.hex && this.has(commit, found.file);
    });
    if (other === undefined) return false;
    const path = this.prepare(found.commit, found.file);
    const source = this.pathOf(other, found.file);
    guard(path, () => {
      try {
        linkSync(source, path);
      } catch {
        // Some file systems have no hard links; a copy, under another name until it is whole, serves as well.
        copyFileSync(source, `${path}.incomplete`);
        renameSync(`${path}.incomplete`, path);
      }
      this.#record(found);
    });
    return true;
  }

  /** The commit a revision was last seen at, or null. */
  commitOf(revision: string): string | null {
    if (isCommit(revision)) return revision;
    const path = this.#refPath(revision);
    if (!existsSync(path)) return null;
    const commit = guard(path, () => readFileSync(path, 'utf8')).trim();
    return isCommit(commit) ? commit : null;
  }

  remember({ revision }: HubReference, commit: string): void {
    if (isCommit(revision)) return;
    const path = this.#refPath(revision);
    guard(path, () => {
      makeDirectories(dirname(path));
      writeFileSync(path, `${commit}\n`);
    });
  }

  #refPath(revision: string): string {
    return join(this.#directory, 'refs', encodeURIComponent(revision));
  }

  #commits(): string[] {
    return existsSync(this.#directory) ? readdirSync(this.#directory).filter(isCommit) : [];
  }

  #record({ commit, file, bytes, hash }: HubFile): void {
    writeFileSync(`${this.pathOf(commit, file)}.verified`, `${JSON.stringify({ bytes, hash: hash.hex })}\n`);
  }

  #recordOf(commit: string, file: string): { readonly bytes: number; readonly hash: string } | null {
    const path = `${this.pathOf(commit, file)}.verified`;
    if (!existsSync(path)) return null;
    const match = /"bytes":(?<bytes>\d+),"hash":"(?<hash>[0-9a-f]+)"/.exec(
      guard(path, () => readFileSync(path, 'utf8')),
    );
    const { bytes, hash } = match?.groups ?? {};
    return bytes === undefined || hash === undefined ? null : { bytes: Number(bytes), hash };
  }
}

/** Turns a file system's refusal into ours. */
export function guard<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (cause) {
    throw cacheError(path, cause);
  }
}

/** @returns `file-unreadable`, or `download-failed` where the disk is full; anything foreign is rethrown */
export function cacheError(path: string, cause: unknown): KvasirError {
  if (!(cause instanceof Error) || !('code' in cause) || cause instanceof KvasirError) throw cause;
  const systemCode = String(cause.code);
  const isFull = systemCode === 'ENOSPC' || systemCode === 'EDQUOT';
  return new KvasirError(
    isFull ? 'download-failed' : 'file-unreadable',
    isFull
      ? `${path}: expected room for the model, found a full disk (${systemCode}); free some or choose another cache directory`
      : `${path}: the model cache cannot be used (${systemCode}: ${cause.message}); check its permissions`,
    { facts: { path, systemCode }, cause },
  );
}

function isCommit(name: string): boolean {
  return /^[0-9a-f]{40}$/.test(name);
}
