import { roundHalfEven, toBrain, toHalf, fromHalf } from './floats.ts';
import { formatNamed } from './formats.ts';
import type { Random } from './random.ts';

/**
 * Values to a stored format. The simple formats are real quantizers (nearest code for the block's range); the K-quants
 * and MXFP4 are random blocks of about the same spread, since tests need valid weights and not good ones.
 */
export function encode(name: string, values: Float64Array, random: Random): Uint8Array {
  const format = formatNamed(name);
  const blocks = values.length / format.elements;
  const bytes = new Uint8Array(blocks * format.bytes);
  const data = new DataView(bytes.buffer);
  for (let block = 0; block < blocks; block++) {
    const part = values.subarray(block * format.elements, (block + 1) * format.elements);
    encodeBlock(name, data, block * format.bytes, part, random);
  }
  return bytes;
}

function encodeBlock(name: string, data: DataView, at: number, values: Float64Array, random: Random): void {
  switch (name) {
    case 'f32':
      return data.setFloat32(at, values[0] as number, true);
    case 'f16':
      return data.setUint16(at, toHalf(values[0] as number), true);
    case 'bf16':
      return data.setUint16(at, toBrain(values[0] as number), true);
    case 'q8_0': {
      const scale = putHalf(data, at, maximum(values) / 127);
      values.forEach((value, i) => data.setInt8(at + 2 + i, code(value, scale, 0, -127, 127)));
      return;
    }
    case 'q4_0': {
      const scale = putHalf(data, at, maximum(values) / 7);
      return putNibbles(
        data,
        at + 2,
        values.map((value) => code(value, scale, 0, -8, 7) + 8),
      );
    }
    case 'q5_0': {
      const scale = putHalf(data, at, maximum(values) / 15);
      return putFiveBits(
        data,
        at + 2,
        values.map((value) => code(value, scale, 0, -16, 15) + 16),
      );
    }
    case 'q4_1':
    case 'q5_1': {
      const levels = name === 'q4_1' ? 15 : 31;
      const low = Math.min(...values);
      const scale = putHalf(data, at, (Math.max(...values) - low) / levels);
      const minimum = putHalf(data, at + 2, low);
      const codes = values.map((value) => code(value, scale, minimum, 0, levels));
      return name === 'q4_1' ? putNibbles(data, at + 4, codes) : putFiveBits(data, at + 4, codes);
    }
    default:
      return randomBlock(name, data, at, deviation(values), random);
  }
}

/** K-quants and MXFP4: every code random, scales chosen so that the values spread about as wide as those asked for. */
function randomBlock(name: string, data: DataView, at: number, spread: number, random: Random): void {
  const format = formatNamed(name);
  random.bytes(format.bytes).forEach((byte, i) => data.setUint8(at + i, byte));
  switch (name) {
    case 'q4_k':
    case 'q5_k': {
      const codes = name === 'q4_k' ? 16 : 32;
      const scale = spread / (32 * codes * 0.3);
      data.setUint16(at, toHalf(scale), true);
      data.setUint16(at + 2, toHalf((scale * (codes - 1)) / 2), true);
      return;
    }
    case 'q6_k':
      data.setUint16(at + 208, toHalf(spread / (74 * 18.5)), true);
      return;
    case 'mxfp4':
      data.setUint8(at, 127 + Math.round(Math.log2(spread / 2.9)) + random.integer(-1, 1));
      return;
    default:
      throw new Error(`format ${name}: expected one this function makes random blocks of`);
  }
}

const maximum = (values: Float64Array) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const deviation = (values: Float64Array) =>
  Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);

function putHalf(data: DataView, at: number, value: number): number {
  const bits = toHalf(value);
  data.setUint16(at, bits, true);
  return fromHalf(bits);
}

function code(value: number, scale: number, minimum: number, low: number, high: number): number {
  if (scale === 0) return Math.max(low, 0);
  return Math.min(high, Math.max(low, roundHalfEven((value - minimum) / scale)));
}

function putNibbles(data: DataView, at: number, codes: Float64Array): void {
  for (let i = 0; i < 16; i++)
    data.setUint8(at + i, ((codes[i] as number) & 15) | (((codes[i + 16] as number) & 15) << 4));
}

function putFiveBits(data: DataView, at: number, codes: Float64Array): void {
  let high = 0;
  codes.forEach((value, i) => {
    if (value & 16) high |= 1 << i;
  });
  data.setUint32(at, high >>> 0, true);
  putNibbles(data, at + 4, codes);
}
