import type { Normalizer, SplitStage, TokenizerModel } from '../model/tokenizer-model.ts';
import { IdSink } from './id-sink.ts';
import { PieceEncoder } from './piece-encoder.ts';
import type { Fragment, TextFragment } from './special-splitter.ts';

/** Longer pieces are slices that would keep the whole text they were cut from alive; V8 copies up to this length. */
const MAX_CACHED_CHARACTERS = 12;
const MAX_CACHED_PIECES = 1 << 14;

/** Text to ids on the calling thread: normalizes, cuts into pieces, merges. Holds buffers; one per thread. */
export class FragmentEncoder {
  readonly #model: TokenizerModel;
  readonly #pieces: PieceEncoder;
  readonly #utf8 = new TextEncoder();
  readonly #sink = new IdSink();
  readonly #cache = new Map<string, Int32Array>();
  #bytes = new Uint8Array(256);

  constructor(model: TokenizerModel) {
    this.#model = model;
    this.#pieces = new PieceEncoder(model);
  }

  /** Ids of the fragments of one text, in order. */
  encode(fragments: readonly Fragment[]): Int32Array {
    const sink = new IdSink();
    for (const fragment of fragments) {
      if ('id' in fragment) sink.push(fragment.id);
      else this.#encodeText(fragment, sink);
    }
    return sink.slice();
  }

  #encodeText({ text, isFirst, continues = false }: TextFragment, sink: IdSink): void {
    let normalized = text;
    for (const normalizer of this.#model.normalizers) {
      if (!continues || !isPrefixing(normalizer)) normalized = normalize(normalized, normalizer, isFirst);
    }
    this.#split(normalized, 0, sink);
  }

  #split(text: string, stageIndex: number, sink: IdSink): void {
    if (text === '') return;
    const stage = this.#model.splits[stageIndex];
    if (stage === undefined) {
      this.#encodePiece(text, sink);
      return;
    }
    forEachPiece(text, stage, (piece) => this.#split(piece, stageIndex + 1, sink));
  }

  #encodePiece(piece: string, sink: IdSink): void {
    if (piece.length > MAX_CACHED_CHARACTERS) {
      this.#merge(piece, sink);
      return;
    }
    let ids = this.#cache.get(piece);
    if (ids === undefined) {
      const from = this.#sink;
      from.clear();
      this.#merge(piece, from);
      ids = from.slice();
      if (this.#cache.size >= MAX_CACHED_PIECES) this.#cache.clear();
      this.#cache.set(piece, ids);
    }
    sink.append(ids);
  }

  #merge(piece: string, sink: IdSink): void {
    if (this.#bytes.length < piece.length * 3) this.#bytes = new Uint8Array(piece.length * 3);
    const { written } = this.#utf8.encodeInto(piece, this.#bytes);
    this.#pieces.encode(this.#bytes, written, sink);
    if (this.#bytes.length > 1 << 20) this.#bytes = new Uint8Array(256);
  }
}

function forEachPiece(text: string, stage: SplitStage, visit: (piece: string) => void): void {
  const { pattern, behavior } = stage;
  let end = 0;
  pattern.lastIndex = 0;
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
    const matched = match[0];
    if (matched === '') {
      pattern.lastIndex += 1;
      continue;
    }
    const start = match.index;
    if (start > end) visit(text.slice(end, start));
    end = start + matched.length;
    if (behavior === 'isolate') visit(matched);
  }
  if (end < text.length) visit(text.slice(end));
}

function isPrefixing({ kind }: Normalizer): boolean {
  return kind === 'prepend' || kind === 'prepend-missing';
}

function normalize(text: string, normalizer: Normalizer, isFirst: boolean): string {
  switch (normalizer.kind) {
    case 'unicode':
      return text.normalize(normalizer.form);
    case 'prepend':
      return text === '' ? text : normalizer.text + text;
    case 'replace':
      return text.replace(normalizer.pattern, () => normalizer.replacement);
    case 'prepend-missing':
      return text.startsWith(normalizer.text) || (normalizer.onlyFirst && !isFirst) ? text : normalizer.text + text;
    default:
      return normalizer satisfies never;
  }
}
