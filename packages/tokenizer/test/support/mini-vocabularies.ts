import type { GgufSource } from '../../src/source.ts';

const CONTROL = 3;
const USER_DEFINED = 4;
const BYTE = 6;
const NORMAL = 1;
const UNKNOWN = 2;

/** GPT-2's printable spelling of bytes, built here a second time so that a slip in the package's own shows. */
export function byteAlphabet(): string[] {
  const printable = [...range(33, 126), ...range(161, 172), ...range(174, 255)];
  let extra = 0;
  return range(0, 255).map((byte) => {
    if (printable.includes(byte)) return String.fromCharCode(byte);
    extra += 1;
    return String.fromCharCode(255 + extra);
  });
}

export interface MiniBpe {
  readonly tokens: readonly string[];
  readonly kinds: readonly number[];
  readonly merges: readonly string[];
  readonly specials: Readonly<Record<string, number>>;
}

/** Trains byte-pair merges on a text, most frequent pair first, and appends special tokens. */
export function trainMiniBpe(corpus: string, numMerges: number): MiniBpe {
  const alphabet = byteAlphabet();
  const tokens = [...alphabet];
  const merges: string[] = [];
  let words =
    corpus.match(/ ?\S+|\s+/g)?.map((word) => [...Buffer.from(word)].map((byte) => alphabet[byte] as string)) ?? [];
  for (let step = 0; step < numMerges; step += 1) {
    const counts = new Map<string, number>();
    for (const word of words) {
      for (let index = 0; index + 1 < word.length; index += 1) {
        const pair = `${word[index]} ${word[index + 1]}`;
        counts.set(pair, (counts.get(pair) ?? 0) + 1);
      }
    }
    const best = [...counts].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1))[0]?.[0];
    if (best === undefined) break;
    const [left, right] = best.split(' ') as [string, string];
    merges.push(best);
    if (!tokens.includes(left + right)) tokens.push(left + right);
    words = words.map((word) => mergeOnce(word, left, right));
  }
  const specials: Record<string, number> = {};
  for (const text of ['<|bos|>', '<|im_start|>', '<|im_end|>', '<|im_end|>x', '<think>']) {
    specials[text] = tokens.length;
    tokens.push(text);
  }
  const kinds = tokens.map((text) => (text in specials ? (text === '<think>' ? USER_DEFINED : CONTROL) : NORMAL));
  return { tokens, kinds, merges, specials };
}

export function mergeOnce(word: readonly string[], left: string, right: string): string[] {
  const merged: string[] = [];
  for (let index = 0; index < word.length; index += 1) {
    if (word[index] === left && word[index + 1] === right) {
      merged.push(left + right);
      index += 1;
    } else {
      merged.push(word[index] as string);
    }
  }
  return merged;
}

export function bpeSource(bpe: MiniBpe, extra: Readonly<Record<string, unknown>> = {}): GgufSource {
  return {
    kind: 'gguf',
    metadata: new Map<string, unknown>([
      ['tokenizer.ggml.model', 'gpt2'],
      ['tokenizer.ggml.pre', 'gpt-2'],
      ['tokenizer.ggml.tokens', bpe.tokens],
      ['tokenizer.ggml.token_type', Int32Array.from(bpe.kinds)],
      ['tokenizer.ggml.merges', bpe.merges],
      ['tokenizer.ggml.bos_token_id', bpe.specials['<|bos|>']],
      ['tokenizer.ggml.eos_token_id', bpe.specials['<|im_end|>']],
      ...Object.entries(extra),
    ]),
  };
}

export interface MiniSpm {
  readonly tokens: readonly string[];
  readonly scores: readonly number[];
  readonly kinds: readonly number[];
}

/** A SentencePiece vocabulary of bytes, the words given and every start of them, longer pieces scored higher or equal. */
export function miniSpm(words: readonly string[]): MiniSpm {
  const bytes = range(0, 255).map((byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const pieces = [...new Set(words.flatMap((word) => range(1, word.length).map((end) => word.slice(0, end))))];
  const characters = [...new Set(words.join(''))].filter((character) => !pieces.includes(character));
  const tokens = ['<unk>', '<s>', '</s>', ...bytes, ...pieces, ...characters];
  return {
    tokens,
    scores: tokens.map((token, id) => (id < 259 ? 0 : -((id * 7) % 13) - (token.length === 1 ? 100 : 0))),
    kinds: tokens.map((_, id) => (id === 0 ? UNKNOWN : id < 3 ? CONTROL : id < 259 ? BYTE : NORMAL)),
  };
}

export function spmSource(spm: MiniSpm, extra: Readonly<Record<string, unknown>> = {}): GgufSource {
  return {
    kind: 'gguf',
    metadata: new Map<string, unknown>([
      ['tokenizer.ggml.model', 'llama'],
      ['tokenizer.ggml.tokens', spm.tokens],
      ['tokenizer.ggml.scores', Float32Array.from(spm.scores)],
      ['tokenizer.ggml.token_type', Int32Array.from(spm.kinds)],
      ['tokenizer.ggml.bos_token_id', 1],
      ['tokenizer.ggml.eos_token_id', 2],
      ['tokenizer.ggml.unknown_token_id', 0],
      ...Object.entries(extra),
    ]),
  };
}

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}
