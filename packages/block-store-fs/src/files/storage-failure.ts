import { KvasirError } from '@kvasir/domain';

export function errnoOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : '';
}

/** Whether a failure came from the file system rather than from our own code. */
export function isFileFailure(error: unknown): boolean {
  return error instanceof Error && /^E[A-Z0-9]+$/.test(errnoOf(error)) && 'syscall' in error;
}

/** What the medium said, as one of two words. */
export function refusalOf(error: unknown): 'disk-full' | 'unwritable' {
  return ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(errnoOf(error)) ? 'disk-full' : 'unwritable';
}

/** A file operation that failed, as an error with a stable code; errors that are none pass as they are. */
export function toStorageError(error: unknown, what: string): unknown {
  if (!isFileFailure(error)) return error;
  const errno = errnoOf(error);
  const [code, advice] =
    refusalOf(error) === 'disk-full'
      ? (['disk-full', 'free some space on the disk of the cache directory'] as const)
      : (['disk-unwritable', 'check that the cache directory can be written'] as const);
  return new KvasirError(code, `${what}: expected the disk to take it, found ${errno}; ${advice}`, {
    facts: { errno },
    cause: error,
  });
}
