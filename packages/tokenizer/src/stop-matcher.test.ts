import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createStopMatcher } from './stop-matcher.ts';

/** The rule, read literally: the first prefix of the text that ends with a stop; the longest stop there. */
function naive(text: string, stops: readonly string[]): { readonly text: string; readonly stop: string | null } {
  for (let end = 1; end <= text.length; end += 1) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length)[0];
    if (ending !== undefined) return { text: text.slice(0, end - ending.length), stop: ending };
  }
  return { text, stop: null };
}

function streamed(pieces: readonly string[], stops: readonly string[]) {
  const matcher = createStopMatcher(stops);
  let text = '';
  for (const piece of pieces) {
    const match = matcher.push(piece);
    text += match.text;
    if (match.stop !== null) return { text, stop: match.stop, emitted: match.emittedCharacters };
  }
  text += matcher.flush();
  return { text, stop: null, emitted: text.length };
}

const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '🙂'), maxLength: 12 });
const stopStrings = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'c', '🙂'), minLength: 1, maxLength: 4 }), {
  maxLength: 4,
});

describe('a stop matcher', () => {
  it('agrees with the rule however the text is cut', () => {
    fc.assert(
      fc.property(fc.array(letters, { maxLength: 8 }), stopStrings, (pieces, stops) => {
        const { emitted, ...found } = streamed(pieces, stops);
        expect(found).toEqual(naive(pieces.join(''), stops));
        expect(emitted).toBe(found.text.length);
      }),
      { numRuns: 5000 },
    );
  });

  it('holds back only what could still become a stop', () => {
    const matcher = createStopMatcher(['\n\nUser:', 'END']);
    expect(matcher.push('Hello\n')).toEqual({ text: 'Hello', stop: null, emittedCharacters: 5 });
    expect(matcher.push('x')).toEqual({ text: '\nx', stop: null, emittedCharacters: 7 });
    expect(matcher.push('\n\nUs')).toEqual({ text: '', stop: null, emittedCharacters: 7 });
    expect(matcher.push('er: more')).toEqual({ text: '', stop: '\n\nUser:', emittedCharacters: 7 });
  });

  it('gives back what it held when the text ends', () => {
    const matcher = createStopMatcher(['abc']);
    expect(matcher.push('xab').text).toBe('x');
    expect(matcher.flush()).toBe('ab');
  });

  it('refuses empty stops, and text after a stop', () => {
    expect(() => createStopMatcher([''])).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
    const matcher = createStopMatcher(['a']);
    matcher.push('a');
    expect(() => matcher.push('b')).toThrow(expect.objectContaining({ code: 'invariant-broken' }));
  });
});
