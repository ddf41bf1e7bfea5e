import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createGlobals } from './globals.ts';
import { Interpreter } from './interpreter.ts';
import { parseTemplate } from './syntax.ts';
import { fromJson, type Value } from './values.ts';

interface Expressions {
  /** Which Python made the texts; null where it refused. */
  readonly madeWith: string;
  readonly variables: Record<string, unknown>;
  readonly cases: readonly { readonly template: string; readonly text: string | null; readonly error?: string }[];
}

interface Gap {
  readonly construct: string;
  readonly template: string;
  readonly reason: string;
}

const fixtures = new URL('../../../test/fixtures/', import.meta.url);
const read = (name: string): unknown => JSON.parse(readFileSync(new URL(name, fixtures), 'utf8'));
const expressions = read('jinja-expressions.json') as Expressions;
const gaps = read('template-gaps.json') as readonly Gap[];

function render(template: string): string {
  const variables = fromJson(expressions.variables) as Map<string, Value>;
  const all = new Map([...createGlobals(new Date(2025, 5, 15, 12)), ...variables]);
  return new Interpreter(1 << 20).render(parseTemplate(template), all);
}

describe('templates mean what they mean in Python', () => {
  it.each(expressions.cases.filter(({ text }) => text !== null))('$template', ({ template, text }) => {
    expect(render(template)).toBe(text);
  });

  it.each(expressions.cases.filter(({ text }) => text === null))('$template is refused', ({ template }) => {
    expect(() => render(template)).toThrow(expect.objectContaining({ name: 'TemplateError' }));
  });
});

describe('what cannot be rendered is known', () => {
  it.each(gaps)('$construct: $reason', ({ template }) => {
    expect(() => parseTemplate(template)).toThrow(expect.objectContaining({ name: 'TemplateError' }));
  });
});
