import { closeSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { KvasirError } from '@kvasir/domain';

export interface TensorPlan {
  readonly name: string;
  readonly dtype: 'F32' | 'I64';
  readonly shape: readonly number[];
}

const DTYPE_BYTES = { F32: 4, I64: 8 } as const;

/**
 * Writes a safetensors file whose tensors arrive piece by piece in the order they were announced, so a tensor larger
 * than memory can be written. The file appears under its name when it is complete.
 * Source: the safetensors format (8-byte header length, JSON header, data).
 */
export class SafetensorsWriter {
  readonly #path: string;
  readonly #temporary: string;
  readonly #totalBytes: number;
  readonly #file: number;
  #writtenBytes = 0;

  /** @throws KvasirError `file-unreadable` when the file cannot be created */
  constructor(path: string, tensors: readonly TensorPlan[]) {
    this.#path = path;
    this.#temporary = `${path}.incomplete`;
    let offset = 0;
    const entries = tensors.map(({ name, dtype, shape }) => {
      const begin = offset;
      offset += shape.reduce((product, extent) => product * extent, DTYPE_BYTES[dtype]);
      return [name, { dtype, shape, data_offsets: [begin, offset] }] as const;
    });
    this.#totalBytes = offset;
    const json = JSON.stringify(Object.fromEntries(entries));
    // Data starts at a multiple of 8, as readers that map the file like it.
    const header = Buffer.from(json.padEnd(Math.ceil(Buffer.byteLength(json) / 8) * 8));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    try {
      this.#file = openSync(this.#temporary, 'w');
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
      throw new KvasirError('file-unreadable', `${path}: expected to create it, found ${code}`, { cause });
    }
    this.#write(Buffer.concat([length, header]));
  }

  /** Appends elements, row-major. Written before it returns: the caller may reuse the array. */
  append(values: Float32Array | BigInt64Array): void {
    this.#writtenBytes += values.byteLength;
    this.#write(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }

  /** @throws KvasirError `invariant-broken` when less or more was appended than announced */
  finish(): void {
    closeSync(this.#file);
    if (this.#writtenBytes !== this.#totalBytes) {
      rmSync(this.#temporary, { force: true });
      throw new KvasirError(
        'invariant-broken',
        `${this.#path}: expected ${this.#totalBytes} bytes of tensors, found ${this.#writtenBytes}`,
      );
    }
    renameSync(this.#temporary, this.#path);
  }

  /** Takes back what was written. */
  abandon(): void {
    closeSync(this.#file);
    rmSync(this.#temporary, { force: true });
  }

  #write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) done += writeSync(this.#file, bytes, done);
  }
}
