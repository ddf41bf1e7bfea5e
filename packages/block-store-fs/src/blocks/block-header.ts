import type { BlockKey, BlockMiss, CacheIdentity, PayloadShape } from '@kvasir/domain';
import { crc32 } from 'node:zlib';
import { payloadRuns, storedPayloadBytes, storedSlots } from './payload-runs.ts';
import { SUM_DIGITS } from './payload-sum.ts';

/**
 * A block file is a safetensors file: eight bytes of length, a JSON header, tensor `tokens` (I32, [n]) and tensor `payload`
 * ([layers, components, heads, stored slots, dim]). The header is padded with spaces so that the payload begins at a
 * multiple of 4,096 bytes. `__metadata__` says what the block is and holds checksums: CRC-32 of itself first, at a fixed
 * place and counted as zeros, and of the tokens; one of `payload-sum.ts` for each run of the payload.
 */
export const FORMAT_VERSION = 'kvasir-block/2';

const ALIGNMENT = 4096;
const MAX_HEADER_BYTES = 8 << 20;
const OPENING = '{"__metadata__":{"headerCrc32":"';
const ZEROS = '00000000';
const LENGTH_BYTES = 8;

/** What a reader fetches first: header and tokens of nearly every block. */
export const FIRST_READ_BYTES = 8192;

export interface BlockHeader {
  readonly key: BlockKey;
  readonly predecessor: string | null;
  readonly identity: CacheIdentity;
  readonly numTokens: number;
  readonly shape: PayloadShape;
  readonly tokensCrc32: number;
  /** One for each run of `payloadRuns(shape, numTokens)`. */
  readonly payloadSums: readonly string[];
}

/** Length, header and padding: everything before the tokens. */
export function encodeHeader(header: BlockHeader): Uint8Array {
  const { shape, numTokens, identity } = header;
  const tokensBytes = numTokens * 4;
  const dataBytes = tokensBytes + storedPayloadBytes(shape, numTokens);
  const json = JSON.stringify({
    __metadata__: {
      headerCrc32: ZEROS,
      format: FORMAT_VERSION,
      hash: header.key.hash,
      group: String(header.key.group),
      predecessor: header.predecessor ?? '',
      modelFingerprint: identity.modelFingerprint,
      kvDType: identity.kvDType,
      layoutVersion: identity.layoutVersion,
      numericsId: identity.numericsId,
      blockTokens: String(shape.blockTokens),
      isSliceable: String(shape.isSliceable),
      tokensCrc32: hex(header.tokensCrc32),
      payloadSums: header.payloadSums.join(''),
    },
    tokens: { dtype: 'I32', shape: [numTokens], data_offsets: [0, tokensBytes] },
    payload: { dtype: shape.dtype, shape: tensorShape(shape, numTokens), data_offsets: [tokensBytes, dataBytes] },
  });
  const length = Buffer.byteLength(json);
  const padding = (ALIGNMENT - ((LENGTH_BYTES + length + tokensBytes) % ALIGNMENT)) % ALIGNMENT;
  const bytes = Buffer.alloc(LENGTH_BYTES + length + padding, ' ');
  bytes.writeBigUInt64LE(BigInt(length + padding));
  bytes.write(json, LENGTH_BYTES);
  bytes.write(hex(headerSum(bytes.subarray(LENGTH_BYTES))), LENGTH_BYTES + OPENING.length);
  return bytes;
}

/** Header bytes a file says it has, or why it is none. `fileBytes`: size of the whole file. */
export function headerLength(start: Uint8Array, fileBytes: number): number | BlockMiss {
  if (fileBytes < LENGTH_BYTES + OPENING.length || start.length < LENGTH_BYTES + OPENING.length) return 'truncated';
  const view = Buffer.from(start.buffer, start.byteOffset, start.length);
  const length = view.readBigUInt64LE();
  const isOurs = view.toString('latin1', LENGTH_BYTES, LENGTH_BYTES + OPENING.length) === OPENING;
  if (!isOurs || length > BigInt(MAX_HEADER_BYTES)) return 'foreign';
  return BigInt(fileBytes) < length + BigInt(LENGTH_BYTES) ? 'truncated' : LENGTH_BYTES + Number(length);
}

