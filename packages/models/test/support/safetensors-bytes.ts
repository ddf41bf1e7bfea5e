import { u64 } from './gguf-bytes.ts';

export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly byteLength: number;
}

/**
 * A file of zero weights with its tensors back to back.
 * @param padding more spaces behind the header, to put the tensors at odd places
 */
export function safetensorsBytes(entries: readonly SafetensorsEntry[], padding = 0): Buffer {
  let offset = 0;
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  for (const { name, dtype, shape, byteLength } of entries) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + byteLength] };
    offset += byteLength;
  }
  const text = JSON.stringify(header);
  // As current writers do: spaces until the tensors start at a multiple of 8.
  return safetensorsFile(text.padEnd(Math.ceil(text.length / 8) * 8 + padding), offset);
}

/** Any header text before any number of zero bytes. */
export function safetensorsFile(header: string, dataBytes: number, headerLength?: bigint): Buffer {
  const bytes = Buffer.from(header);
  return Buffer.concat([u64(headerLength ?? BigInt(bytes.length)), bytes, Buffer.alloc(dataBytes)]);
}
