import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sharePrefillBudget } from './prefill-budget.ts';

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
