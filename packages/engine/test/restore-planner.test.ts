import { describe, expect, it } from 'vitest';
import { type RestorableBlock, RestorePlanner } from '../src/cache/restore-planner.ts';

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

describe('restore planner', () => {
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
