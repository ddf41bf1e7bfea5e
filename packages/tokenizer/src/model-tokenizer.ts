import {
  KvasirError,
  type CancellationSignal,
  type Detokenizer,
  type EncodeOptions,
  type PromptSegment,
  type TokenizerInfo,
} from '@kvasir/domain';
import { createDetokenizer, type TokenTexts } from './decode/detokenizer.ts';
import { FragmentEncoder } from './encode/fragment-encoder.ts';
import { FragmentCache } from './encode/fragment-cache.ts';
import type { EncodeRequest, EncodeResult } from './encode/encode-worker.ts';
import { SpecialSplitter, type Fragment, type TextFragment, type TrustedRange } from './encode/special-splitter.ts';
import { TOKEN_KINDS, type TokenizerModel } from './model/tokenizer-model.ts';
import type {
  DetokenizerOptions,
  EncodeSegmentsOptions,
  SplitOptions,
  TextTokenizer,
  TokenizerOptions,
} from './text-tokenizer.ts';
import { WorkerLane } from './worker/worker-lane.ts';

const DEFAULTS = { maxCharacters: 8 << 20, deadlineMs: 30_000, inlineCharacters: 4096, cacheBytes: 16 << 20 } as const;

/**
 * From here on even looking for special tokens would hold up the caller's thread: the worker does it, and the ids are not
 * cached, since hashing the text would, too.
 */
const LONG_TEXT_CHARACTERS = 1 << 16;

/** Largest text of the default limit, its symbols and its merges: measured at 1 MB of one letter, 110 MB. */
const WORKER_HEAP_MB = 1024;

/** The TextTokenizer over a TokenizerModel. Short texts are encoded here, long ones in a worker started on demand. */
export class ModelTokenizer implements TextTokenizer {
  readonly info: TokenizerInfo;
  readonly specialTexts: readonly string[];
  readonly #model: TokenizerModel;
  readonly #limits: Required<TokenizerOptions>;
  readonly #splitter: SpecialSplitter;
  readonly #encoder: FragmentEncoder;
  readonly #cache: FragmentCache;
  readonly #lane: WorkerLane<EncodeRequest, EncodeResult>;
  readonly #texts: TokenTexts;
  readonly #specialIds: ReadonlySet<number>;
  #isDisposed = false;

