import type { StoredTensor } from '../model-file.ts';
import { STORED_LAYOUTS } from '../stored-dtype.ts';
import { GGML_TYPES, SUPPORTED_DTYPES } from './ggml-types.ts';
import type { GgufCursor } from './gguf-cursor.ts';
import { readName } from './gguf-metadata.ts';

export const MAX_TENSORS = 262_144;
/** Smallest tensor entry: name length, one letter, rank, one extent, type, offset. */
export const MIN_TENSOR_ENTRY_BYTES = 8 + 1 + 4 + 8 + 4 + 8;
const MAX_NAME_BYTES = 1024;
const MAX_RANK = 4;

/** A tensor as its entry says, its offset still relative to the data section. */
export type TensorEntry = Omit<StoredTensor, 'file'>;

/**
 * Reads the tensor entries; the cursor stands at the first. Extents, types and sizes are checked, positions are not yet.
 * @throws KvasirError `file-corrupt`, `file-truncated`, `unsupported-format` (a tensor type nobody here knows)
 */
export function readTensorEntries(cursor: GgufCursor, numTensors: number, alignment: number): TensorEntry[] {
  const entries: TensorEntry[] = [];
  const names = new Set<string>();
  for (let index = 0; index < numTensors; index++) {
    cursor.part = `tensor entry ${index + 1} of ${numTensors}`;
    const name = readName(cursor, 'tensor name', MAX_NAME_BYTES);
    cursor.part = `tensor ${JSON.stringify(name.slice(0, 120))}`;
    if (names.has(name)) throw cursor.corrupt('expected every tensor name once, found it again');
    names.add(name);
    entries.push(readEntry(cursor, name, alignment));
  }
  return entries;
}

/**
 * Turns relative offsets into the file's and checks every tensor against the file's size and its neighbours.
 * @throws KvasirError `file-truncated`, `file-corrupt`
 */
export function placeTensors(cursor: GgufCursor, entries: readonly TensorEntry[], dataStart: number): TensorEntry[] {
  const placed = entries.map((entry) => ({ ...entry, offset: entry.offset + dataStart }));
  const inOrder = [...placed].sort((a, b) => a.offset - b.offset);
  for (const [index, tensor] of inOrder.entries()) {
    const end = tensor.offset + tensor.byteLength;
    cursor.part = `tensor ${JSON.stringify(tensor.name.slice(0, 120))}`;
    if (end > cursor.size) {
      throw cursor.error(
        'file-truncated',
        `expected its ${tensor.byteLength} bytes at byte ${tensor.offset}, found a file of ${cursor.size} bytes; the file is incomplete, download or copy it again`,
        0,
      );
    }
    const next = inOrder[index + 1];
    if (next !== undefined && next.offset < end) {
      throw cursor.corrupt(
        `expected tensors apart, found its bytes ${tensor.offset} to ${end} and ${JSON.stringify(next.name)} from byte ${next.offset}`,
      );
    }
  }
  return placed;
}

// ---------------------------------------------------------------------------------------------------------- one entry

function readEntry(cursor: GgufCursor, name: string, alignment: number): TensorEntry {
  const rank = cursor.readUint32();
  if (rank < 1 || rank > MAX_RANK) throw cursor.corrupt(`expected a rank from 1 to ${MAX_RANK}, found ${rank}`, 4);
  // The file lists the contiguous extent first.
  const extents: number[] = [];
  let elements = 1;
  for (let axis = 0; axis < rank; axis++) {
    const extent = cursor.readCount('an extent', Number.MAX_SAFE_INTEGER);
    elements *= extent;
    if (extent === 0 || !Number.isSafeInteger(elements)) {
      throw cursor.corrupt(
        `expected extents ≥ 1 with a product below 2^53, found ${[...extents, extent].join(' × ')}`,
        8,
      );
    }
    extents.push(extent);
  }
  const type = cursor.readUint32();
  const dtype = GGML_TYPES.get(type);
  if (dtype === undefined) {
    const message = `expected a known tensor type, found type ${type}; supported: ${SUPPORTED_DTYPES}`;
    throw type < 256 ? cursor.error('unsupported-format', message, 4) : cursor.corrupt(message, 4);
  }
  const layout = STORED_LAYOUTS[dtype];
  const rowLength = extents[0] as number;
  if (rowLength % layout.elements !== 0) {
    throw cursor.corrupt(
      `expected rows of a multiple of ${layout.elements} elements for ${dtype.toUpperCase()}, found ${rowLength}`,
      4,
    );
  }
  const byteLength = (elements / layout.elements) * layout.bytes;
  const offset = cursor.readCount('an offset', Number.MAX_SAFE_INTEGER);
  if (!Number.isSafeInteger(byteLength) || !Number.isSafeInteger(offset + byteLength + cursor.size)) {
    throw cursor.corrupt(`expected a tensor that ends below 2^53, found ${byteLength} bytes at offset ${offset}`, 8);
  }
  if (offset % alignment !== 0) {
    throw cursor.corrupt(`expected an offset aligned to ${alignment} bytes, found ${offset}`, 8);
  }
  return { name, dtype, shape: extents.reverse(), offset, byteLength };
}
