import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ReferenceTable } from './reference-table.ts';

describe('ReferenceTable', () => {
  it('counts as a map would, through growth and deletion in any order', () => {
    const change = fc.record({ adds: fc.boolean(), blockId: fc.nat({ max: 40 }), owner: fc.nat({ max: 12 }) });
    fc.assert(
      fc.property(fc.array(change, { minLength: 100, maxLength: 600 }), (changes) => {
        const table = new ReferenceTable();
        const model = new Map<string, number>();
        for (const { adds, blockId, owner } of changes) {
          const key = `${blockId}/${owner}`;
          const count = model.get(key) ?? 0;
          if (adds) table.add(blockId, owner);
          const isRemoved = adds ? count > 0 : table.remove(blockId, owner);
          expect(isRemoved).toBe(count > 0);
          model.set(key, Math.max(0, count + (adds ? 1 : -1)));
        }
        const byBlock = new Int32Array(41);
        for (const [key, count] of model) {
          const [blockId, owner] = key.split('/').map(Number) as [number, number];
          expect(table.count(blockId, owner)).toBe(count);
          byBlock[blockId] = (byBlock[blockId] as number) + count;
        }
        expect(table.countByBlock(41)).toEqual(byBlock);
      }),
      { numRuns: 60 },
    );
  });

  it('keeps a block that thousands of owners share cheap to give back', () => {
    const table = new ReferenceTable();
    for (let owner = 0; owner < 5000; owner++) table.add(3, owner);
    for (let owner = 4999; owner >= 0; owner--) expect(table.remove(3, owner)).toBe(true);
    expect(table.remove(3, 0)).toBe(false);
  });
});
