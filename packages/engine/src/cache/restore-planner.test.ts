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

const BLOCK_BYTES = 1_500_000;
const blocksOf = (count: number, tier: 'hot' | 'warm' | 'cold' = 'cold'): RestorableBlock[] =>
  Array.from({ length: count }, () => ({ tier, tokens: 256, bytes: BLOCK_BYTES }));
/** 4,096 tokens take 1.2 s to compute and 24 MB to load. */
function plannerThatHasComputed(): RestorePlanner {
  const planner = new RestorePlanner('auto', Number.POSITIVE_INFINITY);
  for (let chunk = 0; chunk < 4; chunk++) planner.sawPrefill(chunk * 512, 512, 150);
  return planner;
}
const restores = (planner: RestorePlanner, count: number, bytesPerMs: number): void => {
  for (let time = 0; time < count; time++) {
    planner.sawLoad('cold', 10 * BLOCK_BYTES, (10 * BLOCK_BYTES) / bytesPerMs);
    planner.sawLoad('cold', 6 * BLOCK_BYTES, (6 * BLOCK_BYTES) / bytesPerMs);
  }
};

describe('RestorePlanner after a few restores', () => {
  it.each([
    [5_000, 0],
    [10_000, 0],
    [50_000, 16],
    [500_000, 16],
  ])('knows after a few restores at %i bytes a millisecond which way is faster', (bytesPerMs, expected) => {
    const planner = plannerThatHasComputed();
    restores(planner, 4, bytesPerMs);
    expect(planner.plan(blocksOf(16), 4096)).toBe(expected);
  });

  it('does not take the cost of a step with one token for that of a prompt', () => {
    const planner = plannerThatHasComputed();
    const before = planner.msPerToken;
    planner.sawPrefill(4095, 1, 2);
    expect(planner.msPerToken).toBe(before);
  });

  it('is not talked out of loading by one small slow load', () => {
    const planner = plannerThatHasComputed();
    planner.sawLoad('cold', 100_000, 50);
    expect(planner.plan(blocksOf(16), 4096)).toBe(16);
  });

  it('looks again now and then whether a slow disk still is', () => {
    const planner = plannerThatHasComputed();
    expect([planner.mayProbe(0), planner.mayProbe(5_000), planner.mayProbe(11_000)]).toEqual([true, false, true]);
    expect(new RestorePlanner('never', 1).mayProbe(0)).toBe(false);
  });

  it('takes what is hot whatever the policy', () => {
    expect(new RestorePlanner('never', 1).plan([...blocksOf(3, 'hot'), ...blocksOf(2)], 2000)).toBe(3);
    expect(new RestorePlanner('always', 1).plan([...blocksOf(3, 'hot'), ...blocksOf(2)], 2000)).toBe(5);
  });
});
