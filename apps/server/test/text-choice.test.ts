import fc from 'fast-check';
import type { Generation, GenerationBatch } from '@kvasir/domain';
import { createStopMatcher } from '@kvasir/tokenizer';
import { describe, expect, it } from 'vitest';
import { TextChoice } from '../src/generation/text-choice.ts';
import { createByteTokenizer } from './byte-tokenizer.ts';

const generation = { finish() {}, abort() {} } as Generation;

function play(batches: readonly (readonly number[])[], stops: readonly string[]) {
  const tokenizer = createByteTokenizer();
  const choice = new TextChoice(0, generation, tokenizer.createDetokenizer(), createStopMatcher(stops));
  let index = 0;
  const pieces = [...batches.map((ids) => [ids, null] as const), [[], { reason: 'length' }] as const].map(
    ([ids, finish]) => {
      const batch: GenerationBatch = {
        tokens: ids.map((tokenId) => ({ tokenId, index: index++, logprob: -1, topLogprobs: [], logitsHash: null })),
        finish,
      };
      return choice.push(batch);
    },
  );
  const given = pieces.filter((piece) => piece !== null);
  return {
    text: given.map((piece) => piece.text).join(''),
    tokens: given.flatMap((piece) => piece.tokens),
    reason: given.at(-1)?.finish?.reason,
  };
}

describe('TextChoice', () => {
  it('gives the text before the first stop and the tokens that begin in it, however tokens are batched', () => {
    const text = fc.stringMatching(/^[ab é]{0,30}$/);
    const stops = fc.array(fc.stringMatching(/^[ab é]{1,3}$/), { maxLength: 3 });
    fc.assert(
      fc.property(text, stops, fc.array(fc.integer({ min: 1, max: 5 })), (whole, stopList, sizes) => {
        const bytes = [...new TextEncoder().encode(whole)];
        const batches: number[][] = [];
        for (const size of [...sizes, bytes.length]) batches.push(bytes.splice(0, size));
        // The stop that is complete first wins, and of those the longest.
        const ends = stopList
          .map((stop) => ({ stop, at: whole.indexOf(stop) }))
          .filter(({ at }) => at >= 0)
          .sort((a, b) => a.at + a.stop.length - (b.at + b.stop.length) || a.at - b.at);
        const expected = ends[0] === undefined ? whole : whole.slice(0, ends[0].at);
        const played = play(batches, stopList);
        expect(played.text).toBe(expected);
        expect(played.reason).toBe(ends[0] === undefined ? 'length' : 'stop');
        expect(played.tokens.length).toBe(new TextEncoder().encode(expected).length);
      }),
      { numRuns: 500 },
    );
  });
});