  constructor(model: TokenizerModel, options: TokenizerOptions) {
    this.#model = model;
    this.#limits = { ...DEFAULTS, ...options };
    this.info = {
      vocabularySize: model.vocabulary.size,
      bosId: model.bosId,
      eosId: model.eosId,
      stopIds: model.stopIds,
      addBos: model.prefixIds.length > 0,
      addEos: model.suffixIds.length > 0,
    };
    this.specialTexts = model.special.filter((token) => token.control).map((token) => token.text);
    this.#splitter = new SpecialSplitter(model.special);
    this.#specialIds = new Set(model.special.map((token) => token.id));
    this.#encoder = new FragmentEncoder(model);
    this.#cache = new FragmentCache(this.#limits.cacheBytes);
    this.#lane = new WorkerLane({
      module: 'encode/encode-worker',
      workerData: model,
      deadlineMs: this.#limits.deadlineMs,
      maxHeapMb: WORKER_HEAP_MB,
      task: 'text encoding',
      crashCode: 'internal',
    });
    this.#texts = {
      tokenBytes: (tokenId) => this.tokenBytes(tokenId),
      isSpecial: (tokenId) => this.#isSpecial(tokenId),
      hasSpacePrefix: model.hasSpacePrefix,
    };
  }

  async encode(text: string, options: EncodeOptions): Promise<Int32Array> {
    this.#check(text.length, options.signal);
    const trusted = options.special ? [{ start: 0, end: text.length }] : [];
    const ids = await this.#encodeText(text, trusted, options.signal);
    return options.addBosEos ? concatenate([this.#model.prefixIds, ids, this.#model.suffixIds]) : ids;
  }

  async encodeSegments(segments: readonly PromptSegment[], options: EncodeSegmentsOptions): Promise<Int32Array> {
    const text = segments.map((segment) => segment.text).join('');
    this.#check(text.length, options.signal);
    const trusted = trustedRanges(segments);
    const ids =
      text.length > LONG_TEXT_CHARACTERS
        ? await this.#encodeText(text, trusted, options.signal)
        : concatenate(await this.#encodeCached(this.#splitter.split(text, trusted), options.signal));
    return options.addBosEos ? this.#frame(ids) : ids;
  }

  async splitSegments(segments: readonly PromptSegment[], options: SplitOptions): Promise<readonly Fragment[]> {
    const text = segments.map((segment) => segment.text).join('');
    this.#check(text.length, options.signal);
    const trusted = trustedRanges(segments);
    const fragments =
      text.length > LONG_TEXT_CHARACTERS
        ? (await this.#lane.run({ kind: 'split', text, trusted }, options.signal)).fragments
        : this.#splitter.split(text, trusted);
    if (options.bosEos === 'never') return fragments;
    const { prefixIds, suffixIds } = this.#model;
    const isOnlyMissing = options.bosEos === 'missing';
    const hasPrefix = isOnlyMissing && prefixIds.every((id, index) => idOf(fragments[index]) === id);
    const hasSuffix =
      isOnlyMissing && suffixIds.every((id, index) => idOf(fragments.at(index - suffixIds.length)) === id);
    const toFragment = (id: number): Fragment => ({ id });
    return [
      ...(hasPrefix ? [] : prefixIds.map(toFragment)),
      ...fragments,
      ...(hasSuffix ? [] : suffixIds.map(toFragment)),
    ];
  }

  async encodeFragments(
    fragments: readonly Fragment[],
    signal?: CancellationSignal,
  ): Promise<readonly ArrayLike<number>[]> {
    const characters = fragments.reduce((sum, fragment) => sum + ('id' in fragment ? 0 : fragment.text.length), 0);
    this.#check(characters, signal);
    return this.#encodeCached(fragments, signal);
  }

  isSpecialId(tokenId: number): boolean {
    return this.#specialIds.has(tokenId);
  }

  tokenBytes(tokenId: number): Uint8Array {
    this.#checkId(tokenId);
    const { bytes, offsets, kinds, escapesSpaces } = this.#model.vocabulary;
    const stored = bytes.slice(offsets[tokenId], offsets[tokenId + 1]);
    return escapesSpaces && kinds[tokenId] !== TOKEN_KINDS.byte ? unescapeSpaces(stored) : stored;
  }

  createDetokenizer(options: DetokenizerOptions = {}): Detokenizer {
    return createDetokenizer(this.#texts, options);
  }

  decode(tokenIds: ArrayLike<number>, options: DetokenizerOptions = {}): string {
    const detokenizer = this.createDetokenizer(options);
    const parts: string[] = [];
    for (let index = 0; index < tokenIds.length; index += 1) parts.push(detokenizer.push(tokenIds[index] as number));
    parts.push(detokenizer.flush());
    return parts.join('');
  }

  specialId(text: string): number | null {
    return this.#model.special.find((token) => token.text === text)?.id ?? null;
  }

  dispose(): Promise<void> {
    this.#isDisposed = true;
    this.#cache.clear();
    return this.#lane.dispose();
  }

  async #encodeCached(
    fragments: readonly Fragment[],
    signal: CancellationSignal | undefined,
  ): Promise<ArrayLike<number>[]> {
    const parts: (ArrayLike<number> | null)[] = [];
    const missing: { readonly part: number; readonly key: string | null; readonly fragment: TextFragment }[] = [];
    let characters = 0;
    for (const [part, fragment] of fragments.entries()) {
      if ('id' in fragment) {
        parts.push([fragment.id]);
        continue;
      }
      const key = fragment.text.length > LONG_TEXT_CHARACTERS ? null : this.#cache.key(fragment);
      const cached = key === null ? null : this.#cache.get(key);
      parts.push(cached);
      if (cached !== null) continue;
      missing.push({ part, key, fragment });
      characters += fragment.text.length;
    }
    const encoded = await this.#encodeTexts(
      missing.map(({ fragment }) => [fragment]),
      characters,
      signal,
    );
    for (const [index, ids] of encoded.entries()) {
      const { part, key } = missing[index] as (typeof missing)[number];
      if (key !== null) this.#cache.set(key, ids);
      parts[part] = ids;
    }
    return parts.filter((part) => part !== null);
  }

  async #encodeText(
    text: string,
    trusted: readonly TrustedRange[],
    signal: CancellationSignal | undefined,
  ): Promise<Int32Array> {
    const [ids = new Int32Array(0)] =
      text.length > LONG_TEXT_CHARACTERS
        ? (await this.#lane.run({ kind: 'text', text, trusted }, signal)).ids
        : await this.#encodeTexts([this.#splitter.split(text, trusted)], text.length, signal);
    return ids;
  }

  async #encodeTexts(
    texts: readonly (readonly Fragment[])[],
    characters: number,
    signal: CancellationSignal | undefined,
  ): Promise<readonly Int32Array[]> {
    if (characters > this.#limits.inlineCharacters) {
      return (await this.#lane.run({ kind: 'fragments', texts }, signal)).ids;
    }
    return texts.map((fragments) => this.#encoder.encode(fragments));
  }

  /** Adds what the metadata asks for where the text has not written it out already. */
  #frame(ids: Int32Array): Int32Array {
    const { prefixIds, suffixIds } = this.#model;
    const hasPrefix = prefixIds.every((id, index) => ids[index] === id);
    const hasSuffix = suffixIds.every((id, index) => ids[ids.length - suffixIds.length + index] === id);
    return concatenate([hasPrefix ? [] : prefixIds, ids, hasSuffix ? [] : suffixIds]);
  }

  #isSpecial(tokenId: number): boolean {
    const kind = this.#model.vocabulary.kinds[tokenId];
    return kind === TOKEN_KINDS.control || kind === TOKEN_KINDS.unknown;
  }

  #check(characters: number, signal: CancellationSignal | undefined): void {
    if (this.#isDisposed) throw new KvasirError('disposed', 'tokenizer: expected an open one, it is disposed');
    if (signal?.aborted === true) throw new KvasirError('aborted', 'text encoding: ended by its caller');
    const { maxCharacters } = this.#limits;
    if (characters > maxCharacters) {
      throw new KvasirError(
        'request-too-large',
        `text: expected at most ${maxCharacters} UTF-16 units, found ${characters}; send less text`,
        { facts: { maxCharacters, characters } },
      );
    }
  }

  #checkId(tokenId: number): void {
    const { size } = this.#model.vocabulary;
    if (Number.isInteger(tokenId) && tokenId >= 0 && tokenId < size) return;
    throw new KvasirError('invalid-argument', `token id: expected an integer from 0 to ${size - 1}, found ${tokenId}`, {
      facts: { tokenId, vocabularySize: size },
    });
  }
}

