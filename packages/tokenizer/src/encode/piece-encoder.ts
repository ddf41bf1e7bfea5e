import { KvasirError } from '@kvasir/domain';
import { findMerge } from '../model/merge-table.ts';
import type { MergeTable, TokenizerModel } from '../model/tokenizer-model.ts';
import { findToken } from '../model/vocabulary.ts';
import type { IdSink } from './id-sink.ts';
import { MergeHeap, leftOf, mergeKey, orderOf } from './merge-heap.ts';
import { SymbolChain } from './symbol-chain.ts';

/**
 * Turns one piece of text, as bytes, into token ids. Cost is O(n log n) in the piece's length whatever it holds: a heap
 * of candidate merges over a linked list of symbols. Not for use by two threads at once.
 */
export class PieceEncoder {
  readonly #model: TokenizerModel;
  readonly #heap = new MergeHeap();
  readonly #chain = new SymbolChain();

  constructor(model: TokenizerModel) {
    this.#model = model;
  }

  /** Appends the ids of `piece[0, length)`. */
  encode(piece: Uint8Array, length: number, sink: IdSink): void {
    const { algorithm, vocabulary } = this.#model;
    if (length === 0) return;
    if (algorithm.kind === 'ranked' && (algorithm.wholePieceFirst || length === 1)) {
      const whole = findToken(vocabulary, piece, 0, length);
      if (whole >= 0) {
        sink.push(whole);
        return;
      }
    }
    this.#chain.reset();
    this.#heap.clear();
    if (algorithm.kind === 'ranked') {
      if (algorithm.symbols === 'bytes') this.#addBytes(piece, 0, length);
      else this.#addCharacters(piece, length, true);
      this.#mergeByRank(algorithm.merges);
    } else {
      this.#addCharacters(piece, length, false);
      this.#mergeByScore(algorithm.order, piece);
    }
    this.#emit(piece, sink);
  }

  #addBytes(piece: Uint8Array, start: number, end: number): void {
    const { byteIds } = this.#model;
    for (let index = start; index < end; index += 1) {
      this.#chain.add(byteIds[piece[index] as number] as number, index, index + 1);
    }
  }

  /** @param bytesTakePart whether the bytes of a character that is no token are symbols, or the character stays one */
  #addCharacters(piece: Uint8Array, length: number, bytesTakePart: boolean): void {
    for (let start = 0; start < length; ) {
      let end = start + 1;
      while (end < length && ((piece[end] as number) & 0xc0) === 0x80) end += 1;
      const id = findToken(this.#model.vocabulary, piece, start, end);
      if (id < 0 && bytesTakePart && this.#hasBytes(piece, start, end)) this.#addBytes(piece, start, end);
      else this.#chain.add(id, start, end);
      start = end;
    }
  }

  #hasBytes(piece: Uint8Array, start: number, end: number): boolean {
    for (let index = start; index < end; index += 1) {
      if ((this.#model.byteIds[piece[index] as number] as number) < 0) return false;
    }
    return true;
  }

  #mergeByRank(merges: MergeTable): void {
    const chain = this.#chain;
    for (let left = 0; left + 1 < chain.length; left += 1) this.#offerRanked(merges, left);
    while (this.#heap.size > 0) {
      const key = this.#heap.pop();
      const rank = orderOf(key);
      const left = leftOf(key);
      const right = chain.next[left] as number;
      // An entry is stale when either symbol has since become another one.
      if (right < 0 || chain.ends[left] === 0) continue;
      if (chain.ids[left] !== merges.left[rank] || chain.ids[right] !== merges.right[rank]) continue;
      chain.join(left, merges.merged[rank] as number);
      this.#offerRanked(merges, left);
      const before = chain.previous[left] as number;
      if (before >= 0) this.#offerRanked(merges, before);
    }
  }

  #offerRanked(merges: MergeTable, left: number): void {
    const right = this.#chain.next[left] as number;
    if (right < 0) return;
    const rank = findMerge(merges, this.#chain.ids[left] as number, this.#chain.ids[right] as number);
    if (rank >= 0) this.#heap.push(mergeKey(rank, left));
  }

  #mergeByScore(order: Int32Array, piece: Uint8Array): void {
    const chain = this.#chain;
    for (let left = 0; left + 1 < chain.length; left += 1) this.#offerScored(order, piece, left);
    while (this.#heap.size > 0) {
      const key = this.#heap.pop();
      const left = leftOf(key);
      if (chain.ends[left] === 0) continue;
      // Scores repeat, so the token is looked up again; one of the same order here is the candidate itself or its equal.
      const joined = this.#joinedToken(piece, left);
      if (joined < 0 || order[joined] !== orderOf(key)) continue;
      chain.join(left, joined);
      this.#offerScored(order, piece, left);
      const before = chain.previous[left] as number;
      if (before >= 0) this.#offerScored(order, piece, before);
    }
  }

  #offerScored(order: Int32Array, piece: Uint8Array, left: number): void {
    const joined = this.#joinedToken(piece, left);
    if (joined >= 0) this.#heap.push(mergeKey(order[joined] as number, left));
  }

  #joinedToken(piece: Uint8Array, left: number): number {
    const chain = this.#chain;
    const right = chain.next[left] as number;
    if (right < 0) return -1;
    return findToken(this.#model.vocabulary, piece, chain.starts[left] as number, chain.ends[right] as number);
  }

  #emit(piece: Uint8Array, sink: IdSink): void {
    const chain = this.#chain;
    for (let index = 0; index >= 0; index = chain.next[index] as number) {
      const id = chain.ids[index] as number;
      if (id >= 0) sink.push(id);
      else this.#emitFallback(piece, chain.starts[index] as number, chain.ends[index] as number, sink);
    }
  }

  /** Bytes where the vocabulary has them all, the unknown token otherwise. */
  #emitFallback(piece: Uint8Array, start: number, end: number, sink: IdSink): void {
    const { byteIds, unknownId } = this.#model;
    if (this.#hasBytes(piece, start, end)) {
      for (let index = start; index < end; index += 1) sink.push(byteIds[piece[index] as number] as number);
      return;
    }
    if (unknownId < 0) {
      const text = new TextDecoder().decode(piece.slice(start, end));
      throw new KvasirError(
        'invalid-argument',
        `text: expected characters of the model's vocabulary, found ${JSON.stringify(text)}, for which it has neither a ` +
          'token nor bytes nor an unknown token; leave it out or use another model',
      );
    }
    sink.push(unknownId);
  }
}
