import { type Filter, joinFilter, VALUE_FILTERS } from './filters-text.ts';
import { getItem } from './members.ts';
import { applyBinary, compare, equals } from './operators.ts';
import { findTest } from './tests.ts';
import {
  CallArguments,
  PyGenerator,
  PyTuple,
  TemplateError,
  Undefined,
  type Value,
  asText,
  isTrue,
  iterate,
  lengthOf,
} from './values.ts';

/** Filters that read or make sequences. Source: as for the others. */
const SEQUENCE_FILTERS: readonly [string, Filter][] = [
  ['length', lengthOf],
  ['count', lengthOf],
  ['list', (value) => [...iterate(value)]],
  ['first', (value) => iterate(value)[0] ?? new Undefined('No first item, sequence was empty, which')],
  ['last', (value) => iterate(value).at(-1) ?? new Undefined('No last item, sequence was empty, which')],
  ['join', (value, args) => joinFilter(value, args, pickAttribute)],
  ['reverse', reverse],
  ['sort', sort],
  ['unique', unique],
  ['min', (value, args) => extreme(value, args, -1)],
  ['max', (value, args) => extreme(value, args, 1)],
  ['sum', sum],
  ['items', items],
  ['dictsort', dictSort],
  ['attr', (value, args) => getItem(value, args.text(0, 'name'))],
  ['map', map],
  ['select', (value, args) => select(value, args, false, true)],
  ['reject', (value, args) => select(value, args, false, false)],
  ['selectattr', (value, args) => select(value, args, true, true)],
  ['rejectattr', (value, args) => select(value, args, true, false)],
  ['groupby', groupBy],
  ['batch', batch],
  ['slice', sliceIntoColumns],
];

export const FILTERS: ReadonlyMap<string, Filter> = new Map([...VALUE_FILTERS, ...SEQUENCE_FILTERS]);

export function findFilter(name: string): Filter {
  const filter = FILTERS.get(name);
  if (filter === undefined) throw new TemplateError(`No filter named '${name}'.`);
  return filter;
}

/** `a.b.0` picks member by member; a number picks an item. */
function pickAttribute(item: Value, path: Value): Value {
  const text = asText(path);
  if (text === null) return getItem(item, path);
  let current = item;
  for (const part of text.split('.')) current = getItem(current, /^\d+$/.test(part) ? Number(part) : part);
  return current;
}

function picker(path: Value): (item: Value) => Value {
  return path === null ? (item) => item : (item) => pickAttribute(item, path);
}

function ignoringCase(value: Value): Value {
  return asText(value)?.toLowerCase() ?? value;
}

/** Sorting keys: an attribute where one is named, without case unless asked otherwise. */
function sortKey(path: Value, isCaseSensitive: boolean): (item: Value) => Value {
  const pick = picker(path);
  return isCaseSensitive ? pick : (item) => ignoringCase(pick(item));
}

function reverse(value: Value): Value {
  const text = asText(value);
  return text === null ? new PyGenerator([...iterate(value)].reverse()) : Array.from(text).reverse().join('');
}

function sort(value: Value, args: CallArguments): Value {
  const isReverse = args.boolean(0, 'reverse', false);
  const path = args.get(2, 'attribute') ?? null;
  const isCaseSensitive = args.boolean(1, 'case_sensitive', false);
  const paths = (asText(path)?.split(',') ?? [path]).map((part) => sortKey(part, isCaseSensitive));
  const keyed = iterate(value).map((item) => ({ item, keys: paths.map((key) => key(item)) }));
  // Reversed, Python keeps equal items in their order, so the comparison turns round rather than the result.
  keyed.sort((a, b) => (isReverse ? compare(b.keys, a.keys) : compare(a.keys, b.keys)));
  return keyed.map(({ item }) => item);
}

function unique(value: Value, args: CallArguments): Value {
  const key = sortKey(args.get(1, 'attribute') ?? null, args.boolean(0, 'case_sensitive', false));
  const seen: Value[] = [];
  const kept = iterate(value).filter((item) => {
    const own = key(item);
    if (seen.some((other) => equals(other, own))) return false;
    seen.push(own);
    return true;
  });
  return new PyGenerator(kept);
}

function extreme(value: Value, args: CallArguments, sign: 1 | -1): Value {
  const key = sortKey(args.get(1, 'attribute') ?? null, args.boolean(0, 'case_sensitive', false));
  const [first, ...rest] = iterate(value);
  if (first === undefined) return new Undefined('No aggregated item, sequence was empty, which');
  return rest.reduce((best, item) => (compare(key(item), key(best)) * sign > 0 ? item : best), first);
}

