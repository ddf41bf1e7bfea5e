import fc from 'fast-check';
import { expect, it } from 'vitest';
import { countEqual, pairsOf } from './token-pairs.ts';

it('counts as a plain loop does, wherever the arrays begin', () => {
  const token = fc.integer({ min: 0, max: 3 }).map((value) => (value === 3 ? 0x7fffffff : value));
  const tokens = fc.array(token, { maxLength: 40 });
  fc.assert(
    fc.property(tokens, tokens, fc.nat(3), fc.nat(3), fc.nat(9), (shared, rest, ownShift, otherShift, position) => {
      const place = (values: readonly number[], shift: number): Int32Array => {
        const memory = new Int32Array(values.length + shift);
        memory.set(values, shift);
        return memory.subarray(shift);
      };
      const own = place([...shared, ...rest], ownShift);
      const other = place([...Array.from({ length: position }, () => 7), ...shared, 9], otherShift);
      const most = Math.min(own.length, other.length - position);
      let expected = 0;
      while (expected < most && own[expected] === other[position + expected]) expected++;
      expect(countEqual(own, pairsOf(own), other, pairsOf(other), position, most)).toBe(expected);
    }),
    { numRuns: 2000 },
  );
});
