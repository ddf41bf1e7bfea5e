import { checkText } from './limits.ts';
import { toMarkup } from './python-text.ts';
import { CallArguments, Markup, PyTuple, TemplateError, type Value, asText, iterate, typeOf } from './values.ts';

/** Python's white space; JavaScript's trim also takes U+FEFF and leaves U+001C to U+001F and U+0085. */
const SPACE = String.raw`[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]`;
const LEADING = new RegExp(`^${SPACE}+`, 'u');
const TRAILING = new RegExp(`${SPACE}+$`, 'u');
const RUN = new RegExp(`${SPACE}+`, 'gu');
const LINE_END = new RegExp(String.raw`\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]`, 'gu');

type StringMethod = (text: string, args: CallArguments) => Value;

/** Methods of `str` by name. Positions and lengths count code points. */
export const STRING_METHODS: ReadonlyMap<string, StringMethod> = new Map<string, StringMethod>([
  ['upper', (text) => text.toUpperCase()],
  ['lower', (text) => text.toLowerCase()],
  ['casefold', (text) => text.toLowerCase()],
  ['capitalize', capitalize],
  ['title', titleCase],
  ['swapcase', (text) => Array.from(text, swapCase).join('')],
  ['strip', (text, args) => strip(text, args, true, true)],
  ['lstrip', (text, args) => strip(text, args, true, false)],
  ['rstrip', (text, args) => strip(text, args, false, true)],
  ['startswith', (text, args) => affixes(args).some((affix) => text.startsWith(affix))],
  ['endswith', (text, args) => affixes(args).some((affix) => text.endsWith(affix))],
  ['removeprefix', (text, args) => removeAffix(text, args.text(0, 'prefix'), 'start')],
  ['removesuffix', (text, args) => removeAffix(text, args.text(0, 'suffix'), 'end')],
  ['split', split],
  ['rsplit', splitFromRight],
  ['splitlines', splitLines],
  ['partition', (text, args) => partition(text, args, text.indexOf(args.text(0, 'sep')), [text, '', ''])],
  ['rpartition', (text, args) => partition(text, args, text.lastIndexOf(args.text(0, 'sep')), ['', '', text])],
  [
    'replace',
    (text, args) => replaceText(text, args.text(0, 'old'), args.text(1, 'new'), args.integer(2, 'count', -1)),
  ],
  ['join', (text, args) => joinTexts(text, args.get(0, 'iterable') ?? [])],
  ['find', (text, args) => position(text, text.indexOf(args.text(0, 'sub')))],
  ['rfind', (text, args) => position(text, text.lastIndexOf(args.text(0, 'sub')))],
  ['index', (text, args) => found(position(text, text.indexOf(args.text(0, 'sub'))))],
  ['rindex', (text, args) => found(position(text, text.lastIndexOf(args.text(0, 'sub'))))],
  ['count', (text, args) => countParts(text, args.text(0, 'sub'))],
  ['isdigit', (text) => /^\p{Nd}+$/u.test(text)],
  ['isdecimal', (text) => /^\p{Nd}+$/u.test(text)],
  ['isnumeric', (text) => /^\p{N}+$/u.test(text)],
  ['isalpha', (text) => /^\p{L}+$/u.test(text)],
  ['isalnum', (text) => /^[\p{L}\p{N}]+$/u.test(text)],
  ['isspace', (text) => text !== '' && trimBoth(text) === ''],
  ['isupper', (text) => text !== text.toLowerCase() && text === text.toUpperCase()],
  ['islower', (text) => text !== text.toUpperCase() && text === text.toLowerCase()],
  ['istitle', (text) => text !== text.toLowerCase() && text === titleCase(text)],
  ['isidentifier', (text) => /^[\p{L}_][\p{L}\p{N}_]*$/u.test(text)],
  ['zfill', (text, args) => zeroFill(text, args.integer(0, 'width'))],
  ['ljust', (text, args) => text + fill(text, args)],
  ['rjust', (text, args) => fill(text, args) + text],
  ['center', (text, args) => center(text, args.integer(0, 'width'), args.text(1, 'fillchar', ' '))],
]);

/** Methods that only look for their arguments, which markupsafe passes as they are. */
const SEEKERS = new Set(
  'split rsplit splitlines partition rpartition find rfind index rindex count startswith endswith'.split(' '),
);

/** A method of Markup: what it would put into the text is escaped first, and the texts it gives are Markup again. */
export function callOnMarkup(name: string, method: StringMethod, receiver: Markup, args: CallArguments): Value {
  if (SEEKERS.has(name)) return markUp(method(receiver.text, args));
  const escape = (value: Value): Value => (typeof value === 'string' ? toMarkup(value).text : value);
  const named = new Map([...args.named].map(([key, value]): [string, Value] => [key, escape(value)]));
  return markUp(method(receiver.text, new CallArguments(args.positional.map(escape), named)));
}

function markUp(value: Value): Value {
  if (typeof value === 'string') return new Markup(value);
  if (Array.isArray(value)) return value.map(markUp);
  return value instanceof PyTuple ? new PyTuple(value.items.map(markUp)) : value;
}

export function trimBoth(text: string): string {
  return text.replace(LEADING, '').replace(TRAILING, '');
}

export function capitalize(text: string): string {
  const first = Array.from(text)[0] ?? '';
  return first.toUpperCase() + text.slice(first.length).toLowerCase();
}

function titleCase(text: string): string {
  return text.replace(/\p{L}+/gu, capitalize);
}

function swapCase(character: string): string {
  return character === character.toUpperCase() ? character.toLowerCase() : character.toUpperCase();
}

