import { hashCapacity, sharedBytes, sharedInt32, sharedUint32 } from './shared-memory.ts';
import { TOKEN_KINDS, type VocabularyTable } from './tokenizer-model.ts';

/** @param tokens bytes of each token by id */
export function buildVocabulary(
  tokens: readonly Uint8Array[],
  kinds: ArrayLike<number>,
  escapesSpaces: boolean,
): VocabularyTable {
  const size = tokens.length;
  const offsets = sharedUint32(size + 1);
  let total = 0;
  for (const [id, token] of tokens.entries()) {
    offsets[id] = total;
    total += token.length;
  }
  offsets[size] = total;
  const bytes = sharedBytes(total);
  const sharedKinds = sharedBytes(size);
  const index = sharedInt32(hashCapacity(size));
  let maxTokenBytes = 0;
  for (const [id, token] of tokens.entries()) {
    bytes.set(token, offsets[id]);
    const kind = kinds[id] as number;
    sharedKinds[id] = kind;
    if (token.length === 0 || !isIndexed(kind)) continue;
    maxTokenBytes = Math.max(maxTokenBytes, token.length);
    insert(index, hashBytes(token, 0, token.length), id);
  }
  return { size, bytes, offsets, kinds: sharedKinds, index, maxTokenBytes, escapesSpaces };
}

/** Tokens plain text can become. A byte token is reached as a byte, not by its spelling. */
function isIndexed(kind: number): boolean {
  return kind === TOKEN_KINDS.normal || kind === TOKEN_KINDS.userDefined || kind === TOKEN_KINDS.unused;
}

/** Id of the token whose bytes are `source[start, end)`, or -1. */
export function findToken(vocabulary: VocabularyTable, source: Uint8Array, start: number, end: number): number {
  const length = end - start;
  if (length > vocabulary.maxTokenBytes) return -1;
  const { bytes, offsets, index } = vocabulary;
  const mask = index.length - 1;
  for (let slot = hashBytes(source, start, end) & mask; ; slot = (slot + 1) & mask) {
    const id = (index[slot] as number) - 1;
    if (id < 0) return -1;
    const from = offsets[id] as number;
    if ((offsets[id + 1] as number) - from !== length) continue;
    let same = 0;
    while (same < length && bytes[from + same] === source[start + same]) same += 1;
    if (same === length) return id;
  }
}

function insert(index: Int32Array, hash: number, id: number): void {
  const mask = index.length - 1;
  let slot = hash & mask;
  while (index[slot] !== 0) slot = (slot + 1) & mask;
  index[slot] = id + 1;
}

/** FNV-1a, 32 bits, with a final mix so that low bits depend on every byte. */
function hashBytes(source: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let index = start; index < end; index += 1) hash = Math.imul(hash ^ (source[index] as number), 0x01000193);
  hash ^= hash >>> 15;
  return Math.imul(hash, 0x2c1b3c6d) >>> 1;
}