function idOf(fragment: Fragment | undefined): number | null {
  return fragment !== undefined && 'id' in fragment ? fragment.id : null;
}

/** Adjacent special segments make one range: a token may begin in one and end in the next. */
function trustedRanges(segments: readonly PromptSegment[]): TrustedRange[] {
  const ranges: TrustedRange[] = [];
  let start = 0;
  for (const segment of segments) {
    const end = start + segment.text.length;
    const last = ranges.at(-1);
    if (segment.special && last?.end === start) ranges[ranges.length - 1] = { start: last.start, end };
    else if (segment.special) ranges.push({ start, end });
    start = end;
  }
  return ranges;
}

function concatenate(parts: readonly ArrayLike<number>[]): Int32Array {
  const ids = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let length = 0;
  for (const part of parts) {
    ids.set(part, length);
    length += part.length;
  }
  return ids;
}

/** U+2581 (E2 96 81) to a space, in place in the copy given. */
function unescapeSpaces(bytes: Uint8Array): Uint8Array {
  let length = 0;
  for (let index = 0; index < bytes.length; ) {
    if (bytes[index] === 0xe2 && bytes[index + 1] === 0x96 && bytes[index + 2] === 0x81) {
      bytes[length] = 0x20;
      index += 3;
    } else {
      bytes[length] = bytes[index] as number;
      index += 1;
    }
    length += 1;
  }
  return bytes.subarray(0, length);
}
