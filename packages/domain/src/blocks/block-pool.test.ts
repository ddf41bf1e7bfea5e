import { describe, expect, it } from 'vitest';
import { BlockPool } from './block-pool.ts';

const withCode = (code: string) => expect.objectContaining({ code });

describe('BlockPool', () => {
  it('hands out every block once, then null and takes nothing', () => {
    const pool = new BlockPool(5);
    expect(pool.allocate(3, 1)).toEqual(Int32Array.of(0, 1, 2));
    expect(pool.allocate(3, 2)).toBeNull();
    expect(pool.stats()).toEqual({ total: 5, free: 2, used: 3, retired: 0, peak: 3 });
    expect(pool.allocate(2, 2)).toEqual(Int32Array.of(3, 4));
    expect(pool.allocate(0, 3)).toEqual(new Int32Array(0));
    pool.checkIntegrity();
  });

  it('frees a block with its last reference, whoever holds that', () => {
    const pool = new BlockPool(2);
    pool.allocate(1, 1);
    pool.acquire(0, 2);
    pool.acquire(0, 2);
    expect(pool.references(0)).toBe(3);
    pool.release(0, 1);
    pool.release(0, 2);
    expect([pool.isHeldBy(0, 1), pool.isHeldBy(0, 2)]).toEqual([false, true]);
    expect(pool.numFree).toBe(1);
    pool.checkIntegrity();
    pool.release(0, 2);
    expect(pool.isHeldBy(0, 2)).toBe(false);
    expect(pool.numFree).toBe(2);
    pool.checkIntegrity();
  });

  it('takes a new first holder when the first one has left', () => {
    const pool = new BlockPool(1);
    pool.allocate(1, 1);
    pool.acquire(0, 2);
    pool.release(0, 1);
    pool.acquire(0, 3);
    pool.checkIntegrity();
    pool.release(0, 2);
    pool.release(0, 3);
    expect(pool.numFree).toBe(1);
  });

  it('tells a double free and leaves the pool as it was', () => {
    const pool = new BlockPool(2);
    pool.allocate(1, 1);
    pool.release(0, 1);
    expect(() => pool.release(0, 1)).toThrow(withCode('invariant-broken'));
    expect(() => pool.acquire(0, 1)).toThrow(withCode('invariant-broken'));
    pool.checkIntegrity();
    expect(pool.numFree).toBe(2);
  });

  it('tells a foreign free and leaves the pool as it was', () => {
    const pool = new BlockPool(2);
    pool.allocate(1, 1);
    pool.acquire(0, 2);
    expect(() => pool.release(0, 9)).toThrow(withCode('invariant-broken'));
    expect(pool.references(0)).toBe(2);
    pool.checkIntegrity();
  });

  it('refuses ids, counts, owners and sizes that cannot be', () => {
    const pool = new BlockPool(2);
    for (const blockId of [-1, 2, 0.5, Number.NaN]) {
      expect(() => pool.release(blockId, 1)).toThrow(withCode('invalid-argument'));
      expect(() => pool.references(blockId)).toThrow(withCode('invalid-argument'));
    }
    for (const count of [-1, 3, 0.5, Number.NaN]) {
      expect(() => pool.allocate(count, 1)).toThrow(withCode('invalid-argument'));
    }
    for (const owner of [-1, 2 ** 31, 0.5]) {
      expect(() => pool.allocate(1, owner)).toThrow(withCode('invalid-argument'));
    }
    for (const numBlocks of [0, -1, 1.5, 2 ** 31]) {
      expect(() => new BlockPool(numBlocks)).toThrow(withCode('invalid-argument'));
    }
  });

  it('keeps what is released during a step until that step completes', () => {
    const pool = new BlockPool(3);
    pool.allocate(3, 1);
    pool.release(0, 1);
    pool.beginStep(1);
    pool.release(1, 1);
    pool.beginStep(2);
    pool.release(2, 1);
    expect(pool.stats()).toEqual({ total: 3, free: 1, used: 0, retired: 2, peak: 3 });
    expect(pool.references(1)).toBe(0);
    expect(() => pool.release(1, 1)).toThrow(/retired/);
    expect(pool.allocate(2, 2)).toBeNull();
    pool.checkIntegrity();
    pool.completeStep(1);
    expect(pool.allocate(2, 2)).toEqual(Int32Array.of(1, 0));
    pool.completeStep(2);
    expect(pool.stats()).toMatchObject({ free: 1, used: 2, retired: 0 });
    pool.checkIntegrity();
  });

  it('completes steps in order only, and begins them ascending', () => {
    const pool = new BlockPool(1);
    expect(() => pool.completeStep(1)).toThrow(withCode('invariant-broken'));
    pool.beginStep(5);
    expect(() => pool.beginStep(5)).toThrow(withCode('invalid-argument'));
    expect(() => pool.beginStep(0.5)).toThrow(withCode('invalid-argument'));
    pool.beginStep(7);
    expect(() => pool.completeStep(7)).toThrow(withCode('invariant-broken'));
    pool.completeStep(5);
    pool.completeStep(7);
  });
});
