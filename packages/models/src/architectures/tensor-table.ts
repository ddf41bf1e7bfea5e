import { KvasirError, type TensorDescriptor, type TensorRole } from '@kvasir/domain';
import { SUPPORTED_DTYPES } from '../gguf/ggml-types.ts';
import type { ModelFile, StoredTensor } from '../model-file.ts';
import { STORED_LAYOUTS, isTensorDType } from '../stored-dtype.ts';

/** Rows of a fused tensor that play one role. */
export interface RowSlice {
  readonly role: TensorRole;
  readonly rows: number;
}

/**
 * Hands a file's tensors out by name, checks each against the shape the hyperparameters ask for, and in the end knows
 * whether any was left over: weights nobody uses mean that the model is not what it says.
 */
export class TensorTable {
  readonly #path: string;
  readonly #stored: ReadonlyMap<string, StoredTensor>;
  readonly #unused: Set<string>;
  readonly #taken: TensorDescriptor[] = [];

  constructor(file: ModelFile) {
    this.#path = file.path;
    this.#stored = new Map(file.tensors.map((tensor) => [tensor.name, tensor]));
    this.#unused = new Set(this.#stored.keys());
  }

  has(name: string): boolean {
    return this.#stored.has(name);
  }

  get(name: string): StoredTensor | undefined {
    return this.#stored.get(name);
  }

  /** Gives a tensor its role. */
  take(name: string, role: TensorRole, layer: number | null, shape: readonly number[]): void {
    this.takeRows(name, layer, [{ role, rows: shape[0] as number }], shape.slice(1));
  }

  /**
   * Gives the rows of one tensor, in order, to several roles: a fused tensor needs no copy.
   * @param rowShape extents after the first
   */
  takeRows(name: string, layer: number | null, slices: readonly RowSlice[], rowShape: readonly number[]): void {
    const rows = slices.reduce((sum, slice) => sum + slice.rows, 0);
    const stored = this.#expect(name, [rows, ...rowShape]);
    const { dtype } = stored;
    // A vector is read whole by elementwise kernels: only plain numbers will do.
    const isPlain = dtype === 'f32' || dtype === 'f16' || dtype === 'bf16';
    if (!isTensorDType(dtype) || (rowShape.length === 0 && !isPlain)) {
      const supported = rowShape.length === 0 ? 'F32, F16, BF16' : SUPPORTED_DTYPES;
      throw new KvasirError(
        'unsupported-format',
        `${this.#path}: tensor ${JSON.stringify(name)}: expected a dtype of ${supported}, found ${dtype.toUpperCase()}; use a model stored in one of these`,
        { facts: { path: this.#path, tensor: name, dtype } },
      );
    }
    // Kernels read floats as floats. Old writers of safetensors did not pad their headers.
    const elementBytes = isPlain ? STORED_LAYOUTS[dtype].bytes : 1;
    if (stored.offset % elementBytes !== 0) {
      throw new KvasirError(
        'unsupported-format',
        `${this.#path}: tensor ${JSON.stringify(name)}: expected ${dtype.toUpperCase()} at a multiple of ${elementBytes} bytes, found byte ${stored.offset}; save the model again with a current safetensors library`,
        { facts: { path: this.#path, tensor: name, offset: stored.offset } },
      );
    }
    const bytesPerRow = stored.byteLength / rows;
    let offset = stored.offset;
    for (const slice of slices) {
      const byteLength = slice.rows * bytesPerRow;
      const shape = [slice.rows, ...rowShape];
      this.#taken.push({ name, role: slice.role, layer, dtype, shape, file: stored.file, offset, byteLength });
      offset += byteLength;
    }
    this.#unused.delete(name);
  }

  /** Leaves out tensors that repeat what the hyperparameters say. */
  ignore(matches: (name: string) => boolean): void {
    for (const name of this.#unused) if (matches(name)) this.#unused.delete(name);
  }

  /** @throws KvasirError `unsupported-model` when tensors are left over */
  finish(): readonly TensorDescriptor[] {
    const [first] = this.#unused;
    if (first === undefined) return this.#taken;
    throw new KvasirError(
      'unsupported-model',
      `${this.#path}: expected only tensors that this architecture uses, found ${this.#unused.size} others (${JSON.stringify(first.slice(0, 120))}); the model has parts that are not supported`,
      { facts: { path: this.#path, tensor: first.slice(0, 120), tensors: this.#unused.size } },
    );
  }

  #expect(name: string, shape: readonly number[]): StoredTensor {
    const stored = this.#stored.get(name);
    const found = stored === undefined ? 'none' : `(${stored.shape.join(', ')})`;
    if (stored === undefined || found !== `(${shape.join(', ')})`) {
      throw new KvasirError(
        'file-corrupt',
        `${this.#path}: tensor ${JSON.stringify(name)}: expected shape (${shape.join(', ')}) by the hyperparameters, found ${found}`,
        { facts: { path: this.#path, tensor: name } },
      );
    }
    // The layout is checked again here because row slices rely on rows being whole blocks.
    const layout = STORED_LAYOUTS[stored.dtype];
    if ((shape.at(-1) as number) % layout.elements !== 0) {
      throw new KvasirError(
        'file-corrupt',
        `${this.#path}: tensor ${JSON.stringify(name)}: expected rows of whole blocks of ${layout.elements}, found ${shape.at(-1)}`,
        { facts: { path: this.#path, tensor: name } },
      );
    }
    return stored;
  }
}
