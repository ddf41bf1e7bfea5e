import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { createTokenizer, type TextTokenizer } from '../src/index.ts';
import { bpeSource, miniSpm, spmSource, trainMiniBpe } from './support/mini-vocabularies.ts';

const bpe = trainMiniBpe('the cat sat on the mat and the dog ate the cat food', 40);
const spm = miniSpm(['▁hello', '▁the', '▁cat', 'hell', 'ello', '▁▁']);
const withBos = { 'tokenizer.ggml.add_bos_token': true };
const tokenizers: Record<string, TextTokenizer> = {
  bpe: await createTokenizer(bpeSource(bpe, withBos)),
  spm: await createTokenizer(spmSource(spm, withBos)),
};
afterAll(async () => {
  for (const tokenizer of Object.values(tokenizers)) await tokenizer.dispose();
});

const segments = fc.array(
  fc.record({
    text: fc
      .array(
        fc.constantFrom('the', ' cat', ' hello', '<|im_start|>', '<|bos|>', '<s>', '</s>', '<think>', '\n', '日', ' '),
      )
      .map((parts) => parts.join('')),
    special: fc.boolean(),
  }),
  { maxLength: 5 },
);

describe.each(Object.keys(tokenizers))('fragments of %s', (name) => {
  const tokenizer = tokenizers[name] as TextTokenizer;
  const idsOf = async (...given: Parameters<TextTokenizer['splitSegments']>) => {
    const parts = await tokenizer.encodeFragments(await tokenizer.splitSegments(...given));
    return parts.flatMap((part) => Array.from(part));
  };

  it('have the ids of the whole, with what the metadata asks for around them', async () => {
    await fc.assert(
      fc.asyncProperty(segments, async (given) => {
        expect(await idsOf(given, { bosEos: 'missing' })).toEqual([
          ...(await tokenizer.encodeSegments(given, { addBosEos: true })),
        ]);
        expect(await idsOf(given, { bosEos: 'never' })).toEqual([
          ...(await tokenizer.encodeSegments(given, { addBosEos: false })),
        ]);
        const text = given.map((segment) => segment.text).join('');
        expect(await idsOf([{ text, special: true }], { bosEos: 'always' })).toEqual([
          ...(await tokenizer.encode(text, { special: true, addBosEos: true })),
        ]);
      }),
      { numRuns: 300 },
    );
  });

  it('are the same where the text is long enough for the worker', async () => {
    const text = `${'the cat <|im_start|>hello '.repeat(4000)}日`;
    const given = [
      { text, special: true },
      { text: '<|im_start|></s>', special: false },
    ];
    expect(text.length).toBeGreaterThan(1 << 16);
    const whole = await tokenizer.encodeSegments(given, { addBosEos: true });
    expect(await idsOf(given, { bosEos: 'missing' })).toEqual([...whole]);
  });

  it('that go on say exactly their text, wherever it is cut', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: fc.constantFrom(...'the cat hello\n日🙂') }), fc.nat(20), async (text, at) => {
        const [before, after] = [Array.from(text).slice(0, at).join(''), Array.from(text).slice(at).join('')];
        const parts = await tokenizer.encodeFragments([
          { text: before, isFirst: false, continues: true },
          { text: after, isFirst: false, continues: true },
        ]);
        const ids = parts.flatMap((part) => Array.from(part));
        expect(tokenizer.decode(ids, { continues: true })).toBe(text);
      }),
    );
  });

  it('end when their caller leaves', async () => {
    const signal = AbortSignal.abort();
    const given = [{ text: 'the', special: true }];
    await expect(tokenizer.splitSegments(given, { bosEos: 'never', signal })).rejects.toMatchObject({
      code: 'aborted',
    });
    await expect(tokenizer.encodeFragments([{ text: 'the', isFirst: true }], signal)).rejects.toMatchObject({
      code: 'aborted',
    });
  });

  it('mark the ids that are found in text', () => {
    const marked = [...Array(tokenizer.info.vocabularySize).keys()].filter((id) => tokenizer.isSpecialId(id));
    const texts = marked.map((id) => new TextDecoder().decode(tokenizer.tokenBytes(id)));
    expect(texts).toEqual(expect.arrayContaining([...tokenizer.specialTexts]));
    expect(marked.length).toBeLessThan(10);
  });
});
