import { strftime } from './strftime.ts';
import { toText } from './python-text.ts';
import { type CallArguments, PyCallable, PyObject, TemplateError, type Value, iterate, toKey } from './values.ts';

/** Jinja's sandbox allows no longer range. */
const MAX_RANGE = 100_000;

/** What chat templates find beside their variables: Jinja's functions and transformers' two. */
export function createGlobals(now: Date): ReadonlyMap<string, Value> {
  const functions: readonly [string, (args: CallArguments) => Value][] = [
    ['range', range],
    ['dict', (args) => new Map([...dictEntries(args.positional[0]), ...args.named])],
    ['namespace', (args) => new PyObject('Namespace', namespaceEntries(args))],
    ['joiner', joiner],
    ['cycler', (args) => cycler(args.positional)],
    ['strftime_now', (args) => strftime(now, args.text(0, 'format'))],
    [
      'raise_exception',
      (args) => {
        throw new TemplateError(toText(args.get(0, 'message') ?? ''));
      },
    ],
  ];
  return new Map<string, Value>([
    ['true', true],
    ['True', true],
    ['false', false],
    ['False', false],
    ['none', null],
    ['None', null],
    ...functions.map(([name, call]): [string, Value] => [name, new PyCallable(name, call)]),
  ]);
}

function range(args: CallArguments): Value {
  const first = args.integer(0, 'start');
  const hasStop = args.positional.length > 1;
  const start = hasStop ? first : 0;
  const stop = hasStop ? args.integer(1, 'stop') : first;
  const step = args.integer(2, 'step', 1);
  if (step === 0) throw new TemplateError('range() arg 3 must not be zero');
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > MAX_RANGE) {
    throw new TemplateError(`Range too big. The sandbox blocks ranges larger than MAX_RANGE (${MAX_RANGE}).`);
  }
  return Array.from({ length }, (_, index) => start + index * step);
}

function dictEntries(value: Value | undefined): [string | number | boolean | null, Value][] {
  if (value === undefined) return [];
  if (value instanceof Map) return [...value];
  return iterate(value).map((pair) => {
    const [key, member] = iterate(pair);
    return [toKey(key ?? null), member ?? null];
  });
}

function namespaceEntries(args: CallArguments): Map<string, Value> {
  const entries = dictEntries(args.positional[0]).map(([key, value]): [string, Value] => [String(key), value]);
  return new Map([...entries, ...args.named]);
}

/** Gives nothing the first time it is called and its separator afterwards. */
function joiner(args: CallArguments): Value {
  const separator = args.text(0, 'sep', ', ');
  let isUsed = false;
  return new PyCallable('joiner', () => {
    const text = isUsed ? separator : '';
    isUsed = true;
    return text;
  });
}

function cycler(items: readonly Value[]): Value {
  let position = 0;
  const attributes = new Map<string, Value>([['current', items[0] ?? null]]);
  const show = (): void => void attributes.set('current', items[position] ?? null);
  attributes.set(
    'next',
    new PyCallable('next', () => {
      const current = items[position] ?? null;
      position = (position + 1) % items.length;
      show();
      return current;
    }),
  );
  attributes.set(
    'reset',
    new PyCallable('reset', () => {
      position = 0;
      show();
      return null;
    }),
  );
  return new PyObject('Cycler', attributes);
}
