import { z } from '@hono/zod-openapi';
import { RequestProblems } from '../http/request-problems.ts';
import type { FieldTables } from './fields.ts';

/**
 * Checks a decoded body against an endpoint's field tables and its schema, reporting every problem at once.
 *
 * `check` adds what no schema says (fields that contradict each other, limits of the loaded model); it runs only when
 * the schema accepts the body, since its input is typed.
 * @throws InvalidRequest with all problems
 */
export function parseRequest<Output>(
  body: unknown,
  tables: FieldTables,
  schema: z.ZodType<Output>,
  check: (request: Output, problems: RequestProblems) => void,
): Output {
  const problems = new RequestProblems();
  const fields = toFields(body, problems);
  addSizeProblem(fields, problems);
  problems.throwIfAny();
  const known: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(fields)) {
    if (tables.implemented.has(field)) known[field] = value;
    else addFieldProblem(field, value, tables, problems);
  }
  const parsed = schema.safeParse(known, { reportInput: true });
  if (parsed.success) check(parsed.data, problems);
  else addIssues(parsed.error.issues, [], problems);
  problems.throwIfAny();
  return parsed.data as Output;
}

function toFields(body: unknown, problems: RequestProblems): Record<string, unknown> {
  if (typeof body === 'object' && body !== null && !Array.isArray(body)) return { ...body };
  problems.add('invalid_argument', 'body', `body: expected a JSON object, found ${describe(body)}`);
  return {};
}

/** Values in a body besides its prompt: a schema is checked in time proportional to them, on the thread of every stream. */
const MAX_VALUES = 50_000;
const MAX_DEPTH = 64;

function addSizeProblem(body: object, problems: RequestProblems): void {
  let level: object[] = [{ ...body, prompt: undefined }];
  let numValues = 0;
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > MAX_DEPTH) {
      problems.add(
        'invalid_argument',
        'body',
        `body: expected values nested at most ${MAX_DEPTH} deep, found deeper ones`,
      );
      return;
    }
    const next: object[] = [];
    for (const container of level) {
      for (const value of Object.values(container)) {
        numValues += 1;
        if (typeof value === 'object' && value !== null) next.push(value);
      }
      if (numValues > MAX_VALUES) {
        problems.add('invalid_argument', 'body', `body: expected at most ${MAX_VALUES} values, found more`);
        return;
      }
    }
    level = next;
  }
}

function addFieldProblem(field: string, value: unknown, tables: FieldTables, problems: RequestProblems): void {
  if (tables.accepted.has(field)) return;
  const refused = tables.refused.get(field);
  if (refused === undefined) {
    const known = [...tables.implemented, ...tables.accepted].sort();
    problems.add(
      'unknown_parameter',
      field,
      `${field}: expected a known field, found none of that name; known are ${known.join(', ')}`,
    );
  } else if (value !== null && !refused.isNeutral(value)) {
    problems.add(
      'unsupported_parameter',
      field,
      `${field}: expected it absent or neutral, found ${describe(value)}; ${refused.advice}`,
    );
  }
}

function addIssues(
  issues: readonly z.core.$ZodIssue[],
  prefix: readonly PropertyKey[],
  problems: RequestProblems,
): void {
  for (const issue of issues) {
    const path = [...prefix, ...issue.path];
    const param = path.map(String).join('.');
    if (issue.code === 'invalid_union' && issue.errors.length > 0) {
      addIssues(closestAlternative(issue.errors), path, problems);
    } else if (issue.code === 'unrecognized_keys') {
      for (const key of issue.keys) {
        const where = [...path, key].map(String).join('.');
        problems.add('unknown_parameter', where, `${where}: expected a known field, found none of that name`);
      }
    } else if (isContentType(issue, path)) {
      problems.add(
        'unsupported_parameter',
        param,
        `${param}: expected "text", found ${describe(issue.input)}; only text is read`,
      );
    } else if (issue.input === undefined) {
      problems.add('missing_parameter', param, `${param}: expected it, since it is required, found nothing`);
    } else {
      problems.add('invalid_argument', param, `${param}: ${issue.message}${foundText(issue)}`);
    }
  }
}

/** Of a union's alternatives the one that got furthest into the value: what the caller most likely meant. */
function closestAlternative(alternatives: readonly (readonly z.core.$ZodIssue[])[]): readonly z.core.$ZodIssue[] {
  const depth = (issues: readonly z.core.$ZodIssue[]): number =>
    Math.max(0, ...issues.map((issue) => (issue.code === 'invalid_union' ? issue.path.length + 1 : issue.path.length)));
  return alternatives.reduce((best, issues) => (depth(issues) > depth(best) ? issues : best));
}

function isContentType(issue: z.core.$ZodIssue, path: readonly PropertyKey[]): boolean {
  return issue.code === 'invalid_value' && path[0] === 'messages' && path[2] === 'content' && path.at(-1) === 'type';
}

function foundText(issue: z.core.$ZodIssue): string {
  return issue.input === undefined ? '' : `, found ${describe(issue.input)}`;
}

const MAX_SHOWN = 60;

/** A value as it appears in a message: short and on one line, never a whole prompt. */
function describe(value: unknown): string {
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object' && value !== null) return 'an object';
  if (typeof value === 'string' && value.length > MAX_SHOWN) return `${JSON.stringify(value.slice(0, MAX_SHOWN))}…`;
  return JSON.stringify(value) ?? 'nothing';
}
