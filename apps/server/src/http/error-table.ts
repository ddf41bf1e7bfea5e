import { isKvasirError, KvasirError, type ErrorCode } from '@kvasir/domain';

/** How one error code is shown to HTTP clients. */
export interface ErrorRow {
  readonly status: 400 | 401 | 404 | 405 | 409 | 413 | 415 | 429 | 499 | 500 | 503 | 504;
  /** OpenAI's coarse class, what its clients branch on besides the status. */
  readonly type: string;
  /** Whether the same request can succeed later without being changed. */
  readonly retriable: boolean;
}

const request = (status: ErrorRow['status']): ErrorRow => ({ status, type: 'invalid_request_error', retriable: false });
const server = (status: ErrorRow['status'], retriable: boolean): ErrorRow => ({
  status,
  type: 'server_error',
  retriable,
});

/** Every code of the closed union has its row; the compiler refuses a missing one. */
export const ERROR_TABLE: Readonly<Record<ErrorCode, ErrorRow>> = {
  'invalid-argument': request(400),
  'unsupported-parameter': request(400),
  'context-length-exceeded': request(400),
  'model-not-found': request(404),
  unauthorized: { status: 401, type: 'authentication_error', retriable: false },
  'request-too-large': request(413),
  'template-failed': request(400),
  aborted: { status: 499, type: 'request_aborted', retriable: true },
  'agent-not-found': request(404),
  'agent-exists': request(409),
  'agent-other-model': request(409),

  'file-not-found': server(500, false),
  'file-unreadable': server(500, false),
  'file-truncated': server(500, false),
  'file-corrupt': server(500, false),
  'file-foreign': server(500, false),
  'unsupported-model': server(500, false),
  'unsupported-format': server(500, false),
  'download-failed': server(503, true),
  'disk-full': server(503, true),
  'disk-unwritable': server(503, false),
  'cache-locked': server(503, false),

  overloaded: { status: 429, type: 'rate_limit_error', retriable: true },
  'out-of-memory': server(503, true),
  'pool-too-small': request(400),
  'deadline-exceeded': server(504, true),

  'backend-unavailable': server(503, false),
  'device-lost': server(503, false),
  disposed: server(503, true),

  'invariant-broken': server(500, false),
  internal: server(500, false),
};

/** One problem of a request, in OpenAI's shape. */
export interface Problem {
  readonly message: string;
  readonly type: string;
  readonly param: string | null;
  readonly code: string;
}

export interface ErrorBody {
  /** The first problem, where OpenAI's clients look. */
  readonly error: Problem;
  /** All problems, `error` among them. */
  readonly errors: readonly Problem[];
}

/** Codes on the wire are spelled as OpenAI spells them: `unsupported_parameter`. */
export function toWireCode(code: ErrorCode): string {
  return code.replaceAll('-', '_');
}

/** Anything thrown as a KvasirError; what is not one already becomes `internal` with the original as its cause. */
export function toKvasirError(error: unknown): KvasirError {
  if (isKvasirError(error)) return error;
  const found = error instanceof Error ? error.message : String(error);
  return new KvasirError('internal', `expected the request to be handled, found an unforeseen failure: ${found}`, {
    cause: error,
  });
}

export function toProblem(error: KvasirError): Problem {
  const param = error.facts['param'];
  return {
    message: error.message,
    type: ERROR_TABLE[error.code].type,
    param: typeof param === 'string' ? param : null,
    code: toWireCode(error.code),
  };
}

/** A single failure as a response body. */
export function toErrorBody(error: KvasirError): ErrorBody {
  const problem = toProblem(error);
  return { error: problem, errors: [problem] };
}
