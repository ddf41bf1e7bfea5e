// Scalar number formats, worked out from their bit fields.

/** IEEE 754 binary16 bits to their value. */
export function fromHalf(bits: number): number {
  return HALVES[bits] as number;
}

const HALVES = Float64Array.from({ length: 65536 }, (_, bits) => workOutHalf(bits));

function workOutHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The binary16 nearest to a value, ties to even. */
export function toHalf(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  const exponent = magnitude < 2 ** -14 ? -14 : Math.floor(Math.log2(magnitude));
  // floor(log2) may be off by one next to a power of two; the rounding below then carries into the exponent by itself.
  const scale = exponent - 10;
  const units = roundHalfEven(magnitude / 2 ** scale);
  const normal = units >= 1024;
  return sign | (normal ? ((exponent + 15) << 10) + (units - 1024) : units);
}

export function fromBrain(bits: number): number {
  return new Float32Array(new Uint32Array([bits << 16]).buffer)[0] as number;
}

/** The bfloat16 nearest to a value, ties to even. */
export function toBrain(value: number): number {
  const bits = new Uint32Array(new Float32Array([value]).buffer)[0] as number;
  if (Number.isNaN(value)) return 0x7fc0;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
