import { createCipheriv } from 'node:crypto';

/**
 * A payload's checksum is AES-128-GMAC (NIST SP 800-38D) under a key that everybody knows: no seal against an attacker, but
 * of all that Node sums with by itself the fastest by far, because processors multiply polynomials. 16 bytes.
 */
const KEY = 'kvasir-block-sum';
const NONCE = new Uint8Array(12);

/** Hex digits of a sum. */
export const SUM_DIGITS = 32;
export const NO_SUM = '0'.repeat(SUM_DIGITS);

/** Sum of the pieces one after another. Cost: 0.15 ms a MiB. @returns 32 lower-case hex digits */
export function sumOf(pieces: readonly Uint8Array[]): string {
  const summing = createCipheriv('aes-128-gcm', KEY, NONCE);
  for (const piece of pieces) summing.setAAD(piece);
  summing.final();
  return summing.getAuthTag().toString('hex');
}
