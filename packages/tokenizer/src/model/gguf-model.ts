import { KvasirError } from '@kvasir/domain';
import type { GgufSource } from '../source.ts';
import { alphabetToBytes, byteToCharacter } from './byte-alphabet.ts';
import { MetadataReader } from './metadata-reader.ts';
import { buildRankedMerges } from './ranked-merges.ts';
import { preTokenizer } from './pre-tokenizers.ts';
import { sharedInt32 } from './shared-memory.ts';
import { collectStopIds, END_TEXTS } from './stop-tokens.ts';
import { type MergeAlgorithm, TOKEN_KINDS, type SpecialToken, type TokenizerModel } from './tokenizer-model.ts';
import { buildVocabulary } from './vocabulary.ts';

const ESCAPED_SPACE = '\u2581';

/** What both kinds of GGUF vocabulary share. */
interface RawVocabulary {
  readonly reader: MetadataReader;
  readonly texts: readonly string[];
  readonly kinds: ArrayLike<number>;
}

/** @throws KvasirError `unsupported-format` for other tokenizers, `file-corrupt` for contradictions */
export function ggufModel(source: GgufSource): TokenizerModel {
  const reader = new MetadataReader(source.metadata);
  const kind = reader.string('tokenizer.ggml.model');
  if (kind !== 'gpt2' && kind !== 'llama') {
    throw new KvasirError(
      'unsupported-format',
      `tokenizer.ggml.model: expected gpt2 (byte-level BPE) or llama (SentencePiece BPE), found ${kind ?? 'none'}`,
      { facts: { found: kind, supported: ['gpt2', 'llama'] } },
    );
  }
  const texts = reader.strings('tokenizer.ggml.tokens');
  if (texts === null || texts.length === 0) {
    throw new KvasirError('file-corrupt', 'metadata tokenizer.ggml.tokens: expected the vocabulary, found none');
  }
  const kinds = readKinds(reader, texts);
  return kind === 'gpt2' ? byteLevelModel({ reader, texts, kinds }) : sentencePieceModel({ reader, texts, kinds });
}

/**
 * Some converters call the token that ends a turn user-defined. In a user's text it must not become one, so it counts
 * as control.
 */
function readKinds(reader: MetadataReader, texts: readonly string[]): Uint8Array {
  const stored = reader.numbers('tokenizer.ggml.token_type') ?? new Uint8Array(texts.length).fill(TOKEN_KINDS.normal);
  expectLength('tokenizer.ggml.token_type', stored.length, texts.length);
  return Uint8Array.from(stored, (kind, id) =>
    kind === TOKEN_KINDS.userDefined && END_TEXTS.has(texts[id] as string) ? TOKEN_KINDS.control : kind,
  );
}

function byteLevelModel(raw: RawVocabulary): TokenizerModel {
  const { reader, texts, kinds } = raw;
  const { splits, wholePieceFirst, addBosDefault } = preTokenizer(reader.string('tokenizer.ggml.pre'));
  const merges = reader.strings('tokenizer.ggml.merges');
  if (merges === null) {
    throw new KvasirError('file-corrupt', 'metadata tokenizer.ggml.merges: expected the merges, found none');
  }
  const idOf = idsByText(texts, kinds);
  const byteIds = sharedInt32(256);
  for (let byte = 0; byte < 256; byte += 1) byteIds[byte] = idOf.get(byteToCharacter(byte)) ?? -1;
  const tokens = texts.map((text, id) => (isWritten(kinds[id]) ? null : alphabetToBytes(text)) ?? encodeUtf8(text));
  const algorithm: MergeAlgorithm = {
    kind: 'ranked',
    symbols: 'bytes',
    merges: buildRankedMerges(merges, idOf),
    wholePieceFirst,
  };
  return {
    vocabulary: buildVocabulary(tokens, kinds, false),
    algorithm,
    normalizers: [],
    splits,
    byteIds,
    hasSpacePrefix: false,
    ...sharedRules(raw, { addBos: addBosDefault, addEos: false }),
  };
}

