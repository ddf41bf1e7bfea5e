import {
  type AgentManifest,
  type AgentTurn,
  type CacheIdentity,
  KvasirError,
  type MemoryBlockListing,
  type PayloadShape,
} from '@kvasir/domain';

/** CRC-32 of `bytes`, going on from the sum of what came before; 0 to begin. */
export type Checksum = (bytes: Uint8Array, before: number) => number;

/** What an exported agent says of itself (ADR-0011). */
export interface PortableAgent {
  readonly name: string;
  readonly createdAtMs: number;
  readonly identity: CacheIdentity;
  readonly numTokens: number;
  readonly turns: readonly AgentTurn[];
  readonly blocks: readonly PortableBlock[];
}

export interface PortableBlock {
  readonly group: number;
  readonly hash: string;
  readonly startToken: number;
  readonly numTokens: number;
  readonly shape: PayloadShape;
}

/** A tensor and its seal: U32 (2) of whether it is there, and the CRC-32 of its bytes. */
export const SEAL_BYTES = 8;
export const FORMAT = 'kvasir-agent';
export const FORMAT_VERSION = '1';

/** Bounds on what an import allocates before it has checked anything. */
export const MAX_HEADER_BYTES = 32 * 2 ** 20;
export const MAX_BLOCK_BYTES = 2 ** 30;
export const MAX_BLOCKS = 100_000;

const ELEMENT_BYTES = { F32: 4, F16: 2, BF16: 2, U8: 1 } as const;

export function payloadBytes(shape: PayloadShape): number {
  const { layers, components, heads, blockTokens, dim } = shape;
  return layers * components * heads * blockTokens * dim * ELEMENT_BYTES[shape.dtype];
}

interface Tensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

/** The length prefix and header of the file, padded to whole eights. @throws KvasirError `request-too-large` */
export function encodeHeader(manifest: AgentManifest, listings: readonly MemoryBlockListing[]): Uint8Array {
  const agent: PortableAgent = {
    name: manifest.name,
    createdAtMs: manifest.createdAtMs,
    identity: manifest.identity,
    numTokens: manifest.tokenIds.length,
    turns: manifest.turns,
    blocks: listings.map(({ key, startToken, numTokens, shape }) => ({ ...key, startToken, numTokens, shape })),
  };
  const text = JSON.stringify({
    __metadata__: { format: FORMAT, version: FORMAT_VERSION, agent: JSON.stringify(agent) },
    ...tensorsOf(agent),
  });
  const body = utf8(text);
  const padded = Math.ceil(body.length / 8) * 8;
  if (padded > MAX_HEADER_BYTES) {
    throw new KvasirError(
      'request-too-large',
      `export: expected the agent's turns to take at most ${MAX_HEADER_BYTES} bytes, found ${padded}`,
    );
  }
  const bytes = new Uint8Array(8 + padded).fill(0x20, 8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(body, 8);
  return bytes;
}

/** Every tensor the file has, in the order of its bytes. */
export function tensorsOf(agent: PortableAgent): Record<string, Tensor> {
  const tensors: Record<string, Tensor> = {};
  let end = 0;
  const add = (name: string, dtype: string, shape: readonly number[], bytes: number): void => {
    tensors[name] = { dtype, shape, data_offsets: [end, end + bytes] };
    end += bytes;
  };
  add('seal', 'U32', [2], SEAL_BYTES);
  add('tokens', 'I32', [agent.numTokens], agent.numTokens * 4);
  for (const { group, startToken, shape } of agent.blocks) {
    const name = `block.${group}.${startToken}`;
    const { layers, components, heads, blockTokens, dim } = shape;
    add(name, shape.dtype, [layers, components, heads, blockTokens, dim], payloadBytes(shape));
    add(`${name}.seal`, 'U32', [2], SEAL_BYTES);
  }
  return tensors;
}

export function encodeSeal(first: number, second: number): Uint8Array {
  const bytes = new Uint8Array(SEAL_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, first, true);
  view.setUint32(4, second, true);
  return bytes;
}

export function decodeSeal(bytes: Uint8Array): readonly [number, number] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return [view.getUint32(0, true), view.getUint32(4, true)];
}

/** (n) little-endian, whatever this machine's order is. */
export function encodeTokens(tokenIds: Int32Array): Uint8Array {
  const bytes = new Uint8Array(tokenIds.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [index, id] of tokenIds.entries()) view.setInt32(index * 4, id, true);
  return bytes;
}

export function decodeTokens(bytes: Uint8Array): Int32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Int32Array.from({ length: bytes.length / 4 }, (_, index) => view.getInt32(index * 4, true));
}

/** The engine knows no platform, so text is spelled out here: UTF-8, lone surrogates as U+FFFD. */
export function utf8(text: string): Uint8Array {
  // JSON.stringify has already escaped lone surrogates; everything beyond ASCII becomes an escape too.
  const ascii = text.replaceAll(/[\u0080-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
  const bytes = new Uint8Array(ascii.length);
  for (let index = 0; index < ascii.length; index += 1) bytes[index] = ascii.charCodeAt(index);
  return bytes;
}
