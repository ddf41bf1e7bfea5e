import { checkText } from './limits.ts';
import { floatText, toRepr, toText } from './python-text.ts';
import { PyFloat, PyTuple, TemplateError, type Value, asNumber } from './values.ts';

const DIRECTIVE = /%(?:\((\w+)\))?([-+ 0#]*)(\d+)?(?:\.(\d+))?([%a-zA-Z])/g;

/** Python's `format % values` with the conversions templates use: s, r, d, i, f, e, g, x, o and %%. */
export function percentFormat(format: string, values: Value): string {
  const items = values instanceof PyTuple ? values.items : [values];
  let used = 0;
  const text = format.replace(DIRECTIVE, (_, key: string | undefined, flags: string, width, precision, conversion) => {
    if (conversion === '%') return '%';
    let value: Value | undefined;
    if (key === undefined) {
      value = items[used];
      used += 1;
    } else {
      value = values instanceof Map ? values.get(key) : undefined;
    }
    if (value === undefined) throw new TemplateError('not enough arguments for format string');
    const converted = convert(value, conversion as string, precision === undefined ? null : Number(precision), flags);
    return pad(converted, Number(width ?? 0), flags);
  });
  if (used < items.length && !(values instanceof Map)) {
    throw new TemplateError('not all arguments converted during string formatting');
  }
  return text;
}

function convert(value: Value, conversion: string, precision: number | null, flags: string): string {
  if (conversion === 's' || conversion === 'r') {
    const text = conversion === 's' ? toText(value) : toRepr(value);
    return precision === null ? text : Array.from(text).slice(0, precision).join('');
  }
  const number = asNumber(value);
  if (number === null) throw new TemplateError(`%${conversion} format: a real number is required`);
  const text = formatNumber(number, conversion, precision, value instanceof PyFloat);
  if (text.startsWith('-')) return text;
  return flags.includes('+') ? `+${text}` : flags.includes(' ') ? ` ${text}` : text;
}

/** One number as `d`, `f`, `e`, `g`, `x` or `o` writes it. */
export function formatNumber(value: number, conversion: string, precision: number | null, isFloat: boolean): string {
  switch (conversion) {
    case 'd':
    case 'i':
    case 'u':
      return String(Math.trunc(value));
    case 'f':
    case 'F':
      return value.toFixed(precision ?? 6);
    case 'e':
      return value.toExponential(precision ?? 6).replace(/e([-+])(\d)$/, 'e$10$2');
    case 'g':
      return isFloat || precision !== null
        ? floatText(Number(value.toPrecision(precision ?? 6))).replace(/\.0$/, '')
        : String(value);
    case 'x':
      return Math.trunc(value).toString(16);
    case 'X':
      return Math.trunc(value).toString(16).toUpperCase();
    case 'o':
      return Math.trunc(value).toString(8);
    default:
      throw new TemplateError(`unsupported format character '${conversion}'`);
  }
}

function pad(text: string, width: number, flags: string): string {
  checkText(width);
  if (text.length >= width) return text;
  if (flags.includes('-')) return text.padEnd(width);
  if (!flags.includes('0')) return text.padStart(width);
  const sign = /^[-+ ]/.exec(text)?.[0] ?? '';
  return sign + text.slice(sign.length).padStart(width - sign.length, '0');
}
