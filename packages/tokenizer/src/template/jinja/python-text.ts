import { Room } from './limits.ts';
import { Markup, PyFloat, PyObject, PyTuple, Undefined, type Value, asText, typeOf } from './values.ts';

/** Python's `str(value)`: what `{{ value }}` prints. */
export function toText(value: Value): string {
  const text = asText(value);
  if (text !== null) return text;
  if (value instanceof Undefined) return '';
  return toRepr(value);
}

/** Python's `repr(value)`: how a value shows inside a list or dict. */
export function toRepr(value: Value, room: Room = new Room()): string {
  room.take(asText(value)?.length ?? 1);
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'number') return integerText(value);
  if (typeof value === 'string') return reprString(value);
  if (value instanceof Markup) return `Markup(${reprString(value.text)})`;
  if (value instanceof PyFloat) return floatText(value.value);
  if (Array.isArray(value)) return `[${value.map((item) => toRepr(item, room)).join(', ')}]`;
  if (value instanceof PyTuple)
    return `(${value.items.map((item) => toRepr(item, room)).join(', ')}${value.items.length === 1 ? ',' : ''})`;
  if (value instanceof Map) {
    return `{${[...value].map(([key, member]) => `${toRepr(key, room)}: ${toRepr(member, room)}`).join(', ')}}`;
  }
  if (value instanceof Undefined) return 'Undefined';
  if (value instanceof PyObject && value.isNamespace) return `<Namespace ${toRepr(new Map(value.attributes), room)}>`;
  return `<${typeOf(value)}>`;
}

/** Whole numbers beyond 2^53 arrive rounded from JSON, but print without an exponent as Python's do. */
function integerText(value: number): string {
  return Math.abs(value) < 1e21 ? String(value) : BigInt(value).toString();
}

/** Python writes an exponent from 1e16 upwards and below 1e-4, with two digits at least. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e16 || size < 1e-4)) {
    const [digits = '', exponent = ''] = value.toExponential().split('e');
    const sign = exponent.startsWith('-') ? '-' : '+';
    return `${digits}e${sign}${exponent.slice(1).padStart(2, '0')}`;
  }
  if (Object.is(value, -0)) return '-0.0';
  return Number.isInteger(value) ? `${value}.0` : String(value);
}

const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function reprString(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const body = Array.from(text, (character) => {
    if (character === quote) return `\\${quote}`;
    return ESCAPES[character] ?? (isPrintable(character) ? character : escapeCodePoint(character));
  });
  return `${quote}${body.join('')}${quote}`;
}

function isPrintable(character: string): boolean {
  return character === ' ' || !/[\p{C}\p{Z}]/u.test(character);
}

function escapeCodePoint(character: string): string {
  const code = character.codePointAt(0) as number;
  const hex = code.toString(16);
  if (code < 0x100) return `\\x${hex.padStart(2, '0')}`;
  return code < 0x10000 ? `\\u${hex.padStart(4, '0')}` : `\\U${hex.padStart(8, '0')}`;
}

/** markupsafe's escape. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll("'", '&#39;')
    .replaceAll('"', '&#34;');
}

/** Text as Markup: what is not marked yet is escaped. */
export function toMarkup(value: Value): Markup {
  return value instanceof Markup ? value : new Markup(escapeHtml(toText(value)));
}
