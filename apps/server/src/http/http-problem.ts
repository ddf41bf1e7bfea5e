import type { ErrorBody } from './error-table.ts';

/** A failure of the HTTP exchange itself, which has a status of its own and no engine code. */
export class HttpProblem extends Error {
  override readonly name = 'HttpProblem';
  readonly status: 400 | 404 | 405 | 413 | 415;
  readonly code: string;

  constructor(status: HttpProblem['status'], code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }

  toBody(): ErrorBody {
    const problem = { message: this.message, type: 'invalid_request_error', param: null, code: this.code };
    return { error: problem, errors: [problem] };
  }
}
