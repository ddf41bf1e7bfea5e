import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sharePrefillBudget, sharePrefillTokens } from './prefill-budget.ts';

describe('sharePrefillBudget', () => {
  it('gives a single prompt everything it wants and no more', () => {
    expect(sharePrefillBudget([100], 64)).toEqual([64]);
    expect(sharePrefillBudget([10], 64)).toEqual([10]);
    expect(sharePrefillBudget([], 64)).toEqual([]);
  });

  it('feeds a short prompt beside a long one that came first', () => {
    expect(sharePrefillBudget([4000, 100], 512)).toEqual([412, 100]);
  });

  it('gives the oldest the most when all are long', () => {
    expect(sharePrefillBudget([4000, 4000, 4000], 512)).toEqual([320, 128, 64]);
  });

  it('spends the whole budget or satisfies everybody, and gives nobody more than it wants', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 5000 })), fc.integer({ min: 1, max: 4096 }), (wanted, budget) => {
        const shares = sharePrefillBudget(wanted, budget);
        const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);
        expect(sum(shares)).toBe(Math.min(budget, sum(wanted)));
        expect(shares.every((share, index) => share >= 0 && share <= (wanted[index] as number))).toBe(true);
      }),
    );
  });
});

describe('sharePrefillTokens', () => {
  it('gives a deep prompt fewer tokens, though never too few to be worth a step', () => {
    const alone = (position: number) => sharePrefillTokens([{ wanted: 4000, position }], 128, 2048);
    expect([0, 2048, 6144, 1_000_000].map((position) => alone(position))).toEqual([[128], [64], [32], [16]]);
  });

  it('is the plain share where position costs nothing', () => {
    expect(sharePrefillTokens([{ wanted: 4000, position: 9000 }], 512, Number.POSITIVE_INFINITY)).toEqual([512]);
  });

  it('never spends more than the budget, gives nobody more than it wants, and always moves on', () => {
    const candidate = fc.record({ wanted: fc.integer({ min: 1, max: 5000 }), position: fc.nat({ max: 200_000 }) });
    fc.assert(
      fc.property(
        fc.array(candidate, { minLength: 1 }),
        fc.integer({ min: 1, max: 4096 }),
        fc.integer({ min: 1, max: 100_000 }),
        (candidates, budget, parityTokens) => {
          const shares = sharePrefillTokens(candidates, budget, parityTokens);
          const sum = shares.reduce((total, value) => total + value, 0);
          expect(sum).toBeGreaterThan(0);
          expect(sum).toBeLessThanOrEqual(budget);
          for (const [index, { wanted }] of candidates.entries()) expect(shares[index]).toBeLessThanOrEqual(wanted);
        },
      ),
    );
  });
});
