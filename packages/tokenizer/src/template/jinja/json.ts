import { Room } from './limits.ts';
import { floatText } from './python-text.ts';
import {
  PyFloat,
  PyTuple,
  TemplateError,
  type CallArguments,
  type PyKey,
  type Value,
  asText,
  isTrue,
  typeOf,
} from './values.ts';

interface JsonStyle {
  /** What one level of nesting is indented by; null writes one line. */
  readonly indent: string | null;
  readonly itemSeparator: string;
  readonly keySeparator: string;
  readonly escapesNonAscii: boolean;
  readonly sortsKeys: boolean;
  readonly room: Room;
}

/** Python's `json.dumps` with the arguments chat templates pass to `tojson`; non-ASCII text stays as it is by default. */
export function toJson(value: Value, args: CallArguments): string {
  const indent = indentOf(args.get(1, 'indent') ?? null);
  const separators = args.get(2, 'separators') ?? null;
  const [itemSeparator, keySeparator] =
    separators === null ? [indent === null ? ', ' : ',', ': '] : pairOfTexts(separators);
  return write(value, 0, {
    indent,
    itemSeparator,
    keySeparator,
    escapesNonAscii: isTrue(args.get(0, 'ensure_ascii') ?? false),
    sortsKeys: isTrue(args.get(3, 'sort_keys') ?? false),
    room: new Room(),
  });
}

function indentOf(value: Value): string | null {
  if (value === null) return null;
  if (typeof value === 'number') return ' '.repeat(Math.max(0, value));
  const text = asText(value);
  if (text === null)
    throw new TemplateError(`tojson: expected a number or a string to indent by, found ${typeOf(value)}`);
  return text;
}

function pairOfTexts(value: Value): readonly [string, string] {
  const items = value instanceof PyTuple ? value.items : Array.isArray(value) ? value : [];
  const [item, key] = items.map(asText);
  if (items.length !== 2 || typeof item !== 'string' || typeof key !== 'string') {
    throw new TemplateError('tojson: expected two strings as separators');
  }
  return [item, key];
}

function write(value: Value, depth: number, style: JsonStyle): string {
  style.room.take(asText(value)?.length ?? (style.indent?.length ?? 0) * depth);
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'number') return String(value);
  if (value instanceof PyFloat) return jsonFloat(value.value);
  const text = asText(value);
  if (text !== null) return writeText(text, style);
  if (Array.isArray(value) || value instanceof PyTuple) {
    const items = Array.isArray(value) ? value : value.items;
    return enclose(
      '[',
      items.map((item) => write(item, depth + 1, style)),
      ']',
      depth,
      style,
    );
  }
  if (value instanceof Map) {
    const entries = style.sortsKeys ? [...value].sort(([a], [b]) => (keyText(a) < keyText(b) ? -1 : 1)) : [...value];
    const members = entries.map(
      ([key, member]) => writeText(keyText(key), style) + style.keySeparator + write(member, depth + 1, style),
    );
    return enclose('{', members, '}', depth, style);
  }
  throw new TemplateError(`Object of type ${typeOf(value)} is not JSON serializable`);
}

function enclose(open: string, parts: readonly string[], close: string, depth: number, style: JsonStyle): string {
  if (style.indent === null || parts.length === 0) return open + parts.join(style.itemSeparator) + close;
  const outer = `\n${style.indent.repeat(depth)}`;
  const inner = outer + style.indent;
  return open + inner + parts.join(style.itemSeparator + inner) + outer + close;
}

function keyText(key: PyKey): string {
  return typeof key === 'string' ? key : String(key);
}

function jsonFloat(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? 'Infinity' : '-Infinity';
  return floatText(value);
}

function writeText(text: string, style: JsonStyle): string {
  const quoted = JSON.stringify(text);
  if (!style.escapesNonAscii) return quoted;
  return quoted.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
