import { formatNamed } from './formats.ts';

/** A GGUF value as this package writes it; reading gives numbers, strings, booleans and arrays of them. */
export type GgufValue =
  | { readonly type: 'u32' | 'i32' | 'f32'; readonly value: number }
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'strings'; readonly value: readonly string[] }
  | { readonly type: 'i32s' | 'f32s'; readonly value: readonly number[] };

export interface StoredTensor {
  readonly name: string;
  /** Row-major, outermost first (GGUF itself lists them the other way round). */
  readonly shape: readonly number[];
  readonly format: string;
  readonly bytes: Uint8Array;
}

const ALIGNMENT = 32;
const align = (offset: number) => Math.ceil(offset / ALIGNMENT) * ALIGNMENT;

/** A whole GGUF v3 file. Source: the GGUF specification in the ggml repository (docs/gguf.md). */
export function writeGguf(metadata: ReadonlyMap<string, GgufValue>, tensors: readonly StoredTensor[]): Uint8Array {
  const out: Uint8Array[] = [];
  const u32 = (value: number) => push(4, (data) => data.setUint32(0, value, true));
  const i32 = (value: number) => push(4, (data) => data.setInt32(0, value, true));
  const f32 = (value: number) => push(4, (data) => data.setFloat32(0, value, true));
  const u64 = (value: number) => push(8, (data) => data.setBigUint64(0, BigInt(value), true));
  const text = (value: string) => {
    const bytes = new TextEncoder().encode(value);
    u64(bytes.length);
    out.push(bytes);
  };
  function push(bytes: number, fill: (data: DataView) => void): void {
    const data = new DataView(new ArrayBuffer(bytes));
    fill(data);
    out.push(new Uint8Array(data.buffer));
  }
  function array<T>(elementType: number, values: readonly T[], one: (value: T) => void): void {
    u32(9);
    u32(elementType);
    u64(values.length);
    for (const value of values) one(value);
  }

  out.push(new TextEncoder().encode('GGUF'));
  u32(3);
  u64(tensors.length);
  u64(metadata.size);
  for (const [key, entry] of metadata) {
    text(key);
    switch (entry.type) {
      case 'u32':
        u32(4);
        u32(entry.value);
        break;
      case 'i32':
        u32(5);
        i32(entry.value);
        break;
      case 'f32':
        u32(6);
        f32(entry.value);
        break;
      case 'bool':
        u32(7);
        out.push(Uint8Array.of(entry.value ? 1 : 0));
        break;
      case 'string':
        u32(8);
        text(entry.value);
        break;
      case 'strings':
        array(8, entry.value, text);
        break;
      case 'i32s':
        array(5, entry.value, i32);
        break;
      case 'f32s':
        array(6, entry.value, f32);
        break;
    }
  }
  let offset = 0;
  for (const tensor of tensors) {
    text(tensor.name);
    u32(tensor.shape.length);
    for (const extent of [...tensor.shape].reverse()) u64(extent);
    u32(formatNamed(tensor.format).id);
    u64(offset);
    offset = align(offset + tensor.bytes.length);
  }
  let written = out.reduce((sum, part) => sum + part.length, 0);
  const pad = () => {
    out.push(new Uint8Array(align(written) - written));
    written = align(written);
  };
  pad();
  for (const tensor of tensors) {
    out.push(tensor.bytes);
    written += tensor.bytes.length;
    pad();
  }
  return Buffer.concat(out);
}

type Scalar = number | string | boolean;
export type GgufMetadata = ReadonlyMap<string, Scalar | readonly Scalar[]>;

/** Reads a well-formed GGUF file held in memory; it trusts its input, unlike the server's own reader. */
export function readGguf(file: Uint8Array): { metadata: GgufMetadata; tensors: Map<string, StoredTensor> } {
  const data = new DataView(file.buffer, file.byteOffset, file.byteLength);
  let at = 4;
  const take = (bytes: number) => (at += bytes) - bytes;
  const u32 = () => data.getUint32(take(4), true);
  const u64 = () => Number(data.getBigUint64(take(8), true));
  const text = () => {
    const length = u64();
    const start = take(length);
    return new TextDecoder().decode(file.subarray(start, start + length));
  };
  const scalar = (type: number): Scalar => {
    switch (type) {
      case 0:
        return data.getUint8(take(1));
      case 1:
        return data.getInt8(take(1));
      case 2:
        return data.getUint16(take(2), true);
      case 3:
        return data.getInt16(take(2), true);
      case 4:
        return u32();
      case 5:
        return data.getInt32(take(4), true);
      case 6:
        return data.getFloat32(take(4), true);
      case 7:
        return data.getUint8(take(1)) !== 0;
      case 8:
        return text();
      case 10:
        return u64();
      case 11:
        return Number(data.getBigInt64(take(8), true));
      case 12:
        return data.getFloat64(take(8), true);
      default:
        throw new Error(`GGUF value type: expected 0 to 12, found ${type}`);
    }
  };
  u32();
  const numTensors = u64();
  const numKeys = u64();
  const metadata = new Map<string, Scalar | readonly Scalar[]>();
  for (let i = 0; i < numKeys; i++) {
    const key = text();
    const type = u32();
    if (type !== 9) {
      metadata.set(key, scalar(type));
      continue;
    }
    const elementType = u32();
    metadata.set(
      key,
      Array.from({ length: u64() }, () => scalar(elementType)),
    );
  }
  const infos = Array.from({ length: numTensors }, () => {
    const name = text();
    const shape = Array.from({ length: u32() }, u64).reverse();
    return { name, shape, id: u32(), offset: u64() };
  });
  const start = align(at);
  const tensors = new Map<string, StoredTensor>();
  for (const { name, shape, id, offset } of infos) {
    const [format, layout] = formatOfId(id);
    const count = shape.reduce((product, extent) => product * extent, 1);
    const length = (count / layout.elements) * layout.bytes;
    tensors.set(name, { name, shape, format, bytes: file.subarray(start + offset, start + offset + length) });
  }
  return { metadata, tensors };
}

function formatOfId(id: number): [string, { elements: number; bytes: number }] {
  for (const name of ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1', 'q5_0', 'q5_1', 'q4_k', 'q5_k', 'q6_k', 'mxfp4']) {
    const format = formatNamed(name);
    if (format.id === id) return [name, format];
  }
  throw new Error(`GGUF tensor type: found ${id}, which the oracle does not read`);
}