function sentencePieceModel(raw: RawVocabulary): TokenizerModel {
  const { reader, texts, kinds } = raw;
  const scores = reader.numbers('tokenizer.ggml.scores');
  if (scores === null) {
    throw new KvasirError('file-corrupt', 'metadata tokenizer.ggml.scores: expected a score a token, found none');
  }
  expectLength('tokenizer.ggml.scores', scores.length, texts.length);
  const byteIds = sharedInt32(256).fill(-1);
  const tokens = texts.map((text, id) => {
    const byte = kinds[id] === TOKEN_KINDS.byte ? byteOfSpelling(text) : null;
    if (byte === null) return encodeUtf8(text);
    byteIds[byte] = id;
    return Uint8Array.of(byte);
  });
  const hasSpacePrefix = reader.boolean('tokenizer.ggml.add_space_prefix') ?? true;
  return {
    vocabulary: buildVocabulary(tokens, kinds, true),
    algorithm: { kind: 'scored', order: orderByScore(scores) },
    normalizers: [
      ...(hasSpacePrefix ? [{ kind: 'prepend', text: ' ' } as const] : []),
      { kind: 'replace', pattern: / /gu, replacement: ESCAPED_SPACE },
    ],
    splits: [],
    byteIds,
    hasSpacePrefix,
    ...sharedRules(raw, { addBos: true, addEos: false }),
  };
}

function sharedRules(raw: RawVocabulary, defaults: { readonly addBos: boolean; readonly addEos: boolean }) {
  const { reader, texts, kinds } = raw;
  const id = (name: string): number | null => reader.tokenId(`tokenizer.ggml.${name}_token_id`, texts.length);
  const bosId = id('bos');
  const eosId = id('eos');
  const unknownId = id('unknown') ?? -1;
  const addBos = reader.boolean('tokenizer.ggml.add_bos_token') ?? defaults.addBos;
  const addEos = reader.boolean('tokenizer.ggml.add_eos_token') ?? defaults.addEos;
  const stopIds = collectStopIds([eosId, id('eot'), id('eom')], texts, kinds);
  return {
    unknownId,
    bosId,
    eosId,
    prefixIds: addBos && bosId !== null ? [bosId] : [],
    suffixIds: addEos && eosId !== null ? [eosId] : [],
    stopIds,
    special: specialTokens(raw, (reader.string('general.name') ?? '').toLowerCase()),
  };
}

/**
 * GGUF does not say which special tokens swallow the white space after them. Of the families read here only Phi-3's do:
 * all but the three that frame a document.
 */
function specialTokens(raw: RawVocabulary, modelName: string): SpecialToken[] {
  const isPhi3 = modelName.includes('phi3') || modelName.includes('phi-3');
  const special: SpecialToken[] = [];
  for (const [id, text] of raw.texts.entries()) {
    const kind = raw.kinds[id];
    if (!isWritten(kind)) continue;
    const stripRight = isPhi3 && !['<unk>', '<s>', '<|endoftext|>'].includes(text);
    special.push({ id, text, control: kind !== TOKEN_KINDS.userDefined, stripLeft: false, stripRight });
  }
  return special;
}

/** Kinds whose text stands in the vocabulary as people write it, not in the byte alphabet. */
function isWritten(kind: number | undefined): boolean {
  return kind === TOKEN_KINDS.control || kind === TOKEN_KINDS.userDefined || kind === TOKEN_KINDS.unknown;
}

function idsByText(texts: readonly string[], kinds: ArrayLike<number>): Map<string, number> {
  const ids = new Map<string, number>();
  for (const [id, text] of texts.entries()) {
    if (!isWritten(kinds[id])) ids.set(text, id);
  }
  return ids;
}

/** Lower comes first; equal scores share a place, so that position decides between them. */
export function orderByScore(scores: ArrayLike<number>): Int32Array {
  const distinct = [...new Set(Array.from(scores))].sort((a, b) => b - a);
  const placeOf = new Map(distinct.map((score, place) => [score, place]));
  const order = sharedInt32(scores.length);
  for (let id = 0; id < scores.length; id += 1) order[id] = placeOf.get(scores[id] as number) ?? 0;
  return order;
}

/** `<0x0A>` is 10. */
export function byteOfSpelling(text: string): number | null {
  const match = /^<0x([0-9A-Fa-f]{2})>$/.exec(text);
  return match === null ? null : Number.parseInt(match[1] as string, 16);
}

function encodeUtf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function expectLength(key: string, found: number, expected: number): void {
  if (found === expected) return;
  throw new KvasirError('file-corrupt', `metadata ${key}: expected ${expected} entries, one a token, found ${found}`);
}
