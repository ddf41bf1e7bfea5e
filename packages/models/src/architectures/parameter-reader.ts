import { KvasirError } from '@kvasir/domain';

/** Where a family's numbers come from: GGUF metadata or config.json. */
export interface ParameterSource {
  /** For messages. */
  readonly path: string;
  /** The value under a name as the file spells it, or undefined. */
  lookup(key: string): unknown;
}

export interface Range {
  readonly min: number;
  readonly max: number;
}

/** Ranges no real model leaves; they keep products exact and what crosses the C waist in 32 bits. */
export const LIMITS = {
  layers: { min: 1, max: 4096 },
  hidden: { min: 1, max: 2 ** 20 },
  heads: { min: 1, max: 4096 },
  headDim: { min: 2, max: 8192 },
  feedForward: { min: 1, max: 2 ** 24 },
  vocabulary: { min: 1, max: 2 ** 24 },
  context: { min: 1, max: 2 ** 28 },
  epsilon: { min: 1e-12, max: 0.1 },
  ropeBase: { min: 1, max: 1e15 },
  scalingFactor: { min: 1 / 4096, max: 1e6 },
} as const satisfies Record<string, Range>;

/** Reads hyperparameters with their ranges checked; every refusal names file and key. */
export class ParameterReader {
  readonly #source: ParameterSource;

  constructor(source: ParameterSource) {
    this.#source = source;
  }

  /** @throws KvasirError `file-corrupt` when absent, no integer, or out of range */
  count(key: string, range: Range): number {
    return this.optionalCount(key, range) ?? this.#missing(key);
  }

  optionalCount(key: string, range: Range): number | undefined {
    const value = this.#value(key);
    return value === undefined ? undefined : this.#checkCount(key, value, range);
  }

  real(key: string, range: Range): number {
    return this.optionalReal(key, range) ?? this.#missing(key);
  }

  optionalReal(key: string, range: Range): number | undefined {
    const value = this.#value(key);
    if (value === undefined) return undefined;
    if (typeof value !== 'number' || !(value >= range.min && value <= range.max)) {
      throw this.refuse(key, `a number from ${range.min} to ${range.max}`, value);
    }
    return value;
  }

  flag(key: string, whenAbsent: boolean): boolean {
    const value = this.#value(key) ?? whenAbsent;
    if (typeof value !== 'boolean') throw this.refuse(key, 'true or false', value);
    return value;
  }

  optionalText(key: string): string | undefined {
    const value = this.#value(key);
    if (value !== undefined && typeof value !== 'string') throw this.refuse(key, 'text', value);
    return value;
  }

  /** One number for all layers, or a list of one a layer. */
  optionalPerLayer(key: string, range: Range, numLayers: number): readonly number[] | undefined {
    const value = this.#value(key);
    if (value === undefined) return undefined;
    if (typeof value !== 'object') return Array<number>(numLayers).fill(this.#checkCount(key, value, range));
    const list: unknown[] =
      Array.isArray(value) || ArrayBuffer.isView(value) ? Array.from(value as ArrayLike<unknown>) : [];
    if (list.length !== numLayers) throw this.refuse(key, `a number or a list of ${numLayers}`, value);
    return list.map((item) => this.#checkCount(key, item, range));
  }

  perLayer(key: string, range: Range, numLayers: number): readonly number[] {
    return this.optionalPerLayer(key, range, numLayers) ?? this.#missing(key);
  }

  /** A `file-corrupt` about the value of one key. */
  refuse(key: string, expected: string, found: unknown): KvasirError {
    return new KvasirError('file-corrupt', `${this.#source.path}: ${key}: expected ${expected}, found ${show(found)}`, {
      facts: { path: this.#source.path, key },
    });
  }

  /** An `unsupported-model` about a feature that one key asks for. */
  unsupported(key: string, expected: string, found: unknown): KvasirError {
    return new KvasirError(
      'unsupported-model',
      `${this.#source.path}: ${key}: expected ${expected}, found ${show(found)}; this feature of the model is not supported`,
      { facts: { path: this.#source.path, key } },
    );
  }

  #value(key: string): unknown {
    return this.#source.lookup(key) ?? undefined;
  }

  #checkCount(key: string, value: unknown, range: Range): number {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < range.min || value > range.max) {
      throw this.refuse(key, `an integer from ${range.min} to ${range.max}`, value);
    }
    return value;
  }

  #missing(key: string): never {
    throw this.refuse(key, 'a value', 'none');
  }
}

function show(value: unknown): string {
  if (typeof value === 'bigint') return `${value}`;
  if (ArrayBuffer.isView(value)) return `a list of ${(value as unknown as ArrayLike<unknown>).length}`;
  return typeof value === 'number' ? `${value}` : (JSON.stringify(value) ?? 'nothing').slice(0, 120);
}
