import type { ByteSource } from '../files/byte-source.ts';
import { rejectForeignFile } from '../files/foreign-file.ts';
import { describeTextDamage } from '../files/text-damage.ts';
import { GgufCursor } from './gguf-cursor.ts';
import { MAX_METADATA_ENTRIES, readMetadata } from './gguf-metadata.ts';
import {
  MAX_TENSORS,
  MIN_TENSOR_ENTRY_BYTES,
  placeTensors,
  readTensorEntries,
  type TensorEntry,
} from './gguf-tensors.ts';
import type { GgufMetadata } from './gguf-value.ts';
import { KvasirError, isKvasirError } from '@kvasir/domain';

export interface GgufHeader {
  readonly version: 2 | 3;
  readonly metadata: GgufMetadata;
  /** In file order, offsets from the file's start. */
  readonly tensors: readonly TensorEntry[];
}

const DEFAULT_ALIGNMENT = 32;
const MIN_ALIGNMENT = 8;
const MAX_ALIGNMENT = 2 ** 20;
/** Smallest metadata entry: key length, one letter, type, one byte. */
const MIN_ENTRY_BYTES = 8 + 1 + 4 + 1;

/**
 * Reads and checks a GGUF file's header: everything before the tensors' bytes, and where those lie.
 *
 * Source: the GGUF specification (ggml repository, docs/gguf.md), versions 2 and 3, little-endian.
 * @throws KvasirError `file-foreign`, `file-truncated`, `file-corrupt`, `unsupported-format`
 * Cost: one pass over the header in small reads; memory is what the metadata holds.
 */
export function readGgufHeader(source: ByteSource): GgufHeader {
  rejectForeignFile(source, 'gguf');
  try {
    return readHeader(new GgufCursor(source));
  } catch (error) {
    if (!isKvasirError(error) || (error.code !== 'file-corrupt' && error.code !== 'file-truncated')) throw error;
    const damage = describeTextDamage(source);
    if (damage === null) throw error;
    throw new KvasirError('file-corrupt', `${error.message}. ${damage}`, { facts: error.facts, cause: error });
  }
}

// ------------------------------------------------------------------------------------------------------------ sections

function readHeader(cursor: GgufCursor): GgufHeader {
  cursor.part = 'GGUF header';
  cursor.peekBytes(4);
  const version = readVersion(cursor);
  const numTensors = cursor.readCount('a tensor count', MAX_TENSORS);
  const numEntries = cursor.readCount('a metadata entry count', MAX_METADATA_ENTRIES);
  cursor.require(numTensors * MIN_TENSOR_ENTRY_BYTES + numEntries * MIN_ENTRY_BYTES);
  const metadata = readMetadata(cursor, numEntries);
  const alignment = alignmentOf(cursor, metadata);
  const entries = readTensorEntries(cursor, numTensors, alignment);
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  return { version, metadata, tensors: placeTensors(cursor, entries, dataStart) };
}

function readVersion(cursor: GgufCursor): 2 | 3 {
  const version = cursor.readUint32();
  if (version === 2 || version === 3) return version;
  if (version !== 0 && version % 65_536 === 0) {
    throw cursor.error(
      'unsupported-format',
      'expected a little-endian GGUF file, found a big-endian one; convert it with gguf_convert_endian.py',
      4,
    );
  }
  throw cursor.error(
    version < 256 ? 'unsupported-format' : 'file-corrupt',
    `expected GGUF version 2 or 3, found ${version}; convert the model again with a current converter`,
    4,
  );
}

function alignmentOf(cursor: GgufCursor, metadata: GgufMetadata): number {
  const alignment = metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT;
  const isUsable =
    typeof alignment === 'number' &&
    Number.isInteger(alignment) &&
    alignment >= MIN_ALIGNMENT &&
    alignment <= MAX_ALIGNMENT &&
    Number.isInteger(Math.log2(alignment));
  if (isUsable) return alignment;
  cursor.part = 'metadata key "general.alignment"';
  throw cursor.corrupt(
    `expected a power of two from ${MIN_ALIGNMENT} to ${MAX_ALIGNMENT}, found ${String(alignment).slice(0, 40)}`,
  );
}
