import { closeSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { KvasirError } from '@kvasir/domain';
import { cacheError } from './model-cache.ts';

/**
 * Runs `action` while a lock file beside the download keeps other processes from writing the same bytes. A lock whose
 * process is gone is taken over.
 * @throws KvasirError `download-failed` when a living process holds it, and what `action` throws
 */
export async function withDownloadLock<T>(incompletePath: string, action: () => Promise<T>): Promise<T> {
  const path = `${incompletePath}.lock`;
  if (!tryLock(path)) {
    const owner = ownerOf(path);
    if (owner !== null && isAlive(owner)) {
      throw new KvasirError(
        'download-failed',
        `${incompletePath}: expected to be the only one to download this file, found process ${owner} at it; wait for it, or delete ${path} if that process does something else`,
        { facts: { path, process: owner } },
      );
    }
    rmSync(path, { force: true });
    if (!tryLock(path)) {
      throw new KvasirError(
        'download-failed',
        `${incompletePath}: another process has just begun to download this file`,
        {
          facts: { path },
        },
      );
    }
  }
  try {
    return await action();
  } finally {
    rmSync(path, { force: true });
  }
}

function tryLock(path: string): boolean {
  try {
    const file = openSync(path, 'wx');
    writeSync(file, String(process.pid));
    closeSync(file);
    return true;
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'EEXIST') return false;
    throw cacheError(path, cause);
  }
}

/** null when the lock has just gone or holds no process id. */
function ownerOf(path: string): number | null {
  try {
    const owner = Number(readFileSync(path, 'utf8'));
    return Number.isInteger(owner) && owner > 0 ? owner : null;
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return null;
    throw cacheError(path, cause);
  }
}

function isAlive(processId: number): boolean {
  try {
    process.kill(processId, 0);
    return true;
  } catch (cause) {
    // EPERM: it lives, under another user.
    return cause instanceof Error && 'code' in cause && cause.code === 'EPERM';
  }
}
