import { describe, expect, it } from 'vitest';
import { type RestorableBlock, RestorePlanner } from './restore-planner.ts';

const blocks = (...tiers: RestorableBlock['tier'][]): RestorableBlock[] =>
  tiers.map((tier) => ({ tier, tokens: 256, bytes: 1_000_000 }));

function plannerOf(policy: 'auto' | 'always' | 'never', coldBytesPerMs: number, msPerToken: number): RestorePlanner {
  const planner = new RestorePlanner(policy, Number.POSITIVE_INFINITY);
  for (let round = 0; round < 60; round++) {
    planner.sawLoad('cold', coldBytesPerMs * 1e6, 1e6);
    planner.sawPrefill(0, 100, msPerToken * 100);
  }
  return planner;
}

describe('RestorePlanner', () => {
  it('loads where the disk is faster and computes where it is not', () => {
    // A block costs 1 ms to load, or 256 ms to compute.
    expect(plannerOf('auto', 1_000_000, 1).plan(blocks('cold', 'cold'), 600)).toBe(2);
    // 1,000 ms to load.
    expect(plannerOf('auto', 1_000, 1).plan(blocks('cold', 'cold'), 600)).toBe(0);
  });

  it('takes what is in the pool in any case, and the fast head of a slow tail', () => {
    const slowDisk = plannerOf('auto', 1_000, 1);
    expect(slowDisk.plan(blocks('hot', 'hot', 'cold'), 800)).toBe(2);
    expect(slowDisk.plan(blocks('hot', 'warm', 'cold', 'cold'), 1_100)).toBe(2);
    expect(slowDisk.plan(blocks('hot', 'hot'), 600)).toBe(2);
  });

  it('crosses slow blocks where enough lies behind them', () => {
    const planner = new RestorePlanner('auto', 1_000);
    for (let round = 0; round < 60; round++) {
      planner.sawLoad('cold', 3_500e6, 1e6);
      planner.sawPrefill(0, 100, 100);
    }
    // 286 ms to load a block; computing one costs 290 ms at the start and ever more behind it.
    expect(planner.plan(blocks('cold', 'cold', 'cold', 'cold'), 1_025)).toBe(4);
  });

  it('does as it is told otherwise', () => {
    expect(plannerOf('always', 1, 0.001).plan(blocks('hot', 'cold'), 600)).toBe(2);
    expect(plannerOf('never', 1e9, 1_000).plan(blocks('hot', 'cold'), 600)).toBe(1);
  });

  it('loads until it has seen a prefill, and takes no notice of empty figures', () => {
    const planner = new RestorePlanner('auto', 1_000);
    planner.sawLoad('cold', 0, 5);
    planner.sawLoad('warm', 5, 0);
    planner.sawPrefill(0, 0, 5);
    planner.sawPrefill(0, 5, 0);
    expect(planner.msPerToken).toBeNull();
    expect(planner.plan(blocks('cold', 'cold'), 600)).toBe(2);
  });
});
