import { applyBinary, compare, contains, equals } from './operators.ts';
import {
  type CallArguments,
  Markup,
  PyCallable,
  PyFloat,
  PyTuple,
  TemplateError,
  Undefined,
  type Value,
  asNumber,
  asText,
} from './values.ts';

export type Test = (value: Value, args: CallArguments) => boolean;

const other = (args: CallArguments): Value => {
  const value = args.positional[0];
  if (value === undefined) throw new TemplateError('test: expected an argument, found none');
  return value;
};
const isNumber = (value: Value): boolean => asNumber(value) !== null;
const isList = (value: Value): boolean => Array.isArray(value) || value instanceof PyTuple;

/** Jinja's tests by name: `value is name(argument)`. Source: the Template Designer Documentation, List of Builtin Tests. */
export const TESTS: ReadonlyMap<string, Test> = new Map<string, Test>([
  ['defined', (value) => !(value instanceof Undefined)],
  ['undefined', (value) => value instanceof Undefined],
  ['none', (value) => value === null],
  ['boolean', (value) => typeof value === 'boolean'],
  ['true', (value) => value === true],
  ['false', (value) => value === false],
  ['integer', (value) => typeof value === 'number'],
  ['float', (value) => value instanceof PyFloat],
  ['number', isNumber],
  ['string', (value) => asText(value) !== null],
  ['mapping', (value) => value instanceof Map],
  ['sequence', (value) => isList(value) || value instanceof Map || asText(value) !== null],
  [
    'iterable',
    (value) => isList(value) || value instanceof Map || asText(value) !== null || value instanceof Undefined,
  ],
  ['callable', (value) => value instanceof PyCallable],
  ['escaped', (value) => value instanceof Markup],
  ['lower', (value) => isCased(value, (text) => text.toLowerCase())],
  ['upper', (value) => isCased(value, (text) => text.toUpperCase())],
  ['odd', (value) => equals(applyBinary('%', value, 2), 1)],
  ['even', (value) => equals(applyBinary('%', value, 2), 0)],
  ['divisibleby', (value, args) => equals(applyBinary('%', value, other(args)), 0)],
  ['in', (value, args) => contains(other(args), value)],
  ['sameas', (value, args) => value === other(args)],
  ...named(['eq', 'equalto', '=='], (value, args) => equals(value, other(args))),
  ...named(['ne', '!='], (value, args) => !equals(value, other(args))),
  ...named(['lt', 'lessthan', '<'], (value, args) => compare(value, other(args)) < 0),
  ...named(['le', '<='], (value, args) => compare(value, other(args)) <= 0),
  ...named(['gt', 'greaterthan', '>'], (value, args) => compare(value, other(args)) > 0),
  ...named(['ge', '>='], (value, args) => compare(value, other(args)) >= 0),
]);

export function findTest(name: string): Test {
  const test = TESTS.get(name);
  if (test === undefined) throw new TemplateError(`No test named '${name}'.`);
  return test;
}

function named(names: readonly string[], test: Test): [string, Test][] {
  return names.map((name) => [name, test]);
}

function isCased(value: Value, change: (text: string) => string): boolean {
  const text = asText(value) ?? '';
  return text.toLowerCase() !== text.toUpperCase() && text === change(text);
}
