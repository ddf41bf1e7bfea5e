/**
 * Python's values as templates see them. An `int` is a number, a `str` a string, a `list` an array and a `dict` a Map;
 * what JavaScript lacks has a class here.
 */
export type Value =
  | string
  | number
  | boolean
  | null
  | Undefined
  | PyFloat
  | Markup
  | PyTuple
  | PyGenerator
  | PyObject
  | PyCallable
  | Value[]
  | PyDict;

export type PyDict = Map<PyKey, Value>;
export type PyKey = string | number | boolean | null;

/** What a template reports: its own `raise_exception`, or an operation Python would have refused. */
export class TemplateError extends Error {
  override readonly name = 'TemplateError';
}

/** A name or member that is not there. Prints as nothing; asking it for members is an error. */
export class Undefined {
  readonly what: string;

  constructor(what: string) {
    this.what = what;
  }
}

export class PyFloat {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/** Text marked safe: joining it with other text escapes that text as HTML, as Python's markupsafe does. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

export class PyTuple {
  readonly items: readonly Value[];

  constructor(items: readonly Value[]) {
    this.items = items;
  }
}

/** What `map`, `select` and their like give: true, without length, and empty once it was gone over. */
export class PyGenerator {
  #items: readonly Value[];

  constructor(items: readonly Value[]) {
    this.#items = items;
  }

  get length(): number {
    return this.#items.length;
  }

  take(): readonly Value[] {
    const items = this.#items;
    this.#items = [];
    return items;
  }
}

/** Something with attributes: `loop`, a namespace. */
export class PyObject {
  readonly typeName: string;
  readonly attributes: Map<string, Value>;

  constructor(typeName: string, attributes: Map<string, Value>) {
    this.typeName = typeName;
    this.attributes = attributes;
  }

  get isNamespace(): boolean {
    return this.typeName === 'Namespace';
  }
}

export class PyCallable {
  readonly name: string;
  readonly call: (args: CallArguments) => Value;

  constructor(name: string, call: (args: CallArguments) => Value) {
    this.name = name;
    this.call = call;
  }
}

/** Arguments of one call: by position first, then by name. */
export class CallArguments {
  readonly positional: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;

  constructor(positional: readonly Value[] = [], named: ReadonlyMap<string, Value> = new Map()) {
    this.positional = positional;
    this.named = named;
  }

  /** The argument at `index` or called `name`; undefined where it was not given. */
  get(index: number, name: string): Value | undefined {
    return this.positional[index] ?? (index in this.positional ? null : this.named.get(name));
  }

  text(index: number, name: string, fallback?: string): string {
    const value = this.get(index, name);
    if (value === undefined && fallback !== undefined) return fallback;
    const text = value === undefined ? null : asText(value);
    if (text === null) throw new TemplateError(`expected a string for ${name}, found ${describe(value)}`);
    return text;
  }

  integer(index: number, name: string, fallback?: number): number {
    const value = this.get(index, name);
    if (value === undefined && fallback !== undefined) return fallback;
    const number = value === undefined ? null : asNumber(value);
    if (number === null || !Number.isInteger(number)) {
      throw new TemplateError(`expected an integer for ${name}, found ${describe(value)}`);
    }
    return number;
  }

  boolean(index: number, name: string, fallback: boolean): boolean {
    const value = this.get(index, name);
    return value === undefined ? fallback : isTrue(value);
  }
}

/** The text of a `str` or Markup, null for other values. */
export function asText(value: Value): string | null {
  if (typeof value === 'string') return value;
  return value instanceof Markup ? value.text : null;
}

/** The number an `int`, `float` or `bool` is, null for other values. */
export function asNumber(value: Value): number | null {
  if (typeof value === 'number') return value;
  if (value instanceof PyFloat) return value.value;
  return typeof value === 'boolean' ? Number(value) : null;
}

export function isTrue(value: Value): boolean {
  if (value === null || value instanceof Undefined) return false;
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof PyTuple) return value.items.length > 0;
  if (value instanceof Map) return value.size > 0;
  return Boolean(asText(value) ?? asNumber(value) ?? true);
}

/** Python's name for a value's type. */
export function typeOf(value: Value): string {
  if (value === null) return 'NoneType';
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'number') return 'int';
  if (asText(value) !== null) return 'str';
  if (value instanceof PyFloat) return 'float';
  if (Array.isArray(value)) return 'list';
  if (value instanceof PyTuple) return 'tuple';
  if (value instanceof Map) return 'dict';
  if (value instanceof PyGenerator) return 'generator';
  if (value instanceof PyObject) return value.typeName;
  return value instanceof Undefined ? 'Undefined' : 'function';
}

function describe(value: Value | undefined): string {
  return value === undefined ? 'none' : typeOf(value);
}

/** What a `for` goes over: members of a list or tuple, keys of a dict, characters of a string, nothing of Undefined. */
export function iterate(value: Value): readonly Value[] {
  if (Array.isArray(value)) return value;
  if (value instanceof PyTuple) return value.items;
  if (value instanceof PyGenerator) return value.take();
  if (value instanceof Map) return [...value.keys()];
  if (value instanceof Undefined) return [];
  const text = asText(value);
  if (text !== null) return Array.from(text);
  throw new TemplateError(`'${typeOf(value)}' object is not iterable`);
}

export function lengthOf(value: Value): number {
  if (value instanceof Map) return value.size;
  const text = asText(value);
  if (text !== null) return codePoints(text);
  if (Array.isArray(value) || value instanceof PyTuple || value instanceof Undefined) return iterate(value).length;
  throw new TemplateError(`object of type '${typeOf(value)}' has no len()`);
}

function codePoints(text: string): number {
  let count = 0;
  for (let index = 0; index < text.length; index += 1) {
    const isPair = (text.charCodeAt(index) & 0xfc00) === 0xd800 && (text.charCodeAt(index + 1) & 0xfc00) === 0xdc00;
    if (isPair) index += 1;
    count += 1;
  }
  return count;
}

/** Dict keys by Python's equality: `1.0` is `1`. */
export function toKey(value: Value): PyKey {
  if (value === null || typeof value === 'boolean') return value;
  const key = asText(value) ?? asNumber(value);
  if (key === null) throw new TemplateError(`expected a string or number as a key, found ${typeOf(value)}`);
  return key;
}

/** Values of a request: JSON, whose numbers are ints where they are whole. */
export function fromJson(value: unknown): Value {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (typeof value === 'number') return Number.isInteger(value) ? value : new PyFloat(value);
  if (Array.isArray(value)) return value.map(fromJson);
  if (typeof value === 'object') {
    const entries = Object.entries(value).filter(([, member]) => member !== undefined);
    return new Map(entries.map(([key, member]): [string, Value] => [key, fromJson(member)]));
  }
  throw new TemplateError(`expected JSON values, found ${typeof value}`);
}
