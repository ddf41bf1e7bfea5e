// Tokens, blocks and names that a verifier can recognise: shared by the writer and by the one who checks after it.
import { createHash } from 'node:crypto';

export const IDENTITY = { modelFingerprint: 'exp-008', kvDType: 'f16', layoutVersion: '1', numericsId: 'n' };
export const SHAPE = { dtype: 'F16', layers: 4, components: 2, heads: 2, blockTokens: 16, dim: 32, isSliceable: true };
export const PAYLOAD_BYTES = 4 * 2 * 2 * 16 * 32 * 2;

export function randomFrom(seed) {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 3266489917) >>> 0;
    return state / 2 ** 32;
  };
}

/** Every other token is the owner's mark. */
export function markOf(owner) {
  return 0x5ac30000 + owner;
}

export function tokensOf(owner, start, count) {
  return Array.from({ length: count }, (_, index) => ((start + index) % 2 === 0 ? markOf(owner) : start + index));
}

export function blockOf(owner, number, isFull) {
  const hash = createHash('sha256').update(`${owner} ${number} ${isFull}`).digest('hex');
  const random = randomFrom(owner * 1000 + number);
  const payload = new Uint8Array(new SharedArrayBuffer(PAYLOAD_BYTES));
  for (let index = 0; index < payload.length; index++) payload[index] = random() * 256;
  const tokenIds = Int32Array.from(tokensOf(owner, number * 16, isFull ? 16 : 6));
  return { key: { hash, group: 0 }, identity: IDENTITY, predecessor: null, tokenIds, shape: SHAPE, payload };
}

/** What counts of a payload: the leading slots of every head. */
export function leadingSlots(bytes, numTokens) {
  const stripe = 16 * 32 * 2;
  const parts = [];
  for (let start = 0; start < bytes.length; start += stripe) parts.push(bytes.slice(start, start + numTokens * 64));
  return Buffer.concat(parts);
}
