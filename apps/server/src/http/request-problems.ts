import { KvasirError } from '@kvasir/domain';
import type { ErrorBody, Problem } from './error-table.ts';

export type ProblemCode = 'invalid_argument' | 'unsupported_parameter' | 'unknown_parameter' | 'missing_parameter';

/** Collects everything wrong with one request so that a caller learns all of it at once. */
export class RequestProblems {
  readonly #problems: Problem[] = [];

  add(code: ProblemCode, param: string, message: string): void {
    this.#problems.push({ message, type: 'invalid_request_error', param, code });
  }

  get list(): readonly Problem[] {
    return this.#problems;
  }

  /** @throws InvalidRequest when anything was added */
  throwIfAny(): void {
    if (this.#problems.length > 0) throw new InvalidRequest(this.#problems);
  }
}

/** A request with one or more problems; answered 400 with all of them. */
export class InvalidRequest extends KvasirError {
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    super('invalid-argument', problems.map((problem) => problem.message).join('; '));
    this.problems = problems;
  }

  toBody(): ErrorBody {
    const [first] = this.problems;
    if (first === undefined) throw new KvasirError('invariant-broken', 'expected a problem, found none');
    return { error: first, errors: this.problems };
  }
}