/** Reads what `encodeHeader` wrote; `bytes` is exactly that long. Every field is checked: the file may be anybody's. */
export function decodeHeader(bytes: Uint8Array): BlockHeader | BlockMiss {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset + LENGTH_BYTES, bytes.length - LENGTH_BYTES);
  const claimed = text.toString('latin1', OPENING.length, OPENING.length + ZEROS.length);
  if (claimed !== hex(headerSum(text))) return 'corrupt';
  const value = parseJson(text.toString('utf8'));
  const metadata = recordOf(value?.['__metadata__']);
  if (metadata?.['format'] !== FORMAT_VERSION) return 'foreign';
  const texts = (name: string): string => (typeof metadata[name] === 'string' ? metadata[name] : '');
  const tokens = recordOf(value?.['tokens']);
  const payload = recordOf(value?.['payload']);
  const extents = [...integers(payload?.['shape'], 5)];
  const [layers = 0, components = 0, heads = 0, slots = 0, dim = 0] = extents;
  const [numTokens = 0] = integers(tokens?.['shape'], 1);
  const dtype = payload?.['dtype'];
  if (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16' && dtype !== 'U8') return 'corrupt';
  const blockTokens = Number(texts('blockTokens'));
  const isSliceable = texts('isSliceable') === 'true';
  const shape: PayloadShape = { dtype, layers, components, heads, blockTokens, dim, isSliceable };
  const payloadSums = sumsOf(texts('payloadSums'), SUM_DIGITS);
  const [tokensSum] = sumsOf(texts('tokensCrc32'), ZEROS.length) ?? [];
  const isConsistent =
    [...extents, numTokens, blockTokens].every((extent) => Number.isSafeInteger(extent) && extent > 0) &&
    extents.length === 5 &&
    numTokens <= blockTokens &&
    slots === storedSlots(shape, numTokens) &&
    payloadSums?.length === runCount(shape, numTokens);
  if (!isConsistent || payloadSums === null || tokensSum === undefined) return 'corrupt';
  return {
    key: { hash: texts('hash'), group: Number(texts('group')) },
    predecessor: texts('predecessor') === '' ? null : texts('predecessor'),
    identity: {
      modelFingerprint: texts('modelFingerprint'),
      kvDType: texts('kvDType'),
      layoutVersion: texts('layoutVersion'),
      numericsId: texts('numericsId'),
    },
    numTokens,
    shape,
    tokensCrc32: Number.parseInt(tokensSum, 16),
    payloadSums,
  };
}

// -------------------------------------------------------------------------------------------------------------- pieces

function tensorShape(shape: PayloadShape, numTokens: number): readonly number[] {
  return [shape.layers, shape.components, shape.heads, storedSlots(shape, numTokens), shape.dim];
}

function headerSum(text: Uint8Array): number {
  const before = crc32(text.subarray(0, OPENING.length));
  return crc32(text.subarray(OPENING.length + ZEROS.length), crc32(ZEROS, before));
}

/** Bounded: a hostile shape must not make us build a list as long as it says. */
function runCount(shape: PayloadShape, numTokens: number): number {
  const stripes = shape.layers * shape.components * shape.heads;
  if (stripes > 1 << 20 || storedPayloadBytes(shape, numTokens) > 2 ** 32) return -1;
  return payloadRuns(shape, numTokens).length;
}

function hex(sum: number): string {
  return sum.toString(16).padStart(8, '0');
}

/** Sums of so many hex digits each, back to back; null for anything else. */
function sumsOf(text: string, digits: number): readonly string[] | null {
  if (text.length === 0 || text.length % digits !== 0 || !/^[0-9a-f]+$/.test(text)) return null;
  return Array.from({ length: text.length / digits }, (_, index) => text.slice(index * digits, (index + 1) * digits));
}

function parseJson(text: string): Record<string, unknown> | null {
  try {
    return recordOf(JSON.parse(text));
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function recordOf(value: unknown): Record<string, unknown> | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : null;
}

function integers(value: unknown, count: number): readonly number[] {
  return Array.isArray(value) && value.length === count && value.every(Number.isSafeInteger) ? (value as number[]) : [];
}
