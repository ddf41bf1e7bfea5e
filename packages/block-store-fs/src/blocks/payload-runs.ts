import { KvasirError, type PayloadShape } from '@kvasir/domain';

export const ELEMENT_BYTES = { F32: 4, F16: 2, BF16: 2, U8: 1 } as const;

/** Bytes under one checksum: small enough that a processor's cache still holds them when they are summed. */
const RUN_BYTES = 1 << 20;
/** A gathered read or write of more pieces than this would be split by the system. */
const RUN_PIECES = 512;

/** A part of a payload that is stored: `offset` and `bytes` in the whole payload. */
export interface PayloadPiece {
  readonly offset: number;
  readonly bytes: number;
}

/** Pieces that lie back to back in the file and share one checksum. */
export interface PayloadRun {
  readonly pieces: readonly PayloadPiece[];
  readonly bytes: number;
}

/** @throws KvasirError `invalid-argument` */
export function checkShape(shape: PayloadShape): void {
  const { layers, components, heads, blockTokens, dim } = shape;
  const extents = [layers, components, heads, blockTokens, dim];
  const bytes = ELEMENT_BYTES[shape.dtype] === undefined ? Number.NaN : payloadBytes(shape);
  if (extents.every((extent) => Number.isSafeInteger(extent) && extent > 0) && bytes <= 2 ** 32) return;
  throw new KvasirError(
    'invalid-argument',
    `payload shape: expected a known dtype and positive extents of at most 4 GiB, found ${shape.dtype} [${extents.join(', ')}]`,
  );
}

export function payloadBytes(shape: PayloadShape): number {
  const { layers, components, heads, blockTokens, dim } = shape;
  return layers * components * heads * blockTokens * dim * ELEMENT_BYTES[shape.dtype];
}

/** Slots of each head that a block of `numTokens` tokens keeps on disk. */
export function storedSlots(shape: PayloadShape, numTokens: number): number {
  return shape.isSliceable ? numTokens : shape.blockTokens;
}

export function storedPayloadBytes(shape: PayloadShape, numTokens: number): number {
  return (payloadBytes(shape) / shape.blockTokens) * storedSlots(shape, numTokens);
}

/**
 * How a payload lies in a file: the leading slots of every head, in order, cut into runs with a checksum each. A function
 * of the shape and the token count alone, and so part of the file format.
 */
export function payloadRuns(shape: PayloadShape, numTokens: number): readonly PayloadRun[] {
  const slotBytes = shape.dim * ELEMENT_BYTES[shape.dtype];
  const isWhole = storedSlots(shape, numTokens) === shape.blockTokens;
  const stripes = isWhole ? 1 : shape.layers * shape.components * shape.heads;
  const stride = payloadBytes(shape) / stripes;
  const length = isWhole ? stride : slotBytes * numTokens;
  const runs: PayloadRun[] = [];
  let pieces: PayloadPiece[] = [];
  let bytes = 0;
  const endRun = (): void => {
    if (bytes > 0) runs.push({ pieces, bytes });
    pieces = [];
    bytes = 0;
  };
  for (let stripe = 0; stripe < stripes; stripe++) {
    for (let done = 0; done < length; ) {
      const piece = { offset: stripe * stride + done, bytes: Math.min(length - done, RUN_BYTES) };
      if (bytes + piece.bytes > RUN_BYTES || pieces.length === RUN_PIECES) endRun();
      pieces.push(piece);
      bytes += piece.bytes;
      done += piece.bytes;
    }
  }
  endRun();
  return runs;
}

/** Views of a run's pieces in a payload. */
export function piecesOf(payload: Uint8Array, run: PayloadRun): readonly Uint8Array[] {
  return run.pieces.map((piece) => payload.subarray(piece.offset, piece.offset + piece.bytes));
}
