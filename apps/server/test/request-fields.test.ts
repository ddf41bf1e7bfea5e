import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { CHAT_FIELDS, COMPLETION_FIELDS, type FieldTables } from '../src/openai/fields.ts';
import { chatRequestSchema, completionRequestSchema } from '../src/openai/request-schemas.ts';

// Walks the request types of the official client: a field it learns with a new version fails here until it is placed
// in exactly one table.

const client = path.dirname(createRequire(import.meta.url).resolve('openai'));

function fieldsOf(file: string, name: string): string[] {
  const source = readFileSync(path.join(client, 'resources', file), 'utf8');
  const start = source.indexOf(`export interface ${name} {`);
  expect(start, `interface ${name} in ${file}`).toBeGreaterThanOrEqual(0);
  const body = source.slice(start, source.indexOf('\n}', start));
  return [...body.matchAll(/^ {4}(\w+)\??:/gm)].map((match) => match[1] ?? '');
}

const cases: readonly [string, string, string, FieldTables, object][] = [
  ['chat', 'chat/completions/completions.d.ts', 'ChatCompletionCreateParamsBase', CHAT_FIELDS, chatRequestSchema.shape],
  ['completions', 'completions.d.ts', 'CompletionCreateParamsBase', COMPLETION_FIELDS, completionRequestSchema.shape],
];

describe.each(cases)('%s request fields', (_endpoint, file, name, tables, shape) => {
  const all = [...tables.implemented, ...tables.accepted, ...tables.refused.keys()];
  const fields = fieldsOf(file, name);

  it('place every field of the official client in one table', () => {
    expect(fields.length).toBeGreaterThan(15);
    expect(fields.filter((field) => all.filter((known) => known === field).length !== 1)).toEqual([]);
  });

  it('name nothing the official client lacks but our extensions', () => {
    const extensions = ['top_k', 'min_p', 'repetition_penalty', 'ignore_eos', 'agent_id', 'chat_template_kwargs'];
    expect(all.filter((field) => !fields.includes(field) && !extensions.includes(field))).toEqual([]);
  });

  it('parse exactly the fields they call implemented', () => {
    expect(Object.keys(shape).sort()).toEqual([...tables.implemented].sort());
  });
});
