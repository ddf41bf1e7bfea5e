import type { BlockPayload, BlockRequest, CacheIdentity, PayloadShape } from '@kvasir/domain';

export const IDENTITY: CacheIdentity = {
  modelFingerprint: 'model-a',
  kvDType: 'f16',
  layoutVersion: '1',
  numericsId: 'numerics-a',
};

/** 2 layers, 2 heads, 16 tokens, 8 elements: 2,048 bytes. */
export const SHAPE: PayloadShape = {
  dtype: 'F16',
  layers: 2,
  components: 2,
  heads: 2,
  blockTokens: 16,
  dim: 8,
  isSliceable: true,
};

export function bytesOfShape(shape: PayloadShape): number {
  const elementBytes = { F32: 4, F16: 2, BF16: 2, U8: 1 }[shape.dtype];
  return shape.layers * shape.components * shape.heads * shape.blockTokens * shape.dim * elementBytes;
}

/** A 64-digit hash made from a small number; neighbours land in different folders. */
export function hashOf(seed: number): string {
  return Math.imul(seed + 1, 0x9e3779b1)
    .toString(16)
    .replace('-', '')
    .padStart(8, '0')
    .repeat(8)
    .slice(0, 64);
}

/** Deterministic; every block differs in tokens and in every byte range of its payload. */
export function blockOf(
  seed: number,
  options: { readonly numTokens?: number; readonly shape?: PayloadShape; readonly isShared?: boolean } = {},
): BlockPayload {
  const { shape = SHAPE, numTokens = shape.blockTokens, isShared = true } = options;
  const length = bytesOfShape(shape);
  const payload = isShared ? new Uint8Array(new SharedArrayBuffer(length)) : new Uint8Array(length);
  let state = seed + 1;
  for (let index = 0; index < length; index++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    payload[index] = state >>> 24;
  }
  return {
    key: { hash: hashOf(seed), group: 0 },
    identity: IDENTITY,
    predecessor: seed === 0 ? null : hashOf(seed - 1),
    tokenIds: Int32Array.from({ length: numTokens }, (_, index) => seed * 1000 + index),
    shape,
    payload,
  };
}

export function requestOf(block: BlockPayload, isShared = true): BlockRequest {
  const { key, identity, tokenIds, shape, payload } = block;
  const into = isShared ? new Uint8Array(new SharedArrayBuffer(payload.length)) : new Uint8Array(payload.length);
  return { key, identity, tokenIds, shape, into };
}

/** The slots of each head that belong to the block's tokens, back to back. */
export function leadingSlots(bytes: Uint8Array, shape: PayloadShape, numTokens: number): Uint8Array {
  const stripes = shape.layers * shape.components * shape.heads;
  const stride = bytes.length / stripes;
  const length = (stride / shape.blockTokens) * numTokens;
  const parts = Array.from({ length: stripes }, (_, index) => bytes.slice(index * stride, index * stride + length));
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** Every item of every page. */
export async function allOf<Item>(pages: AsyncIterable<readonly Item[]>): Promise<readonly Item[]> {
  const items: Item[] = [];
  for await (const page of pages) items.push(...page);
  return items;
}
