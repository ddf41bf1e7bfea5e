import { KvasirError, type ErrorCode } from '@kvasir/domain';
import type { ByteSource } from '../files/byte-source.ts';

const WINDOW_BYTES = 256 * 1024;

/**
 * Reads little-endian values from a file front to back through a small window. Every read is checked against the file's
 * size first, and every failure says in which file, at which byte and in which part of it.
 */
export class GgufCursor {
  readonly path: string;
  readonly size: number;
  /** The part being read, for messages: `metadata entry 3 of 25`. */
  part = 'header';
  readonly #source: ByteSource;
  #position = 0;
  #windowStart = 0;
  #window = new Uint8Array(0);
  #view = new DataView(this.#window.buffer);

  constructor(source: ByteSource) {
    this.#source = source;
    this.path = source.path;
    this.size = source.size;
  }

  get position(): number {
    return this.#position;
  }

  get remaining(): number {
    return this.size - this.#position;
  }

  readUint8(): number {
    const at = this.#take(1);
    return this.#view.getUint8(at);
  }

  readUint32(): number {
    const at = this.#take(4);
    return this.#view.getUint32(at, true);
  }

  readUint64(): bigint {
    const at = this.#take(8);
    return this.#view.getBigUint64(at, true);
  }

  /** A 64-bit count or length that must not exceed `limit`. */
  readCount(what: string, limit: number): number {
    const at = this.#take(8);
    const value = this.#view.getUint32(at + 4, true) * 2 ** 32 + this.#view.getUint32(at, true);
    if (value > limit) throw this.corrupt(`expected ${what} of at most ${limit}, found ${value}`, 8);
    return value;
  }

  /** A view of the next bytes, valid until the next read; at most the window's size. */
  peekBytes(count: number): Uint8Array {
    const at = this.#take(count);
    return this.#window.subarray(at, at + count);
  }

  /** What the window shows from here on, valid until the next read; empty at its edge. */
  visibleBytes(): Uint8Array {
    return this.#window.subarray(Math.min(this.#position - this.#windowStart, this.#window.length));
  }

  /** Steps over bytes that `visibleBytes` showed. */
  skip(count: number): void {
    this.#position += count;
  }

  /** Reads straight into `target`, past the window. */
  readInto(target: Uint8Array): void {
    this.require(target.length);
    this.#source.read(this.#position, target);
    this.#position += target.length;
  }

  /** @throws KvasirError `file-truncated` when fewer than `count` bytes are left */
  require(count: number): void {
    if (count > this.remaining) {
      throw this.error(
        'file-truncated',
        `expected ${count} more bytes, found ${this.remaining}; the file is incomplete, download or copy it again`,
        0,
      );
    }
  }

  /** A `file-corrupt` about the value that ended `back` bytes after its start. */
  corrupt(message: string, back = 0): KvasirError {
    return this.error('file-corrupt', message, back);
  }

  error(code: ErrorCode, message: string, back: number): KvasirError {
    const offset = this.#position - back;
    return new KvasirError(code, `${this.path}: ${this.part} at byte ${offset}: ${message}`, {
      facts: { path: this.path, offset, part: this.part },
    });
  }

  /** Makes `count` bytes visible in the window and steps over them; returns where they start in it. */
  #take(count: number): number {
    this.require(count);
    if (this.#position + count > this.#windowStart + this.#window.length) {
      const length = Math.min(Math.max(count, WINDOW_BYTES), this.remaining);
      this.#window = new Uint8Array(length);
      this.#view = new DataView(this.#window.buffer);
      this.#source.read(this.#position, this.#window);
      this.#windowStart = this.#position;
    }
    const at = this.#position - this.#windowStart;
    this.#position += count;
    return at;
  }
}
