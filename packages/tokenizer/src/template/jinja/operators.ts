import { percentFormat } from './percent-format.ts';
import { toMarkup, toText } from './python-text.ts';
import {
  Markup,
  PyFloat,
  PyTuple,
  TemplateError,
  Undefined,
  type Value,
  asNumber,
  asText,
  iterate,
  typeOf,
} from './values.ts';

/** Longest text or list a multiplication may make; a template has no use for more. */
const MAX_REPEATED = 1 << 24;

/** Python's binary operators except `and` and `or`, which decide before their right side is known. */
export function applyBinary(operator: string, left: Value, right: Value): Value {
  switch (operator) {
    case '==':
      return equals(left, right);
    case '!=':
      return !equals(left, right);
    case 'in':
      return contains(right, left);
    case 'not in':
      return !contains(right, left);
    case '<':
      return compare(left, right, operator) < 0;
    case '<=':
      return compare(left, right, operator) <= 0;
    case '>':
      return compare(left, right, operator) > 0;
    case '>=':
      return compare(left, right, operator) >= 0;
    case '~':
      return toText(left) + toText(right);
    default:
      return arithmetic(operator, defined(left), defined(right));
  }
}

export function equals(left: Value, right: Value): boolean {
  if (left === right) return true;
  const text = asText(left);
  if (text !== null) return text === asText(right);
  const number = asNumber(left);
  if (number !== null) return number === asNumber(right);
  if (Array.isArray(left)) return Array.isArray(right) && equalItems(left, right);
  if (left instanceof PyTuple) return right instanceof PyTuple && equalItems(left.items, right.items);
  if (left instanceof Map && right instanceof Map) {
    return (
      left.size === right.size &&
      [...left].every(([key, value]) => right.has(key) && equals(value, right.get(key) ?? null))
    );
  }
  return left instanceof Undefined && right instanceof Undefined;
}

function equalItems(left: readonly Value[], right: readonly Value[]): boolean {
  return left.length === right.length && left.every((item, index) => equals(item, right[index] as Value));
}

export function contains(container: Value, item: Value): boolean {
  const text = asText(container);
  if (text !== null) {
    const part = asText(item);
    if (part === null) {
      throw new TemplateError(`'in <string>' requires string as left operand, not ${typeOf(item)}`);
    }
    return text.includes(part);
  }
  if (container instanceof Map) {
    const key = asText(item) ?? (item === null || typeof item === 'boolean' ? item : asNumber(item));
    return container.has(key);
  }
  if (container === null || asNumber(container) !== null) {
    throw new TemplateError(`argument of type '${typeOf(container)}' is not iterable`);
  }
  return iterate(container).some((member) => equals(member, item));
}

/** Negative, zero or positive; an error where Python has no order. */
export function compare(left: Value, right: Value, operator = '<'): number {
  const leftNumber = asNumber(left);
  const rightNumber = asNumber(right);
  if (leftNumber !== null && rightNumber !== null) return leftNumber - rightNumber;
  const leftText = asText(left);
  const rightText = asText(right);
  if (leftText !== null && rightText !== null) return compareText(leftText, rightText);
  const leftItems = sequenceItems(left);
  const rightItems = sequenceItems(right);
  if (leftItems === null || rightItems === null || Array.isArray(left) !== Array.isArray(right)) {
    throw new TemplateError(
      `'${operator}' not supported between instances of '${typeOf(defined(left))}' and '${typeOf(defined(right))}'`,
    );
  }
  for (const [index, item] of leftItems.entries()) {
    const other = rightItems[index];
    if (other === undefined) return 1;
    if (!equals(item, other)) return compare(item, other, operator);
  }
  return leftItems.length - rightItems.length;
}

