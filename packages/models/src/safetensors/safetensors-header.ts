import { KvasirError, type TensorDType } from '@kvasir/domain';
import type { ByteSource } from '../files/byte-source.ts';
import { rejectForeignFile } from '../files/foreign-file.ts';
import type { StoredTensor } from '../model-file.ts';
import { STORED_LAYOUTS, type UnsupportedDType } from '../stored-dtype.ts';
import { checkJsonStructure } from '../files/json-structure.ts';

export interface SafetensorsHeader {
  /** In the order of their bytes, offsets from the file's start. */
  readonly tensors: readonly Omit<StoredTensor, 'file'>[];
  /** `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** The format's own limit. */
const MAX_HEADER_BYTES = 100_000_000;
const MAX_RANK = 8;

/** dtype names of the format that have a fixed number of bytes an element. */
const DTYPES: ReadonlyMap<string, TensorDType | UnsupportedDType> = new Map([
  ['F32', 'f32'],
  ['F16', 'f16'],
  ['BF16', 'bf16'],
  ['F64', 'f64'],
  ['BOOL', 'bool'],
  ['U8', 'u8'],
  ['I8', 'i8'],
  ['U16', 'u16'],
  ['I16', 'i16'],
  ['U32', 'u32'],
  ['I32', 'i32'],
  ['U64', 'u64'],
  ['I64', 'i64'],
  ['F8_E4M3', 'f8_e4m3'],
  ['F8_E5M2', 'f8_e5m2'],
  ['F8_E8M0', 'f8_e8m0'],
]);

/**
 * Reads and checks a safetensors header: eight bytes of length, JSON, then the tensors without gaps to the file's end.
 *
 * Source: the safetensors format description (huggingface/safetensors README).
 * @throws KvasirError `file-foreign`, `file-truncated`, `file-corrupt`, `unsupported-format`
 * Cost: reads and parses the header, at most 100 MB.
 */
export function readSafetensorsHeader(source: ByteSource): SafetensorsHeader {
  rejectForeignFile(source, 'safetensors');
  const { text, dataStart } = readHeaderText(source);
  checkJsonStructure(text, source.path, { repeatedKeys: 'refuse' });
  const header = parseObject(source.path, text);
  let metadata: Record<string, string> = {};
  const tensors: Omit<StoredTensor, 'file'>[] = [];
  for (const [name, value] of Object.entries(header)) {
    if (name === '__metadata__') metadata = readFileMetadata(source.path, value);
    else tensors.push(readEntry(source.path, name, value, dataStart));
  }
  tensors.sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  checkPlaces(source, tensors, dataStart);
  return { tensors, metadata };
}

// -------------------------------------------------------------------------------------------------------------- pieces

function readHeaderText(source: ByteSource): { text: string; dataStart: number } {
  const { path, size } = source;
  if (size < 8)
    throw fail('file-truncated', path, 0, `expected 8 bytes of header length, found a file of ${size} bytes`);
  const lengthBytes = Buffer.alloc(8);
  source.read(0, lengthBytes);
  const length = lengthBytes.readBigUInt64LE();
  if (length < 2n || length > BigInt(MAX_HEADER_BYTES)) {
    throw fail('file-corrupt', path, 0, `expected a header length from 2 to ${MAX_HEADER_BYTES}, found ${length}`);
  }
  if (length > BigInt(size - 8)) {
    throw fail(
      'file-truncated',
      path,
      8,
      `expected a header of ${length} bytes, found ${size - 8} bytes left; the file is incomplete, download or copy it again`,
    );
  }
  const bytes = new Uint8Array(Number(length));
  source.read(8, bytes);
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    return { text, dataStart: 8 + bytes.length };
  } catch (cause) {
    throw fail('file-corrupt', path, 8, 'expected a header in UTF-8, found other bytes', cause);
  }
}