function sum(value: Value, args: CallArguments): Value {
  const pick = picker(args.get(0, 'attribute') ?? null);
  return iterate(value).reduce((total, item) => applyBinary('+', total, pick(item)), args.get(1, 'start') ?? 0);
}

function items(value: Value): Value {
  if (value instanceof Undefined) return new PyGenerator([]);
  if (!(value instanceof Map)) throw new TemplateError('Can only get item pairs from a mapping.');
  return new PyGenerator([...value].map((pair) => new PyTuple(pair)));
}

function dictSort(value: Value, args: CallArguments): Value {
  if (!(value instanceof Map)) throw new TemplateError('dictsort: expected a mapping');
  const isCaseSensitive = args.boolean(0, 'case_sensitive', false);
  const by = args.text(1, 'by', 'key');
  if (by !== 'key' && by !== 'value') throw new TemplateError('You can only sort by either "key" or "value"');
  const isReverse = args.boolean(2, 'reverse', false);
  const key = sortKey(by === 'key' ? 0 : 1, isCaseSensitive);
  const sorted = [...value].map((pair) => new PyTuple(pair));
  return sorted.sort((a, b) => (isReverse ? compare(key(b), key(a)) : compare(key(a), key(b))));
}

function map(value: Value, args: CallArguments): Value {
  const path = args.named.get('attribute');
  const members = iterate(isTrue(value) ? value : []);
  if (path !== undefined) {
    const fallback = args.named.get('default');
    const attributes = members.map((item) => {
      const picked = pickAttribute(item, path);
      return picked instanceof Undefined && fallback !== undefined ? fallback : picked;
    });
    return new PyGenerator(attributes);
  }
  const filter = findFilter(args.text(0, 'filter'));
  const rest = new CallArguments(args.positional.slice(1), args.named);
  return new PyGenerator(members.map((item) => filter(item, rest)));
}

/** @param byAttribute whether the first argument names what the test is about, or the item itself is */
function select(value: Value, args: CallArguments, byAttribute: boolean, wanted: boolean): Value {
  const [path = null, ...afterPath] = args.positional;
  const pick = byAttribute ? picker(path) : picker(null);
  const [name, ...rest] = byAttribute ? afterPath : args.positional;
  const test = name === undefined ? isTrue : findTest(asText(name) ?? '');
  const testArguments = new CallArguments(rest, args.named);
  const members = iterate(isTrue(value) ? value : []);
  return new PyGenerator(members.filter((item) => test(pick(item), testArguments) === wanted));
}

function groupBy(value: Value, args: CallArguments): Value {
  const path = args.get(0, 'attribute') ?? null;
  const pick = picker(path);
  const key = sortKey(path, args.boolean(2, 'case_sensitive', false));
  const groups: { readonly key: Value; readonly grouper: Value; readonly list: Value[] }[] = [];
  for (const item of sort(value, new CallArguments([], new Map([['attribute', path]]))) as Value[]) {
    const last = groups.at(-1);
    if (last !== undefined && equals(last.key, key(item))) last.list.push(item);
    else groups.push({ key: key(item), grouper: pick(item), list: [item] });
  }
  return groups.map(({ grouper, list }) => new PyTuple([grouper, list]));
}

function batch(value: Value, args: CallArguments): Value {
  const size = Math.max(1, args.integer(0, 'linecount'));
  const filler = args.get(1, 'fill_with') ?? null;
  const members = iterate(value);
  const rows: Value[] = [];
  for (let start = 0; start < members.length; start += size) {
    const row = members.slice(start, start + size);
    rows.push(filler === null ? row : [...row, ...Array.from({ length: size - row.length }, () => filler)]);
  }
  return new PyGenerator(rows);
}

function sliceIntoColumns(value: Value, args: CallArguments): Value {
  const count = Math.max(1, args.integer(0, 'slices'));
  const filler = args.get(1, 'fill_with') ?? null;
  const members = iterate(value);
  const each = Math.floor(members.length / count);
  const longer = members.length % count;
  let start = 0;
  const columns = Array.from({ length: count }, (_, index) => {
    const end = start + each + (index < longer ? 1 : 0);
    const column = members.slice(start, end);
    start = end;
    return filler !== null && index >= longer ? [...column, filler] : column;
  });
  return new PyGenerator(columns);
}
