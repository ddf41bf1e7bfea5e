import { type CancellationSignal, KvasirError } from '@kvasir/domain';

/** Reads exact lengths from a stream of pieces of any length. */
export class ByteStream {
  readonly #pieces: AsyncIterator<Uint8Array>;
  readonly #signal: CancellationSignal | undefined;
  #piece: Uint8Array = new Uint8Array();
  #isEnded = false;

  constructor(stream: AsyncIterable<Uint8Array>, signal?: CancellationSignal) {
    this.#pieces = stream[Symbol.asyncIterator]();
    this.#signal = signal;
  }

  /** A copy of the next `length` bytes. @throws KvasirError `file-truncated`, `aborted` */
  async read(length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    for (let filled = 0; filled < length; ) {
      if (this.#piece.length === 0 && !(await this.#advance())) {
        throw new KvasirError('file-truncated', `agent file: expected ${length - filled} more bytes, found its end`);
      }
      const part = this.#piece.subarray(0, length - filled);
      bytes.set(part, filled);
      filled += part.length;
      this.#piece = this.#piece.subarray(part.length);
    }
    return bytes;
  }

  /** @throws KvasirError `file-corrupt` where more follows */
  async requireEnd(): Promise<void> {
    while (this.#piece.length === 0) if (!(await this.#advance())) return;
    throw new KvasirError('file-corrupt', 'agent file: expected its end after the last tensor, found more bytes');
  }

  /** Lets the stream's owner clean up; idempotent. */
  async close(): Promise<void> {
    if (this.#isEnded) return;
    this.#isEnded = true;
    await this.#pieces.return?.();
  }

  async #advance(): Promise<boolean> {
    if (this.#signal?.aborted === true) {
      throw new KvasirError('aborted', 'agent file: expected its sender to stay, found it gone');
    }
    const { done, value } = await this.#pieces.next();
    if (done === true) {
      this.#isEnded = true;
      return false;
    }
    this.#piece = value as Uint8Array;
    return true;
  }
}
