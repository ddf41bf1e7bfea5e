/** Writes small GGUF files for the parser's tests, byte by byte and as wrong as a test wants them. */

export type MetadataEntry =
  | readonly [key: string, type: 'string', value: string]
  | readonly [key: string, type: 'uint32' | 'int32' | 'uint64' | 'float32' | 'bool', value: number]
  | readonly [key: string, type: 'strings', value: readonly string[]]
  | readonly [key: string, type: 'int32s' | 'float32s', value: readonly number[]]
  /** A value's bytes as they are: its type number, then whatever is given. */
  | readonly [key: string, type: 'raw', value: { readonly type: number; readonly bytes: Uint8Array }];

export interface TensorSpec {
  readonly name: string;
  /** GGML type number; 0 is F32. */
  readonly type?: number;
  /** Contiguous extent first, as in the file. */
  readonly extents: readonly number[];
  readonly byteLength: number;
  /** Relative to the data section; the next free place when absent. */
  readonly offset?: number;
  readonly bytes?: Uint8Array;
}

export interface GgufSpec {
  readonly magic?: string;
  readonly version?: number;
  readonly metadata: readonly MetadataEntry[];
  readonly tensors: readonly TensorSpec[];
  readonly numTensors?: bigint;
  readonly numEntries?: bigint;
  readonly alignment?: number;
}

export function ggufBytes(spec: GgufSpec): Buffer {
  const alignment = spec.alignment ?? 32;
  const parts: Uint8Array[] = [
    Buffer.from(spec.magic ?? 'GGUF', 'latin1'),
    u32(spec.version ?? 3),
    u64(spec.numTensors ?? BigInt(spec.tensors.length)),
    u64(spec.numEntries ?? BigInt(spec.metadata.length)),
    ...spec.metadata.flatMap(entryBytes),
  ];
  let next = 0;
  const places = spec.tensors.map((tensor) => {
    const offset = tensor.offset ?? next;
    next = Math.ceil((offset + tensor.byteLength) / alignment) * alignment;
    return { tensor, offset };
  });
  for (const { tensor, offset } of places) {
    parts.push(text(tensor.name), u32(tensor.extents.length), ...tensor.extents.map((extent) => u64(BigInt(extent))));
    parts.push(u32(tensor.type ?? 0), u64(BigInt(offset)));
  }
  const header = Buffer.concat(parts);
  const dataStart = Math.ceil(header.length / alignment) * alignment;
  const end = Math.max(0, ...places.map(({ tensor, offset }) => offset + tensor.byteLength));
  const file = Buffer.alloc(spec.tensors.length === 0 ? header.length : dataStart + end);
  header.copy(file);
  for (const { tensor, offset } of places) if (tensor.bytes !== undefined) file.set(tensor.bytes, dataStart + offset);
  return file;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

export function u64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

export function text(value: string): Buffer {
  const bytes = Buffer.from(value, 'utf8');
  return Buffer.concat([u64(BigInt(bytes.length)), bytes]);
}

export function f32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
}

function entryBytes([key, type, value]: MetadataEntry): Buffer[] {
  switch (type) {
    case 'string':
      return [text(key), u32(8), text(value)];
    case 'uint32':
      return [text(key), u32(4), u32(value)];
    case 'int32':
      return [text(key), u32(5), u32(value >>> 0)];
    case 'float32':
      return [text(key), u32(6), f32(value)];
    case 'bool':
      return [text(key), u32(7), Buffer.from([value])];
    case 'uint64':
      return [text(key), u32(10), u64(BigInt(value))];
    case 'strings':
      return [text(key), u32(9), u32(8), u64(BigInt(value.length)), ...value.map(text)];
    case 'int32s':
      return [text(key), u32(9), u32(5), u64(BigInt(value.length)), ...value.map((item) => u32(item >>> 0))];
    case 'float32s':
      return [text(key), u32(9), u32(6), u64(BigInt(value.length)), ...value.map(f32)];
    case 'raw':
      return [text(key), u32(value.type), Buffer.from(value.bytes)];
  }
}
