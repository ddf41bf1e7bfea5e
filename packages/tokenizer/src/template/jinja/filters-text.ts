import { toJson } from './json.ts';
import { checkText } from './limits.ts';
import { percentFormat } from './percent-format.ts';
import { escapeHtml, toMarkup, toText } from './python-text.ts';
import { capitalize, center, joinBounded, replaceText, strip, trimBoth } from './string-methods.ts';
import {
  type CallArguments,
  Markup,
  PyFloat,
  PyTuple,
  TemplateError,
  Undefined,
  type Value,
  asNumber,
  asText,
  isTrue,
  iterate,
} from './values.ts';

export type Filter = (value: Value, args: CallArguments) => Value;

/** Filters that make one value of one value. Source: the Template Designer Documentation, List of Builtin Filters. */
export const VALUE_FILTERS: readonly [string, Filter][] = [
  ['safe', (value) => (value instanceof Markup ? value : new Markup(toText(value)))],
  ['escape', (value) => toMarkup(value)],
  ['e', (value) => toMarkup(value)],
  ['forceescape', (value) => new Markup(escapeHtml(toText(value)))],
  ['string', (value) => (value instanceof Markup ? value : toText(value))],
  ['tojson', toJson],
  ['upper', onText((text) => text.toUpperCase())],
  ['lower', onText((text) => text.toLowerCase())],
  ['capitalize', onText(capitalize)],
  ['title', onText(titleWords)],
  ['trim', onText((text, args) => strip(text, args, true, true))],
  ['indent', onText(indent)],
  ['center', onText((text, args) => center(text, args.integer(0, 'width', 80)))],
  ['truncate', onText(truncate)],
  [
    'replace',
    (value, args) =>
      replaceText(
        toText(value),
        toText(args.get(0, 'old') ?? ''),
        toText(args.get(1, 'new') ?? ''),
        replaceCount(args),
      ),
  ],
  [
    'format',
    (value, args) =>
      percentFormat(toText(value), args.positional.length > 0 ? new PyTuple(args.positional) : new Map(args.named)),
  ],
  ['wordcount', (value) => toText(value).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0],
  ['urlencode', (value) => encodeURIComponent(toText(value)).replaceAll('%2F', '/')],
  ['striptags', (value) => trimBoth(toText(value).replace(/<!--[^]*?-->|<[^>]*>/g, '')).replace(/\s+/g, ' ')],
  ['int', toInteger],
  ['float', toFloat],
  ['abs', absolute],
  ['round', round],
  ['default', orDefault],
  ['d', orDefault],
];

/** A filter of texts that turns other values into text first and leaves Markup Markup. */
function onText(change: (text: string, args: CallArguments) => string): Filter {
  return (value, args) => {
    const changed = change(toText(value), args);
    return value instanceof Markup ? new Markup(changed) : changed;
  };
}

function titleWords(text: string): string {
  return text
    .split(/([-\s({[<]+)/)
    .map((part) => part.charAt(0).toUpperCase() + part.slice(1).toLowerCase())
    .join('');
}

function indent(text: string, args: CallArguments): string {
  const width = args.get(0, 'width') ?? 4;
  checkText(asNumber(width) ?? 0);
  const prefix = asText(width) ?? ' '.repeat(Math.max(0, asNumber(width) ?? 4));
  const first = args.boolean(1, 'first', false);
  const blank = args.boolean(2, 'blank', false);
  const lines = text.split(/\r\n|\n|\r/);
  checkText(text.length + (lines.length + 1) * prefix.length);
  const indented = lines.map((line, index) => (index > 0 && (blank || line !== '') ? prefix + line : line)).join('\n');
  return first ? prefix + indented : indented;
}

function truncate(text: string, args: CallArguments): string {
  const length = args.integer(0, 'length', 255);
  const killWords = args.boolean(1, 'killwords', false);
  const end = args.text(2, 'end', '...');
  const leeway = args.integer(3, 'leeway', 5);
  const characters = Array.from(text);
  if (characters.length <= length + leeway) return text;
  const cut = characters.slice(0, Math.max(0, length - end.length)).join('');
  return (killWords ? cut : cut.replace(/ [^ ]*$/, '')) + end;
}

function replaceCount(args: CallArguments): number {
  return (args.get(2, 'count') ?? null) === null ? -1 : args.integer(2, 'count');
}

function toInteger(value: Value, args: CallArguments): Value {
  const number = asNumber(value);
  if (number !== null && Number.isFinite(number)) return Math.trunc(number);
  const text = trimBoth(asText(value) ?? '').replaceAll('_', '');
  if (/^[-+]?\d+$/.test(text)) return Number(text);
  if (/^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$/.test(text)) return Math.trunc(Number(text));
  return args.get(0, 'default') ?? 0;
}

function toFloat(value: Value, args: CallArguments): Value {
  const number = asNumber(value);
  if (number !== null) return new PyFloat(number);
  const text = trimBoth(asText(value) ?? '').replaceAll('_', '');
  if (/^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$/.test(text)) return new PyFloat(Number(text));
  return args.get(0, 'default') ?? new PyFloat(0);
}

function absolute(value: Value): Value {
  const number = asNumber(value);
  if (number === null) throw new TemplateError('abs: expected a number');
  return value instanceof PyFloat ? new PyFloat(Math.abs(number)) : Math.abs(number);
}

function round(value: Value, args: CallArguments): Value {
  const number = asNumber(value);
  if (number === null) throw new TemplateError('round: expected a number');
  const scale = 10 ** args.integer(0, 'precision', 0);
  const method = args.text(1, 'method', 'common');
  if (method === 'ceil') return new PyFloat(Math.ceil(number * scale) / scale);
  if (method === 'floor') return new PyFloat(Math.floor(number * scale) / scale);
  return typeof value === 'number' ? value : new PyFloat(roundHalfEven(number * scale) / scale);
}

function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

function orDefault(value: Value, args: CallArguments): Value {
  const usesFalse = args.boolean(1, 'boolean', false);
  if (!(value instanceof Undefined) && !(usesFalse && !isTrue(value))) return value;
  const fallback = args.get(0, 'default_value');
  return fallback === undefined ? '' : fallback;
}

/** `join` prints every item; without separator they follow each other. */
export function joinFilter(value: Value, args: CallArguments, pick: (item: Value, path: Value) => Value): string {
  const path = args.get(1, 'attribute') ?? null;
  const items = iterate(value).map((item) => (path === null ? item : pick(item, path)));
  return joinBounded(items.map(toText), toText(args.get(0, 'd') ?? ''));
}
