import type { StoredTensor } from './gguf.ts';

const DTYPES: Readonly<Record<string, string>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/** A safetensors file of float tensors. Source: the safetensors format description (8-byte length, JSON, data). */
export function writeSafetensors(tensors: readonly StoredTensor[]): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let offset = 0;
  for (const { name, shape, format, bytes } of tensors) {
    header[name] = { dtype: format.toUpperCase(), shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  const json = JSON.stringify(header);
  const text = new TextEncoder().encode(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = new DataView(new ArrayBuffer(8));
  length.setBigUint64(0, BigInt(text.length), true);
  return Buffer.concat([new Uint8Array(length.buffer), text, ...tensors.map((tensor) => tensor.bytes)]);
}

/** Reads a well-formed file; tensors of other types (int32 goldens) are given with their dtype in lower case. */
export function readSafetensors(file: Uint8Array): Map<string, StoredTensor> {
  const data = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = Number(data.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length))) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, StoredTensor>();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const [from, to] = data_offsets;
    const bytes = file.subarray(8 + length + from, 8 + length + to);
    tensors.set(name, { name, shape, format: DTYPES[dtype] ?? dtype.toLowerCase(), bytes });
  }
  return tensors;
}
