import { braceFormat } from './brace-format.ts';
import { equals } from './operators.ts';
import { callOnMarkup, STRING_METHODS } from './string-methods.ts';
import {
  type CallArguments,
  Markup,
  PyCallable,
  type PyDict,
  PyObject,
  PyTuple,
  TemplateError,
  Undefined,
  type Value,
  asText,
  toKey,
  typeOf,
} from './values.ts';

type Method<Receiver> = (receiver: Receiver, args: CallArguments) => Value;

function pairs(dict: PyDict): Value[] {
  return [...dict].map((pair) => new PyTuple(pair));
}

const DICT_METHODS: ReadonlyMap<string, Method<PyDict>> = new Map<string, Method<PyDict>>([
  ['get', getFromDict],
  ['items', (dict) => pairs(dict)],
  ['keys', (dict) => [...dict.keys()]],
  ['values', (dict) => [...dict.values()]],
  ['copy', (dict) => new Map(dict)],
]);

const LIST_METHODS: ReadonlyMap<string, Method<readonly Value[]>> = new Map<string, Method<readonly Value[]>>([
  ['index', (items, args) => indexOf(items, args.get(0, 'value') ?? null)],
  ['count', (items, args) => items.filter((item) => equals(item, args.get(0, 'value') ?? null)).length],
  ['copy', (items) => [...items]],
]);

function indexOf(items: readonly Value[], wanted: Value): number {
  const index = items.findIndex((item) => equals(item, wanted));
  if (index < 0) throw new TemplateError('the value is not in the list');
  return index;
}

function getFromDict(dict: PyDict, args: CallArguments): Value {
  const value = dict.get(toKey(args.get(0, 'key') ?? null));
  return value === undefined ? (args.get(1, 'default') ?? null) : value;
}

/** Python changes its lists and dicts by these; the sandbox chat templates are written for forbids it. */
const MUTATORS = new Set(
  'append extend insert pop popitem remove clear reverse sort update setdefault add discard'.split(' '),
);

/** `value.name`: an attribute first, then a member of that name. */
export function getAttribute(value: Value, name: string): Value {
  const own = attribute(value, name);
  if (own !== undefined) return own;
  const found = member(value, name);
  return found === undefined ? missing(value, name) : found;
}

/** `value[key]`: a member first, then an attribute of that name. */
export function getItem(value: Value, key: Value): Value {
  const found = member(value, key);
  if (found !== undefined) return found;
  const name = asText(key);
  const own = name === null ? undefined : attribute(value, name);
  return own === undefined ? missing(value, name ?? key) : own;
}

function attribute(value: Value, name: string): Value | undefined {
  if (value instanceof Undefined) throw new TemplateError(`${value.what} is undefined`);
  if (name.startsWith('__')) throw new TemplateError(`access to attribute '${name}' is unsafe`);
  if (value instanceof PyObject) return value.attributes.get(name);
  if (asText(value) !== null) {
    const method = name === 'format' ? formatMethod : STRING_METHODS.get(name);
    if (method === undefined) return undefined;
    return new PyCallable(name, (args) =>
      value instanceof Markup ? callOnMarkup(name, method, value, args) : method(value as string, args),
    );
  }
  if (value instanceof Map) return bind(DICT_METHODS, value, name);
  if (Array.isArray(value)) return bind(LIST_METHODS, value, name);
  return value instanceof PyTuple ? bind(LIST_METHODS, value.items, name) : undefined;
}

/** Here and not among the string methods because a field of a format may read members. */
function formatMethod(text: string, args: CallArguments): string {
  return braceFormat(text, args, { getAttribute, getItem });
}

function bind<Receiver>(
  methods: ReadonlyMap<string, Method<Receiver>>,
  receiver: Receiver,
  name: string,
): PyCallable | undefined {
  const method = methods.get(name);
  if (method !== undefined) return new PyCallable(name, (args) => method(receiver, args));
  if (!MUTATORS.has(name)) return undefined;
  return new PyCallable(name, () => {
    throw new TemplateError(`access to attribute '${name}' is unsafe: values of a template cannot be changed`);
  });
}

function member(value: Value, key: Value): Value | undefined {
  if (value instanceof Undefined) throw new TemplateError(`${value.what} is undefined`);
  if (value instanceof Map) {
    const known = key === null || typeof key === 'boolean' || typeof key === 'number' || asText(key) !== null;
    return known ? value.get(toKey(key)) : undefined;
  }
  if (typeof key !== 'number') return undefined;
  if (Array.isArray(value)) return value.at(key);
  if (value instanceof PyTuple) return value.items.at(key);
  const text = asText(value);
  return text === null ? undefined : Array.from(text).at(key);
}

function missing(value: Value, name: Value): Undefined {
  const shown = typeof name === 'string' ? `'${name}'` : String(asText(name) ?? typeOf(name));
  return new Undefined(`'${typeOf(value)} object' has no attribute ${shown}, which`);
}

/** `value[start:stop:step]` with Python's rules for what lies outside. */
export function slice(value: Value, start: number | null, stop: number | null, step: number | null): Value {
  if (Array.isArray(value)) return pick(value, start, stop, step);
  if (value instanceof PyTuple) return new PyTuple(pick(value.items, start, stop, step));
  const text = asText(value);
  if (text === null) return missing(value, 'slice');
  const picked = pick(Array.from(text), start, stop, step).join('');
  return value instanceof Markup ? new Markup(picked) : picked;
}

function pick<Item>(items: readonly Item[], start: number | null, stop: number | null, step: number | null): Item[] {
  const by = step ?? 1;
  if (by === 0) throw new TemplateError('slice step cannot be zero');
  const { length } = items;
  const low = by > 0 ? 0 : -1;
  const high = by > 0 ? length : length - 1;
  const bound = (at: number | null, fallback: number): number =>
    at === null ? fallback : Math.min(high, Math.max(low, at < 0 ? at + length : at));
  const from = bound(start, by > 0 ? 0 : length - 1);
  const to = stop === null ? (by > 0 ? length : -1) : bound(stop, 0);
  const picked: Item[] = [];
  for (let index = from; by > 0 ? index < to : index > to; index += by) picked.push(items[index] as Item);
  return picked;
}
