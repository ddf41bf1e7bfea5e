import { checkText } from './limits.ts';
import { formatNumber } from './percent-format.ts';
import { toRepr, toText } from './python-text.ts';
import { type CallArguments, PyFloat, TemplateError, type Value, asNumber } from './values.ts';

const FIELD = /\{\{|\}\}|\{([^{}]*)\}/g;
const SPECIFICATION = /^(?:(.)?([<>^]))?([-+ ])?(0)?(\d+)?(,)?(?:\.(\d+))?([a-zA-Z%])?$/u;

/** How a field reads `a.b` and `a[b]`. */
export interface MemberReader {
  getAttribute(value: Value, name: string): Value;
  getItem(value: Value, key: Value): Value;
}

/** Python's `str.format`: fields by position, name and member, with the common alignments and number formats. */
export function braceFormat(format: string, args: CallArguments, members: MemberReader): string {
  let next = 0;
  return format.replace(FIELD, (whole, field: string | undefined) => {
    if (field === undefined) return whole.charAt(0);
    const [, path = '', conversion = '', specification = ''] = /^([^!:]*)(?:!([rs]))?(?::(.*))?$/s.exec(field) ?? [];
    const [, head = '', rest = ''] = /^([^.[]*)(.*)$/s.exec(path) ?? [];
    let name = head;
    if (name === '') {
      name = String(next);
      next += 1;
    }
    const value = readMembers(argument(name, args), rest, members);
    return formatField(conversion === 'r' ? toRepr(value) : value, specification);
  });
}

function argument(name: string, args: CallArguments): Value {
  const value = /^\d+$/.test(name) ? args.positional[Number(name)] : args.named.get(name);
  if (value === undefined) throw new TemplateError(`format: expected an argument for field ${name}, found none`);
  return value;
}

function readMembers(value: Value, path: string, members: MemberReader): Value {
  let current = value;
  for (const [, attribute, item = ''] of path.matchAll(/\.([^.[]+)|\[([^\]]*)\]/g)) {
    current =
      attribute === undefined
        ? members.getItem(current, /^\d+$/.test(item) ? Number(item) : item)
        : members.getAttribute(current, attribute);
  }
  return current;
}

function formatField(value: Value, specification: string): string {
  if (specification === '') return toText(value);
  const match = SPECIFICATION.exec(specification);
  if (match === null) throw new TemplateError(`format: expected a known specification, found ${specification}`);
  const [, filler, alignment, sign = '-', zero, width, comma, precision, type] = match;
  const number = typeof value === 'boolean' ? null : asNumber(value);
  const digits = precision === undefined ? null : Number(precision);
  let text = toText(value);
  if (number !== null)
    text = formatNumeric(
      number,
      type ?? (value instanceof PyFloat ? 'g' : 'd'),
      digits,
      value instanceof PyFloat,
      text,
      type === undefined && digits === null,
    );
  else if (digits !== null) text = Array.from(text).slice(0, digits).join('');
  if (comma !== undefined) text = text.replace(/^-?\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, ','));
  if (number !== null && number >= 0 && sign !== '-') text = sign + text;
  return align(
    text,
    Number(width ?? 0),
    alignment ?? (number === null ? '<' : '>'),
    filler ?? (zero === undefined ? ' ' : '0'),
  );
}

function formatNumeric(
  value: number,
  type: string,
  digits: number | null,
  isFloat: boolean,
  plain: string,
  asIs: boolean,
): string {
  if (asIs) return plain;
  if (type === '%') return `${(value * 100).toFixed(digits ?? 6)}%`;
  return formatNumber(value, type, digits, isFloat);
}

function align(text: string, width: number, alignment: string, filler: string): string {
  checkText(width);
  const room = Math.max(0, width - Array.from(text).length);
  if (alignment === '<') return text + filler.repeat(room);
  if (alignment === '>') return filler.repeat(room) + text;
  const left = Math.floor(room / 2);
  return filler.repeat(left) + text + filler.repeat(room - left);
}
