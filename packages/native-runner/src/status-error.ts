import { KvasirError } from '@kvasir/domain';
import type { ErrorCode } from '@kvasir/domain';
import type { AddonError } from './addon.ts';
import { KV_STATUS } from './waist-constants.ts';

/** What a cancelled call means depends on what was being done. */
export type Activity = 'loading' | 'running';

const CODES: Readonly<Record<number, ErrorCode>> = {
  [KV_STATUS.KV_INVALID_ARGUMENT]: 'invalid-argument',
  [KV_STATUS.KV_UNSUPPORTED]: 'unsupported-model',
  [KV_STATUS.KV_OUT_OF_MEMORY]: 'out-of-memory',
  [KV_STATUS.KV_FILE_UNREADABLE]: 'file-unreadable',
  [KV_STATUS.KV_FILE_TRUNCATED]: 'file-truncated',
  [KV_STATUS.KV_DEVICE_UNAVAILABLE]: 'backend-unavailable',
  [KV_STATUS.KV_DEVICE_LOST]: 'device-lost',
  [KV_STATUS.KV_INTERNAL]: 'internal',
};

/**
 * The one place where the waist's status becomes a KvasirError. Anything that is not an addon's error is a bug of ours
 * and becomes `internal` with the original as its cause.
 */
export function toKvasirError(error: unknown, activity: Activity): KvasirError {
  if (!isAddonError(error)) {
    const found = error instanceof Error ? error.message : String(error);
    return new KvasirError('internal', `expected an error with a status from the addon, found: ${found}`, {
      cause: error,
    });
  }
  const code = error.status === KV_STATUS.KV_CANCELLED ? cancelled(activity) : (CODES[error.status] ?? 'internal');
  return new KvasirError(code, error.message, { facts: { status: error.status }, cause: error });
}

function cancelled(activity: Activity): ErrorCode {
  return activity === 'loading' ? 'aborted' : 'disposed';
}

function isAddonError(error: unknown): error is AddonError {
  return error instanceof Error && typeof (error as { status?: unknown }).status === 'number';
}
