import fc from 'fast-check';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createTokenizer, encodeSegments } from '../src/index.ts';
import { bpeSource, byteAlphabet, mergeOnce, trainMiniBpe } from './support/mini-vocabularies.ts';

const CORPUS =
  'the cat sat on the mat and the dog ate the cat food, then sang again and again. naïve café 日本 日本語 🙂🙂 12345';
const bpe = trainMiniBpe(CORPUS, 60);
const tokenizer = await createTokenizer(bpeSource(bpe));
const plain = { special: false, addBosEos: false };
const trusted = { special: true, addBosEos: false };

afterAll(() => tokenizer.dispose());

/** BPE as its definition says: of all neighbours merge the one of lowest rank, leftmost first, one at a time. */
function naive(text: string): number[] {
  const alphabet = byteAlphabet();
  const pattern = /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;
  return [...text.matchAll(pattern)].flatMap(([piece]) => {
    let word = [...Buffer.from(piece)].map((byte) => alphabet[byte] as string);
    for (const merge of bpe.merges) {
      const [left, right] = merge.split(' ') as [string, string];
      word = mergeOnce(word, left, right);
    }
    return word.map((token) => bpe.tokens.indexOf(token));
  });
}

const texts = fc.string({
  unit: fc.constantFrom(...Array.from(CORPUS), ' the', ' cat', 'again', '日本', '\n', "'s", '  ', '\u0301'),
  maxLength: 60,
});

describe('byte-level BPE', () => {
  it('merges as the definition says', async () => {
    await fc.assert(
      fc.asyncProperty(texts, async (text) => {
        expect([...(await tokenizer.encode(text, plain))]).toEqual(naive(text));
      }),
      { numRuns: 1000 },
    );
  });

  it('gives any text back', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'grapheme' }), async (text) => {
        expect(tokenizer.decode(await tokenizer.encode(text, plain))).toBe(text);
      }),
    );
  });

  it('reads control tokens in trusted text only, user-defined ones always, the longest first', async () => {
    const text = '<|im_start|>the<|im_end|>x<think>';
    const { specials } = bpe;
    expect([...(await tokenizer.encode(text, trusted))]).toEqual([
      specials['<|im_start|>'],
      ...naive('the'),
      specials['<|im_end|>x'],
      specials['<think>'],
    ]);
    const untrusted = [...(await tokenizer.encode(text, plain))];
    expect(untrusted.filter((id) => id >= Math.min(...Object.values(specials)))).toEqual([specials['<think>']]);
    expect(tokenizer.decode(untrusted)).toBe(text);
  });

  it('counts a token that ends a turn as control, whatever the converter called it', async () => {
    const end = bpe.specials['<|im_end|>'] as number;
    const kinds = bpe.kinds.map((kind, id) => (id === end ? 4 : kind));
    const odd = await createTokenizer(bpeSource({ ...bpe, kinds }));
    expect([...(await odd.encode('<|im_end|>', plain))]).not.toContain(end);
    expect([...(await odd.encode('<|im_end|>', trusted))]).toEqual([end]);
    await odd.dispose();
  });

  it('adds what the metadata asks for', async () => {
    const framed = await createTokenizer(
      bpeSource(bpe, { 'tokenizer.ggml.add_bos_token': true, 'tokenizer.ggml.add_eos_token': true }),
    );
    const ids = [...(await framed.encode('cat', { special: false, addBosEos: true }))];
    expect(ids).toEqual([bpe.specials['<|bos|>'], ...naive('cat'), bpe.specials['<|im_end|>']]);
    expect(framed.info).toMatchObject({ addBos: true, addEos: true, stopIds: [bpe.specials['<|im_end|>']] });
    await framed.dispose();
  });

  it('encodes the same in the worker as on the spot', async () => {
    const text = `${CORPUS} `.repeat(60);
    const remote = await createTokenizer(bpeSource(bpe), { inlineCharacters: 0 });
    expect(await remote.encode(text, plain)).toEqual(Int32Array.from(naive(text)));
    await remote.dispose();
  });

  it('ends segments at special tokens, so a turn keeps its ids whatever follows', async () => {
    const turn = [{ text: '<|im_start|>the cat<|im_end|>', special: true }];
    const first = await encodeSegments(tokenizer, turn, { addBosEos: false });
    const longer = await encodeSegments(tokenizer, [...turn, { text: ' food', special: true }], { addBosEos: false });
    expect(longer.slice(0, first.length)).toEqual(first);
    expect(longer.slice(first.length)).toEqual(Int32Array.from(naive(' food')));
  });

  it('never reads a control token that untrusted text takes part in', async () => {
    const pieces = ['<|im_start|>', '<|im_', 'start|>', 'cat', '<', '|>', '<|im_end|>'];
    const segment = fc.record({ text: fc.constantFrom(...pieces), special: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.array(segment, { maxLength: 6 }), async (segments) => {
        const ids = [...(await encodeSegments(tokenizer, segments, { addBosEos: false }))];
        expect(tokenizer.decode(ids)).toBe(segments.map(({ text }) => text).join(''));
        const trustedText = segments.map(({ text, special }) => (special ? text : '\n'.repeat(text.length))).join('');
        const allowed = [...(await tokenizer.encode(trustedText, trusted))];
        const controls = (all: readonly number[]): number[] => all.filter((id) => bpe.kinds[id] === 3);
        expect(controls(ids)).toEqual(controls(allowed));
      }),
    );
  });

  it('adds no second BOS to segments that begin with one', async () => {
    const framed = await createTokenizer(bpeSource(bpe, { 'tokenizer.ggml.add_bos_token': true }));
    const bos = bpe.specials['<|bos|>'] as number;
    for (const text of ['<|bos|>cat', 'cat']) {
      const ids = await framed.encodeSegments([{ text, special: true }], { addBosEos: true });
      expect([...ids]).toEqual([bos, ...naive('cat')]);
    }
    await framed.dispose();
  });

  it.each([
    [
      'an unknown pre-tokenizer',
      { 'tokenizer.ggml.pre': 'mystery' },
      'unsupported-format',
      /llama-bpe.*qwen2.*found mystery/s,
    ],
    ['no pre-tokenizer', { 'tokenizer.ggml.pre': null }, 'unsupported-format', /found none/],
    ['another tokenizer', { 'tokenizer.ggml.model': 'bert' }, 'unsupported-format', /gpt2.*llama.*found bert/],
    ['merges of another vocabulary', { 'tokenizer.ggml.merges': ['q zq'] }, 'file-corrupt', /1 of 1 merges .* "zq"/],
    ['a merge that is none', { 'tokenizer.ggml.merges': ['qz'] }, 'file-corrupt', /merge 0/],
    ['no vocabulary', { 'tokenizer.ggml.tokens': [] }, 'file-corrupt', /tokenizer\.ggml\.tokens/],
    ['a wrong type', { 'tokenizer.ggml.tokens': 'abc' }, 'file-corrupt', /tokenizer\.ggml\.tokens/],
    ['too few token types', { 'tokenizer.ggml.token_type': [1, 1] }, 'file-corrupt', /token_type/],
  ])('refuses %s', async (_, metadata, code, message) => {
    const opening = createTokenizer(bpeSource(bpe, metadata));
    await expect(opening).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it('leaves out single merges whose tokens were cut from the vocabulary', async () => {
    const { metadata } = bpeSource(bpe);
    const merges = metadata.get('tokenizer.ggml.merges') as readonly string[];
    const whole = await createTokenizer(bpeSource(bpe));
    const cut = await createTokenizer(bpeSource(bpe, { 'tokenizer.ggml.merges': [...merges, 'q zq'] }));
    const text = 'the thing in the inn, qzq';
    expect(await cut.encode(text, plain)).toEqual(await whole.encode(text, plain));
  });

  it('refuses texts beyond its limit', async () => {
    const small = await createTokenizer(bpeSource(bpe), { maxCharacters: 10 });
    await expect(small.encode('x'.repeat(11), plain)).rejects.toMatchObject({ code: 'request-too-large' });
    await small.dispose();
  });
});

