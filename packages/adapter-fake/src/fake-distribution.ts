import { mix } from './fake-kv-pool.ts';

/** (V) logits of a context's hash, spread over 0 … 8. */
export function fakeLogits(contextHash: number, vocabularySize: number): Float32Array {
  const logits = new Float32Array(vocabularySize);
  for (let tokenId = 0; tokenId < vocabularySize; tokenId++) {
    logits[tokenId] = ((mix(contextHash ^ Math.imul(tokenId + 1, 0x165667b1)) >>> 0) / 2 ** 32) * 8;
  }
  return logits;
}

/** Natural log of the softmax. */
export function logSoftmax(logits: Float32Array): Float64Array {
  const highest = logits.reduce((most, logit) => Math.max(most, logit), Number.NEGATIVE_INFINITY);
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - highest), 0);
  return Float64Array.from(logits, (logit) => logit - highest - Math.log(sum));
}

/** FNV-1a over the logits' bits. */
export function hashBits(logits: Float32Array): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const word of new Uint32Array(logits.buffer, logits.byteOffset, logits.length)) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(word)) * 0x100000001b3n);
  }
  return hash;
}
