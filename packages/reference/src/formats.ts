import { fromBrain, fromHalf } from './floats.ts';

/**
 * Stored formats decoded the slow way, one value at a time. Layouts: the GGML block structures as documented by the
 * GGUF format; MXFP4: OCP Microscaling Formats 1.0 (E8M0 scale, E2M1 elements).
 */
export interface Format {
  /** GGML's number for the type. */
  readonly id: number;
  readonly elements: number;
  readonly bytes: number;
  /** Value `i` of the block that starts at `at`. */
  readonly value: (data: DataView, at: number, i: number) => number;
}

const half = (data: DataView, at: number) => fromHalf(data.getUint16(at, true));
const nibble = (data: DataView, at: number, i: number) => {
  // 32 four-bit codes in 16 bytes: the low nibbles are values 0..15, the high ones 16..31.
  const byte = data.getUint8(at + (i % 16));
  return i < 16 ? byte & 15 : byte >> 4;
};
const fifthBit = (data: DataView, at: number, i: number) => ((data.getUint32(at, true) >>> i) & 1) << 4;

/** Six-bit scale and minimum of sub-block `j` (0..7) out of the 12 packed bytes of Q4_K and Q5_K. */
function scaleAndMinimum(data: DataView, at: number, j: number): [number, number] {
  const byte = (k: number) => data.getUint8(at + k);
  if (j < 4) return [byte(j) & 63, byte(j + 4) & 63];
  return [(byte(j + 4) & 15) | ((byte(j - 4) >> 6) << 4), (byte(j + 4) >> 4) | ((byte(j) >> 6) << 4)];
}

const E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];

export const FORMATS: Readonly<Record<string, Format>> = {
  f32: { id: 0, elements: 1, bytes: 4, value: (d, at) => d.getFloat32(at, true) },
  f16: { id: 1, elements: 1, bytes: 2, value: half },
  bf16: { id: 30, elements: 1, bytes: 2, value: (d, at) => fromBrain(d.getUint16(at, true)) },
  q8_0: { id: 8, elements: 32, bytes: 34, value: (d, at, i) => half(d, at) * d.getInt8(at + 2 + i) },
  q4_0: { id: 2, elements: 32, bytes: 18, value: (d, at, i) => half(d, at) * (nibble(d, at + 2, i) - 8) },
  q4_1: { id: 3, elements: 32, bytes: 20, value: (d, at, i) => half(d, at) * nibble(d, at + 4, i) + half(d, at + 2) },
  q5_0: {
    id: 6,
    elements: 32,
    bytes: 22,
    value: (d, at, i) => half(d, at) * ((nibble(d, at + 6, i) | fifthBit(d, at + 2, i)) - 16),
  },
  q5_1: {
    id: 7,
    elements: 32,
    bytes: 24,
    value: (d, at, i) => half(d, at) * (nibble(d, at + 8, i) | fifthBit(d, at + 4, i)) + half(d, at + 2),
  },
  q4_k: {
    id: 12,
    elements: 256,
    bytes: 144,
    value: (d, at, i) => {
      const sub = Math.floor(i / 32);
      const [scale, minimum] = scaleAndMinimum(d, at + 4, sub);
      // 64 values share 32 bytes: even sub-blocks in the low nibbles, odd ones in the high.
      const byte = d.getUint8(at + 16 + Math.floor(sub / 2) * 32 + (i % 32));
      const code = sub % 2 === 0 ? byte & 15 : byte >> 4;
      return half(d, at) * scale * code - half(d, at + 2) * minimum;
    },
  },
  q5_k: {
    id: 13,
    elements: 256,
    bytes: 176,
    value: (d, at, i) => {
      const sub = Math.floor(i / 32);
      const [scale, minimum] = scaleAndMinimum(d, at + 4, sub);
      const byte = d.getUint8(at + 48 + Math.floor(sub / 2) * 32 + (i % 32));
      const high = (d.getUint8(at + 16 + (i % 32)) >> sub) & 1;
      const code = (sub % 2 === 0 ? byte & 15 : byte >> 4) | (high << 4);
      return half(d, at) * scale * code - half(d, at + 2) * minimum;
    },
  },
  q6_k: {
    id: 14,
    elements: 256,
    bytes: 210,
    value: (d, at, i) => {
      // Two halves of 128 values; in each, four runs of 32 share 64 low bytes and 32 high bytes.
      const part = Math.floor(i / 128);
      const run = Math.floor((i % 128) / 32);
      const k = i % 32;
      const low = d.getUint8(at + part * 64 + (run % 2) * 32 + k);
      const high = (d.getUint8(at + 128 + part * 32 + k) >> (2 * run)) & 3;
      const code = ((run < 2 ? low & 15 : low >> 4) | (high << 4)) - 32;
      return half(d, at + 208) * d.getInt8(at + 192 + Math.floor(i / 16)) * code;
    },
  },
  mxfp4: {
    id: 39,
    elements: 32,
    bytes: 17,
    value: (d, at, i) => {
      const code = nibble(d, at + 1, i);
      const magnitude = (E2M1[code & 7] as number) * 2 ** (d.getUint8(at) - 127);
      return code & 8 && magnitude > 0 ? -magnitude : magnitude; // the format's users read code 8 as +0
    },
  },
};

export function formatNamed(name: string): Format {
  const format = FORMATS[name];
  if (format === undefined)
    throw new Error(`format: expected one of ${Object.keys(FORMATS).join(', ')}, found ${name}`);
  return format;
}

/** Every value of a tensor as float64. */
export function decode(name: string, bytes: Uint8Array, count: number): Float64Array {
  const format = formatNamed(name);
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    values[i] = format.value(data, Math.floor(i / format.elements) * format.bytes, i % format.elements);
  }
  return values;
}
