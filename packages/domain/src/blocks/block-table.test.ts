import { describe, expect, it } from 'vitest';
import { BlockTable } from './block-table.ts';

describe('BlockTable', () => {
  it('maps positions to slots across blocks in logical order', () => {
    const table = new BlockTable(4);
    table.append(Int32Array.of(7, 2));
    table.append(Int32Array.of(5));
    const slots = new Int32Array(6).fill(-9);
    table.fillSlots(slots, 1, 3, 5);
    expect(slots).toEqual(Int32Array.of(-9, 31, 8, 9, 10, 11));
  });

  it('fills a row with its ids and pads it with -1', () => {
    const table = new BlockTable(4);
    table.append(Int32Array.of(7, 2));
    const rows = new Int32Array(5).fill(9);
    table.fillRow(rows, 1, 4);
    expect(rows).toEqual(Int32Array.of(9, 7, 2, -1, -1));
  });

  it('grows past its first capacity and starts again when cleared', () => {
    const table = new BlockTable(4);
    for (let blockId = 0; blockId < 100; blockId++) table.append(Int32Array.of(blockId));
    expect(table.blockIds).toEqual(Int32Array.from({ length: 100 }, (_, index) => index));
    table.clear();
    expect(table.length).toBe(0);
  });
});