/** By code point, as Python compares; JavaScript compares UTF-16 units. */
function compareText(left: string, right: string): number {
  let index = 0;
  while (index < left.length && left.charCodeAt(index) === right.charCodeAt(index)) index += 1;
  if (index > 0 && /[\udc00-\udfff]/.test(left.charAt(index))) index -= 1;
  return (left.codePointAt(index) ?? -1) - (right.codePointAt(index) ?? -1);
}

function sequenceItems(value: Value): readonly Value[] | null {
  if (Array.isArray(value)) return value;
  return value instanceof PyTuple ? value.items : null;
}

function arithmetic(operator: string, left: Value, right: Value): Value {
  const a = asNumber(left);
  const b = asNumber(right);
  if (a !== null && b !== null) return numeric(operator, a, b, left instanceof PyFloat || right instanceof PyFloat);
  if (operator === '+') return add(left, right);
  if (operator === '*' && (a !== null || b !== null)) return a === null ? repeat(left, b ?? 0) : repeat(right, a);
  if (operator === '%' && asText(left) !== null) return formatted(left, right);
  return unsupported(operator, left, right);
}

function numeric(operator: string, a: number, b: number, isFloat: boolean): Value {
  const result = (value: number): Value => (isFloat ? new PyFloat(value) : value);
  if (b === 0 && (operator === '/' || operator === '//' || operator === '%')) {
    throw new TemplateError('division by zero');
  }
  switch (operator) {
    case '+':
      return result(a + b);
    case '-':
      return result(a - b);
    case '*':
      return result(a * b);
    case '/':
      return new PyFloat(a / b);
    case '//':
      return result(Math.floor(a / b));
    case '%':
      return result(a - b * Math.floor(a / b));
    case '**':
      return isFloat || b < 0 ? new PyFloat(a ** b) : a ** b;
    default:
      throw new TemplateError(`expected an operator, found ${operator}`);
  }
}

/** Markup stays Markup: what is put into it is escaped. */
function formatted(format: Value, values: Value): Value {
  if (!(format instanceof Markup)) return percentFormat(asText(format) ?? '', values);
  const escape = (value: Value): Value => (asNumber(value) === null ? toMarkup(value).text : value);
  const escaped = values instanceof PyTuple ? new PyTuple(values.items.map(escape)) : escape(values);
  return new Markup(percentFormat(format.text, escaped));
}

function add(left: Value, right: Value): Value {
  if (left instanceof Markup || right instanceof Markup) {
    if (asText(left) === null || asText(right) === null) return unsupported('+', left, right);
    return new Markup(toMarkup(left).text + toMarkup(right).text);
  }
  if (typeof left === 'string' && typeof right === 'string') return left + right;
  if (Array.isArray(left) && Array.isArray(right)) return [...left, ...right];
  if (left instanceof PyTuple && right instanceof PyTuple) return new PyTuple([...left.items, ...right.items]);
  if (asText(left) !== null) {
    throw new TemplateError(`can only concatenate str (not "${typeOf(right)}") to str`);
  }
  return unsupported('+', left, right);
}

function repeat(value: Value, count: number): Value {
  const times = Math.max(0, count);
  const text = asText(value);
  const items = sequenceItems(value);
  const length = text?.length ?? items?.length ?? 0;
  if (length * times > MAX_REPEATED) throw new TemplateError(`expected at most ${MAX_REPEATED} repeated items`);
  if (text !== null) return value instanceof Markup ? new Markup(text.repeat(times)) : text.repeat(times);
  if (items === null) return unsupported('*', value, count);
  const repeated = Array.from({ length: times }, () => items).flat();
  return value instanceof PyTuple ? new PyTuple(repeated) : repeated;
}

/** Arithmetic with what is not there is an error that names it. */
export function defined(value: Value): Value {
  if (value instanceof Undefined) throw new TemplateError(`${value.what} is undefined`);
  return value;
}

function unsupported(operator: string, left: Value, right: Value): never {
  throw new TemplateError(`unsupported operand type(s) for ${operator}: '${typeOf(left)}' and '${typeOf(right)}'`);
}