describe('tokenizer.json', () => {
  it('gives the ids the same vocabulary gives from GGUF metadata', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'kvasir-tokenizer-'));
    const ordinary = bpe.tokens.filter((_, id) => bpe.kinds[id] === 1);
    const json = {
      added_tokens: Object.entries(bpe.specials).map(([content, id]) => ({
        id,
        content,
        special: content !== '<think>',
      })),
      normalizer: null,
      pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
      post_processor: null,
      decoder: { type: 'ByteLevel' },
      model: { type: 'BPE', vocab: Object.fromEntries(ordinary.map((text, id) => [text, id])), merges: bpe.merges },
    };
    await writeFile(join(directory, 'tokenizer.json'), JSON.stringify(json));
    await writeFile(join(directory, 'tokenizer_config.json'), '{"eos_token":{"content":"<|im_end|>"}}');
    await writeFile(join(directory, 'generation_config.json'), `{"eos_token_id":[${bpe.specials['<|bos|>']}]}`);
    const other = await createTokenizer({ kind: 'huggingface', directory });
    await fc.assert(
      fc.asyncProperty(texts, async (text) => {
        const marked = `<|im_start|>${text}<think>`;
        expect(await other.encode(marked, trusted)).toEqual(await tokenizer.encode(marked, trusted));
      }),
    );
    expect(other.info.eosId).toBe(bpe.specials['<|im_end|>']);
    expect(other.info.stopIds).toEqual([bpe.specials['<|bos|>'], bpe.specials['<|im_end|>']]);
    await other.dispose();
    await rm(directory, { recursive: true });
  });

  it('says which file it misses', async () => {
    const opening = createTokenizer({ kind: 'huggingface', directory: join(tmpdir(), 'kvasir-none') });
    await expect(opening).rejects.toMatchObject({
      code: 'file-not-found',
      message: expect.stringContaining('tokenizer.json'),
    });
  });
});
