import { fromHalf, roundHalfEven, toHalf } from './floats.ts';

/** One head of one token as attention reads it out of a pool of some format. */
export type StoreHead = (head: Float64Array, component: 'k' | 'v', place: HeadPlace) => Float64Array;

export interface HeadPlace {
  readonly layer: number;
  readonly token: number;
  readonly kvHead: number;
}

const GROUP_VALUES = 64;

/**
 * What pools of the formats of ADR-0013 make of a head, in float64 but for the f16 scales and minima they store.
 * `q8`: code = x / scale, scale = max|x| / 127. `q4`: code = (x − minimum) / scale, scale = (max − minimum) / 15. Groups of
 * K are multiplied by the Walsh–Hadamard matrix before and after: a score with the stored vector is one with this.
 */
export const KV_ROUNDING: Readonly<Record<'q8' | 'q4', (head: Float64Array, component: 'k' | 'v') => Float64Array>> = {
  q8: (head, component) => eachGroup(head, component === 'k' ? turned(roundTo8Bits) : roundTo8Bits),
  q4: (head, component) => eachGroup(head, component === 'k' ? turned(roundTo4Bits) : roundTo4Bits),
};

type Round = (group: Float64Array) => Float64Array;

function turned(round: Round): Round {
  return (group) => fromStoredKey(round(toStoredKey(group)));
}

function eachGroup(head: Float64Array, round: Round): Float64Array {
  const width = Math.min(GROUP_VALUES, head.length);
  const stored = new Float64Array(head.length);
  for (let at = 0; at < head.length; at += width) stored.set(round(head.slice(at, at + width)), at);
  return stored;
}

function roundTo8Bits(group: Float64Array): Float64Array {
  const scale = fromHalf(toHalf(group.reduce((most, x) => Math.max(most, Math.abs(x)), 0) / 127));
  return group.map((x) => (scale === 0 ? 0 : scale * clamp(roundHalfEven(x / scale), -127, 127)));
}

function roundTo4Bits(group: Float64Array): Float64Array {
  const minimum = fromHalf(toHalf(Math.min(...group)));
  const scale = fromHalf(toHalf((Math.max(...group) - minimum) / 15));
  return group.map((x) => minimum + (scale <= 0 ? 0 : scale * clamp(roundHalfEven((x - minimum) / scale), 0, 15)));
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}

/** A group of K as it is stored: turned, and scaled by a power of two near 1 / √run. */
export function toStoredKey(group: Float64Array): Float64Array {
  const scale = storedScale(group.length);
  return hadamard(group).map((x) => x * scale);
}

/** What `toStoredKey` was made of. */
export function fromStoredKey(stored: Float64Array): Float64Array {
  const scale = storedScale(stored.length);
  return hadamard(stored).map((x) => x / scale);
}

/** √run · 2^−⌊log2(run) / 2⌋: 1 where the run is an even power of two. */
function storedScale(length: number): number {
  const bits = Math.log2(length & -length);
  return 2 ** (bits / 2 - Math.floor(bits / 2));
}

/** The orthonormal Walsh–Hadamard matrix times each run of the largest power of two that divides the length. */
export function hadamard(x: Float64Array): Float64Array {
  const run = x.length & -x.length;
  return x.map((_, at) => {
    const begin = at - (at % run);
    let sum = 0;
    for (let j = 0; j < run; j++)
      sum += hasOddBits(at & j & (run - 1)) ? -(x[begin + j] as number) : (x[begin + j] as number);
    return sum / Math.sqrt(run);
  });
}

function hasOddBits(bits: number): boolean {
  let odd = false;
  for (let rest = bits; rest !== 0; rest &= rest - 1) odd = !odd;
  return odd;
}
