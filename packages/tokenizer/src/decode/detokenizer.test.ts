import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createDetokenizer, type TokenTexts } from './detokenizer.ts';

/** Tokens are the byte strings given; the last one is special. */
function texts(tokens: readonly Uint8Array[], hasSpacePrefix = false): TokenTexts {
  return {
    tokenBytes: (tokenId) => tokens[tokenId] as Uint8Array,
    isSpecial: (tokenId) => tokenId === tokens.length - 1,
    hasSpacePrefix,
  };
}

function stream(tokens: readonly Uint8Array[]): string[] {
  const detokenizer = createDetokenizer(texts([...tokens, new Uint8Array(0)]));
  return [...tokens.map((_, index) => detokenizer.push(index)), detokenizer.flush()];
}

function joined(tokens: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(tokens.flatMap((token) => [...token]));
}

const whole = new TextDecoder('utf-8', { ignoreBOM: true });
const utf8 = fc.string({ unit: 'grapheme', maxLength: 6 }).map((text) => new TextEncoder().encode(text));
const raw = fc.uint8Array({ maxLength: 4 });
// Lead and continuation bytes, surrogates, overlong forms and values out of range come up often, not by luck.
const nasty = fc.array(
  fc.constantFrom(0xc2, 0xe2, 0x96, 0xf0, 0x9f, 0x80, 0xed, 0xa0, 0xc0, 0xf4, 0x90, 0xef, 0xbb, 0xbf, 0x41),
  { maxLength: 4 },
);

describe('a detokenizer', () => {
  it('gives what decoding all the bytes at once gives, whatever the bytes', () => {
    const token = fc.oneof(
      utf8,
      raw,
      nasty.map((bytes) => Uint8Array.from(bytes)),
    );
    fc.assert(
      fc.property(fc.array(token, { maxLength: 12 }), (tokens) => {
        expect(stream(tokens).join('')).toBe(whole.decode(joined(tokens)));
      }),
      { numRuns: 5000 },
    );
  });

  it('gives no half of a character that is split over tokens', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'grapheme', maxLength: 8 }),
        fc.infiniteStream(fc.integer({ min: 1, max: 3 })),
        (text, sizes) => {
          const bytes = new TextEncoder().encode(text);
          const tokens: Uint8Array[] = [];
          for (let at = 0; at < bytes.length; ) {
            const size = sizes.next().value as number;
            tokens.push(bytes.slice(at, at + size));
            at += size;
          }
          const pieces = stream(tokens);
          expect(pieces.join('')).toBe(text);
          expect(pieces.filter((piece) => /[\ufffd]|[\ud800-\udbff]$|^[\udc00-\udfff]/.test(piece))).toEqual([]);
        },
      ),
    );
  });

  it('is not blocked by a byte that can never become valid', () => {
    expect(stream([Uint8Array.of(0xff), Uint8Array.of(0x61), Uint8Array.of(0xe2, 0x28)])).toEqual([
      '\ufffd',
      'a',
      '\ufffd(',
      '',
    ]);
  });

  it('drops the space SentencePiece put before a text, once, and keeps it where the text goes on', () => {
    const tokens = [' Hi', ' you', '<s>'].map((text) => new TextEncoder().encode(text));
    const read = (ids: readonly number[], options = {}): string => {
      const detokenizer = createDetokenizer(texts(tokens, true), options);
      return ids.map((id) => detokenizer.push(id)).join('') + detokenizer.flush();
    };
    expect(read([0, 1])).toBe('Hi you');
    expect(read([2, 0, 1], { skipSpecial: true })).toBe('Hi you');
    expect(read([2, 0])).toBe('<s> Hi');
    expect(read([0, 1], { continues: true })).toBe(' Hi you');
  });
});
