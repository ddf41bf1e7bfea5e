import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { createTokenizer } from '../src/index.ts';
import { miniSpm, spmSource } from './support/mini-vocabularies.ts';

const spm = miniSpm(['▁hello', '▁world', 'hell', 'lo▁w', '▁▁', 'orld', 'abab', 'ba', '日本', 'ello']);
const tokenizer = await createTokenizer(spmSource(spm));
const plain = { special: false, addBosEos: false };

afterAll(() => tokenizer.dispose());

/** SentencePiece's BPE as its definition says: join the neighbours whose text is the best-scored token, leftmost first. */
function naive(text: string): number[] {
  let symbols = text === '' ? [] : Array.from(` ${text}`.replaceAll(' ', '▁'));
  for (;;) {
    const joined = symbols
      .slice(1)
      .map((symbol, index) => spm.tokens.indexOf((symbols[index] as string) + symbol, 259));
    const scores = joined.map((id) => (id < 0 ? Number.NEGATIVE_INFINITY : (spm.scores[id] as number)));
    const best = Math.max(...scores);
    if (!Number.isFinite(best)) break;
    const at = scores.indexOf(best);
    symbols = [
      ...symbols.slice(0, at),
      (symbols[at] as string) + (symbols[at + 1] as string),
      ...symbols.slice(at + 2),
    ];
  }
  return symbols.flatMap((symbol) => {
    const id = spm.tokens.indexOf(symbol, 259);
    return id >= 0 ? [id] : [...Buffer.from(symbol)].map((byte) => byte + 3);
  });
}

const texts = fc.string({
  unit: fc.constantFrom(...Array.from(' helowrdab日本é🙂\n'), 'hello', ' world', 'abab'),
  maxLength: 30,
});

describe('SentencePiece BPE', () => {
  it('merges by score as the definition says, with bytes for what is no token', async () => {
    await fc.assert(
      fc.asyncProperty(texts, async (text) => {
        expect([...(await tokenizer.encode(text, plain))]).toEqual(naive(text));
      }),
      { numRuns: 1000 },
    );
  });

  it('gives any text back, at once and streamed', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'grapheme' }), async (text) => {
        // U+2581 is the spelling of a space: it comes back as one.
        const expected = text.replaceAll('\u2581', ' ');
        expect(tokenizer.decode(await tokenizer.encode(text, plain))).toBe(expected);
      }),
    );
  });

  it('puts a space before text at the start and after a special token', async () => {
    const ids = [...(await tokenizer.encode('hello</s>hello', { special: true, addBosEos: true }))];
    const hello = spm.tokens.indexOf('▁hello');
    expect(ids).toEqual([1, hello, 2, hello]);
  });

  it('puts none where the metadata says so', async () => {
    const bare = await createTokenizer(spmSource(spm, { 'tokenizer.ggml.add_space_prefix': false }));
    const ids = await bare.encode('hello', plain);
    expect(bare.decode(ids)).toBe('hello');
    expect([...ids]).not.toContain(spm.tokens.indexOf('▁hello'));
    await bare.dispose();
  });

  it('uses the unknown token where bytes are missing', async () => {
    const noBytes = { ...spm, kinds: spm.kinds.map((kind) => (kind === 6 ? 5 : kind)) };
    const unknowing = await createTokenizer(spmSource(noBytes));
    expect([...(await unknowing.encode('🙂', plain))].at(-1)).toBe(0);
    await unknowing.dispose();
  });

  it('refuses a vocabulary without scores', async () => {
    const opening = createTokenizer(spmSource(spm, { 'tokenizer.ggml.scores': null }));
    await expect(opening).rejects.toMatchObject({ code: 'file-corrupt' });
  });
});