export function strip(text: string, args: CallArguments, atStart: boolean, atEnd: boolean): string {
  const characters = args.get(0, 'chars') ?? null;
  if (characters === null) {
    const left = atStart ? text.replace(LEADING, '') : text;
    return atEnd ? left.replace(TRAILING, '') : left;
  }
  const stripped = new Set(Array.from(args.text(0, 'chars')));
  const all = Array.from(text);
  const isKept = (character: string): boolean => !stripped.has(character);
  const start = atStart ? all.findIndex(isKept) : 0;
  const end = atEnd ? all.findLastIndex(isKept) + 1 : all.length;
  return start < 0 ? '' : all.slice(start, end).join('');
}

function affixes(args: CallArguments): readonly string[] {
  const value = args.get(0, 'prefix') ?? null;
  const items = value instanceof PyTuple ? value.items : [value];
  return items.map((item) => {
    const text = asText(item);
    if (text === null) throw new TemplateError(`expected a str or a tuple of str, found ${typeOf(item)}`);
    return text;
  });
}

function removeAffix(text: string, affix: string, side: 'start' | 'end'): string {
  if (affix === '') return text;
  if (side === 'start') return text.startsWith(affix) ? text.slice(affix.length) : text;
  return text.endsWith(affix) ? text.slice(0, text.length - affix.length) : text;
}

function separatorOf(args: CallArguments): string | null {
  if ((args.get(0, 'sep') ?? null) === null) return null;
  const separator = args.text(0, 'sep');
  if (separator === '') throw new TemplateError('empty separator');
  return separator;
}

function split(text: string, args: CallArguments): Value[] {
  const separator = separatorOf(args);
  const limit = args.integer(1, 'maxsplit', -1);
  if (separator !== null) {
    const parts = text.split(separator);
    if (limit < 0 || parts.length <= limit + 1) return parts;
    return [...parts.slice(0, limit), parts.slice(limit).join(separator)];
  }
  const words: string[] = [];
  let rest = text.replace(LEADING, '');
  while (rest !== '') {
    RUN.lastIndex = 0;
    const gap = limit >= 0 && words.length >= limit ? null : RUN.exec(rest);
    if (gap === null) {
      words.push(limit >= 0 && words.length >= limit ? rest : rest.replace(TRAILING, ''));
      break;
    }
    words.push(rest.slice(0, gap.index));
    rest = rest.slice(gap.index + gap[0].length);
  }
  return words;
}

function splitFromRight(text: string, args: CallArguments): Value[] {
  const separator = separatorOf(args);
  const limit = args.integer(1, 'maxsplit', -1);
  if (limit < 0) return split(text, args);
  if (separator === null) throw new TemplateError('rsplit: expected a separator where maxsplit is given');
  const parts = text.split(separator);
  const kept = Math.max(1, parts.length - limit);
  return [parts.slice(0, kept).join(separator), ...parts.slice(kept)];
}

function splitLines(text: string, args: CallArguments): Value[] {
  const keepEnds = args.boolean(0, 'keepends', false);
  const lines: string[] = [];
  let start = 0;
  for (const match of text.matchAll(LINE_END)) {
    const end = match.index + match[0].length;
    lines.push(text.slice(start, keepEnds ? end : match.index));
    start = end;
  }
  if (start < text.length) lines.push(text.slice(start));
  return lines;
}

function partition(text: string, args: CallArguments, at: number, absent: readonly string[]): PyTuple {
  const separator = args.text(0, 'sep');
  if (at < 0) return new PyTuple(absent);
  return new PyTuple([text.slice(0, at), separator, text.slice(at + separator.length)]);
}

export function replaceText(text: string, from: string, to: string, count: number): string {
  checkText(text.length + countParts(text, from) * to.length);
  if (count < 0)
    return from === '' ? to + Array.from(text, (character) => character + to).join('') : text.split(from).join(to);
  const parts = from === '' ? ['', ...Array.from(text), ''] : text.split(from);
  let result = parts[0] ?? '';
  for (const [index, part] of parts.slice(1).entries()) result += (index < count ? to : from) + part;
  return result;
}

function joinTexts(separator: string, items: Value): string {
  const texts = iterate(items).map((item, index) => {
    const text = asText(item);
    if (text === null) {
      throw new TemplateError(`sequence item ${index}: expected str instance, ${typeOf(item)} found`);
    }
    return text;
  });
  return joinBounded(texts, separator);
}

/** Texts with a separator between, unless that would be too long. */
export function joinBounded(texts: readonly string[], separator: string): string {
  checkText(texts.reduce((length, text) => length + text.length + separator.length, 0));
  return texts.join(separator);
}

/** A UTF-16 position as one in code points. */
function position(text: string, at: number): number {
  return at < 0 ? -1 : Array.from(text.slice(0, at)).length;
}

function found(at: number): number {
  if (at < 0) throw new TemplateError('substring not found');
  return at;
}

function countParts(text: string, part: string): number {
  return part === '' ? Array.from(text).length + 1 : text.split(part).length - 1;
}

function zeroFill(text: string, width: number): string {
  checkText(width);
  const sign = /^[-+]/.exec(text)?.[0] ?? '';
  return sign + text.slice(sign.length).padStart(width - sign.length, '0');
}

function fill(text: string, args: CallArguments): string {
  checkText(args.integer(0, 'width'));
  return args.text(1, 'fillchar', ' ').repeat(Math.max(0, args.integer(0, 'width') - Array.from(text).length));
}

export function center(text: string, width: number, filler = ' '): string {
  checkText(width);
  const room = Math.max(0, width - Array.from(text).length);
  const left = Math.floor(room / 2) + (room & width & 1);
  return filler.repeat(left) + text + filler.repeat(room - left);
}
