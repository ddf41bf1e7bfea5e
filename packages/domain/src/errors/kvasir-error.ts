/**
 * The closed set of error codes. Stable: a code is never renamed or reused, new ones are appended. Where each is mapped
 * to an HTTP status and to whether a retry can help is a table in the server.
 */
export const ERROR_CODES = [
  // the caller's request
  'invalid-argument',
  'unsupported-parameter',
  'context-length-exceeded',
  'model-not-found',
  'unauthorized',
  'request-too-large',
  'template-failed',
  'aborted',
  'agent-not-found',
  'agent-exists',
  'agent-other-model',
  // files
  'file-not-found',
  'file-unreadable',
  'file-truncated',
  'file-corrupt',
  'file-foreign',
  'unsupported-model',
  'unsupported-format',
  'download-failed',
  'disk-full',
  'disk-unwritable',
  'cache-locked',
  // resources
  'overloaded',
  'out-of-memory',
  'pool-too-small',
  'deadline-exceeded',
  // devices and lifetimes
  'backend-unavailable',
  'device-lost',
  'disposed',
  // bugs
  'invariant-broken',
  'internal',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

export type ErrorFacts = Readonly<Record<string, string | number | boolean | null | readonly string[]>>;

/**
 * Every failure Kvasir reports. `code` is what callers match on; `message` states what was expected, what was found and
 * what to do; `facts` carries the same as values.
 */
export class KvasirError extends Error {
  override readonly name = 'KvasirError';
  readonly code: ErrorCode;
  readonly facts: ErrorFacts;

  constructor(code: ErrorCode, message: string, options: { facts?: ErrorFacts; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.facts = options.facts ?? {};
  }
}

/** Narrows by shape as well as by class, so that an error survives two copies of this package in one process. */
export function isKvasirError(value: unknown): value is KvasirError {
  return (
    value instanceof Error &&
    value.name === 'KvasirError' &&
    ERROR_CODES.includes((value as { code?: unknown }).code as ErrorCode)
  );
}
