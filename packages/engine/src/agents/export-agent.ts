import type {
  AgentManifest,
  AgentMemory,
  CancellationSignal,
  MemoryBlock,
  MemoryBlockListing,
  PayloadShape,
} from '@kvasir/domain';
import { type Checksum, encodeHeader, encodeSeal, encodeTokens, payloadBytes } from './portable-format.ts';

/** Bytes handed out at a time: summing them keeps the thread busy for a fraction of a millisecond. */
const PIECE_BYTES = 1 << 20;

/**
 * An agent as one safetensors file (ADR-0011), block by block: what is in memory at once is one block. The header is
 * written from a list of what there is; a block that is gone when its turn comes is zeros with a seal that says so.
 */
export async function* exportAgent(
  manifest: AgentManifest,
  memory: Pick<AgentMemory, 'readBlocks'>,
  listings: readonly MemoryBlockListing[],
  checksum: Checksum,
  signal?: CancellationSignal,
): AsyncGenerator<Uint8Array> {
  const { agentId, tenant, tokenIds } = manifest;
  const portable = listings.filter(isPortable);
  const header = encodeHeader(manifest, portable);
  const tokens = encodeTokens(tokenIds);
  yield header;
  yield encodeSeal(sum(header, checksum), sum(tokens, checksum));
  yield* pieces(tokens);

  const blocks = memory.readBlocks({ agentId, tenant }, tokenIds, signal)[Symbol.asyncIterator]();
  const places = new Map(listings.map((listing, index) => [placeOf(listing.key.group, listing.startToken), index]));
  const indexOf = (block: MemoryBlock): number => places.get(placeOf(block.key.group, block.startToken)) ?? -1;
  try {
    let next: MemoryBlock | null = null;
    let isEnded = portable.length === 0;
    for (const [index, listing] of listings.entries()) {
      while (!isEnded && (next === null || indexOf(next) < index)) {
        next = await nextBlock(blocks);
        isEnded = next === null;
      }
      if (!isPortable(listing)) continue;
      if (next === null || !isSame(next, listing)) {
        yield* absent(payloadBytes(listing.shape));
        continue;
      }
      let crc = 0;
      for (const piece of pieces(withoutStrangers(next))) {
        crc = checksum(piece, crc);
        yield piece;
      }
      yield encodeSeal(1, crc);
    }
  } finally {
    await blocks.return?.();
  }
}

function placeOf(group: number, startToken: number): string {
  return `${group}.${startToken}`;
}

/**
 * Slots beyond a block's tokens may hold anything, another agent's KV too. Where they cannot be told apart the block
 * stays behind: it is computed again from its tokens.
 */
function isPortable({ shape, numTokens }: MemoryBlockListing): boolean {
  return shape.isSliceable || numTokens === shape.blockTokens;
}

function isSame(block: MemoryBlock, listing: MemoryBlockListing): boolean {
  return (
    block.key.group === listing.key.group &&
    block.startToken === listing.startToken &&
    block.tokenIds.length === listing.numTokens &&
    payloadBytes(block.shape) === payloadBytes(listing.shape)
  );
}

async function nextBlock(blocks: AsyncIterator<MemoryBlock>): Promise<MemoryBlock | null> {
  const { done, value } = await blocks.next();
  return done === true ? null : (value as MemoryBlock);
}

/** The payload with zeros in the slots that are not the block's. */
function withoutStrangers({ payload, shape, tokenIds }: MemoryBlock): Uint8Array {
  const numTokens = tokenIds.length;
  if (numTokens === shape.blockTokens) return payload;
  const clean = payload.slice();
  for (const { start, end } of emptySlots(shape, numTokens)) clean.fill(0, start, end);
  return clean;
}

function* emptySlots(shape: PayloadShape, numTokens: number): Generator<{ start: number; end: number }> {
  const stripes = shape.layers * shape.components * shape.heads;
  const stride = payloadBytes(shape) / stripes;
  const used = (stride / shape.blockTokens) * numTokens;
  for (let stripe = 0; stripe < stripes; stripe += 1) {
    yield { start: stripe * stride + used, end: (stripe + 1) * stride };
  }
}

function* absent(bytes: number): Generator<Uint8Array> {
  for (let left = bytes; left > 0; left -= PIECE_BYTES) yield new Uint8Array(Math.min(left, PIECE_BYTES));
  yield encodeSeal(0, 0);
}

function* pieces(bytes: Uint8Array): Generator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += PIECE_BYTES) yield bytes.subarray(start, start + PIECE_BYTES);
}

function sum(bytes: Uint8Array, checksum: Checksum): number {
  let crc = 0;
  for (const piece of pieces(bytes)) crc = checksum(piece, crc);
  return crc;
}
