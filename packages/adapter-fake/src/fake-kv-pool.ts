import type { BlockCopy } from '@kvasir/domain';

/** What fresh memory holds: no token and no position a test could mean. */
const POISON = -0x5a5a5a5b;

/**
 * The KV of one layer group: for every slot the token and the position written there. What a sequence reads through its
 * block table decides its output, so a wrong, stale or foreign slot changes the answer as it would on a device.
 */
export class FakeKvPool {
  readonly blockTokens: number;
  /** (N, 2, Bk): tokens, then positions, as in a block's payload. */
  readonly #slots: Int32Array;

  constructor(numBlocks: number, blockTokens: number) {
    this.blockTokens = blockTokens;
    this.#slots = new Int32Array(numBlocks * 2 * blockTokens).fill(POISON);
  }

  write(slot: number, tokenId: number, position: number): void {
    const at = this.#place(slot);
    this.#slots[at] = tokenId;
    this.#slots[at + this.blockTokens] = position;
  }

  /** Folds one slot into a running hash of a context. */
  fold(hash: number, slot: number): number {
    const at = this.#place(slot);
    const tokenId = this.#slots[at] as number;
    const position = this.#slots[at + this.blockTokens] as number;
    return foldToken(hash, tokenId, position);
  }

  copy({ source, destination, numTokens }: BlockCopy): void {
    for (const part of [0, this.blockTokens]) {
      const from = source * 2 * this.blockTokens + part;
      this.#slots.copyWithin(destination * 2 * this.blockTokens + part, from, from + numTokens);
    }
  }

  payload(blockId: number): Uint8Array {
    const length = 2 * this.blockTokens;
    return new Uint8Array(this.#slots.buffer, blockId * length * 4, length * 4);
  }

  #place(slot: number): number {
    const blockId = Math.floor(slot / this.blockTokens);
    return slot + blockId * this.blockTokens;
  }
}

/** One more (token, position) in a running hash of a context. */
export function foldToken(hash: number, tokenId: number, position: number): number {
  return mix(hash ^ Math.imul(tokenId + 1, 0x9e3779b1) ^ Math.imul(position + 1, 0x85ebca6b));
}

/** A 32-bit finaliser: every input bit reaches every output bit. Source: the murmur3 finaliser's constants. */
export function mix(value: number): number {
  let hash = value | 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
