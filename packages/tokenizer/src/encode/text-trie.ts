export interface TextMatch<Value> {
  readonly start: number;
  readonly end: number;
  readonly value: Value;
}

interface TrieNode<Value> {
  readonly next: Map<number, TrieNode<Value>>;
  value: Value | null;
}

/** Texts with a value each, to be found in longer texts by their UTF-16 units. */
export class TextTrie<Value> {
  readonly #root: TrieNode<Value> = { next: new Map(), value: null };
  /** (65536) 1 where a unit begins an entry: most of a text is passed over by one load a unit. */
  readonly #begins = new Uint8Array(1 << 16);
  /** The unit that every entry begins with, as with special tokens: found by the search the engine has for it. */
  #onlyBegin: string | null = null;

  constructor(entries: readonly (readonly [string, Value])[]) {
    for (const [text, value] of entries) {
      if (text !== '') this.#insert(text, value);
    }
    const [unit] = this.#root.next.keys();
    if (unit !== undefined && this.#root.next.size === 1) this.#onlyBegin = String.fromCharCode(unit);
  }

  /** Next position from `start` on where an entry may begin, -1 where there is none. */
  next(text: string, start: number): number {
    if (this.#onlyBegin !== null) return text.indexOf(this.#onlyBegin, start);
    for (let position = start; position < text.length; position += 1) {
      if (this.#begins[text.charCodeAt(position)] === 1) return position;
    }
    return -1;
  }

  /** The longest entry that begins at `start` and that `accepts` takes. */
  longest(text: string, start: number, accepts: (value: Value, end: number) => boolean): TextMatch<Value> | null {
    let best: TextMatch<Value> | null = null;
    let node: TrieNode<Value> | undefined = this.#root;
    for (let end = start; end < text.length; ) {
      node = node.next.get(text.charCodeAt(end));
      if (node === undefined) break;
      end += 1;
      if (node.value !== null && accepts(node.value, end)) best = { start, end, value: node.value };
    }
    return best;
  }

  #insert(text: string, value: Value): void {
    let node = this.#root;
    for (let index = 0; index < text.length; index += 1) {
      const unit = text.charCodeAt(index);
      let next = node.next.get(unit);
      if (next === undefined) {
        next = { next: new Map(), value: null };
        node.next.set(unit, next);
      }
      node = next;
    }
    node.value = value;
    this.#begins[text.charCodeAt(0)] = 1;
  }
}