function parseObject(path: string, text: string): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (cause) {
    throw fail('file-corrupt', path, 8, `expected a header in JSON, found a fault: ${(cause as Error).message}`, cause);
  }
  if (!isRecord(header))
    throw fail('file-corrupt', path, 8, 'expected the header to be a JSON object, found another value');
  return header;
}

function readFileMetadata(path: string, value: unknown): Record<string, string> {
  if (isRecord(value) && Object.values(value).every((item) => typeof item === 'string')) {
    return value as Record<string, string>;
  }
  throw fail('file-corrupt', path, 8, 'expected __metadata__ to map names to strings, found another value');
}

function readEntry(path: string, name: string, value: unknown, dataStart: number): Omit<StoredTensor, 'file'> {
  const where = `tensor ${JSON.stringify(name.slice(0, 120))}: `;
  const corrupt = (message: string) => fail('file-corrupt', path, 8, where + message);
  if (!isRecord(value)) throw corrupt('expected an object with dtype, shape and data_offsets, found another value');
  const { dtype: dtypeName, shape, data_offsets: offsets } = value;
  if (typeof dtypeName !== 'string') throw corrupt('expected dtype to be text, found another value');
  const dtype = DTYPES.get(dtypeName);
  if (dtype === undefined) {
    throw fail(
      'unsupported-format',
      path,
      8,
      `${where}expected a known dtype, found ${JSON.stringify(dtypeName.slice(0, 40))}; supported: F32, F16, BF16`,
    );
  }
  if (!Array.isArray(shape) || shape.length > MAX_RANK || !shape.every(isExtent)) {
    throw corrupt(`expected a shape of at most ${MAX_RANK} extents ≥ 0, found ${show(shape)}`);
  }
  const extents = shape as number[];
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isExtent)) {
    throw corrupt(`expected data_offsets of two positions, found ${show(offsets)}`);
  }
  const [begin, end] = offsets as [number, number];
  // An extent of 0 empties the tensor whatever the others say, so it must not hide an overflow of their product.
  const elements = extents.includes(0) ? 0 : extents.reduce((product, extent) => product * extent, 1);
  const byteLength = elements * STORED_LAYOUTS[dtype].bytes;
  if (!Number.isSafeInteger(byteLength) || end - begin !== byteLength) {
    throw corrupt(
      `expected ${dtypeName} ${show(extents)} to take ${byteLength} bytes, found data_offsets ${begin} to ${end}`,
    );
  }
  return { name, dtype, shape: extents, offset: dataStart + begin, byteLength };
}

/** The format wants the tensors' bytes back to back and nothing else in the file. */
function checkPlaces(source: ByteSource, inOrder: readonly Omit<StoredTensor, 'file'>[], dataStart: number): void {
  let end = dataStart;
  for (const { name, offset, byteLength } of inOrder) {
    if (offset !== end) {
      const found = offset < end ? 'an overlap' : 'a gap';
      throw fail(
        'file-corrupt',
        source.path,
        offset,
        `tensor ${JSON.stringify(name.slice(0, 120))}: expected its bytes to start at byte ${end}, found ${found}: they start at ${offset}`,
      );
    }
    end = offset + byteLength;
  }
  if (end === source.size) return;
  if (end > source.size) {
    throw fail(
      'file-truncated',
      source.path,
      source.size,
      `expected ${end} bytes, found ${source.size}; the file is incomplete, download or copy it again`,
    );
  }
  throw fail('file-corrupt', source.path, end, `expected the file to end here, found ${source.size - end} more bytes`);
}

function isExtent(value: unknown): boolean {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function show(value: unknown): string {
  return (JSON.stringify(value) ?? 'nothing').slice(0, 120);
}

function fail(
  code: 'file-corrupt' | 'file-truncated' | 'unsupported-format',
  path: string,
  offset: number,
  message: string,
  cause?: unknown,
): KvasirError {
  return new KvasirError(code, `${path}: safetensors header at byte ${offset}: ${message}`, {
    facts: { path, offset },
    ...(cause === undefined ? {} : { cause }),
  });
}
