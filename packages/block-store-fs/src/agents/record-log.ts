import { crc32 } from 'node:zlib';

/**
 * Append-only records: u32 length of the body, u32 CRC-32 of the body, the body. Eight bytes of magic begin the file. A body
 * is never empty, so zeros that a file system may leave where data was not yet written are no record.
 */
export const MAGIC_BYTES = 8;
const HEAD_BYTES = 8;

export interface RecordScan {
  readonly bodies: readonly Uint8Array[];
  /** Bytes up to the end of the last whole record. */
  readonly goodBytes: number;
  /** `torn`: what follows is part of one record. `damaged`: whole records follow the fault, so it is no unfinished write. */
  readonly ending: 'whole' | 'torn' | 'damaged' | 'foreign';
}

export function frameRecord(body: Uint8Array): Uint8Array {
  const bytes = Buffer.allocUnsafe(HEAD_BYTES + body.length);
  bytes.writeUInt32LE(body.length, 0);
  bytes.writeUInt32LE(crc32(body), 4);
  bytes.set(body, HEAD_BYTES);
  return bytes;
}

/** The bodies are views of `bytes`. */
export function scanRecords(bytes: Uint8Array, magic: string): RecordScan {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.toString('latin1', 0, MAGIC_BYTES) !== magic) return { bodies: [], goodBytes: 0, ending: 'foreign' };
  const bodies: Uint8Array[] = [];
  let position = MAGIC_BYTES;
  for (;;) {
    const body = bodyAt(view, position);
    if (body === null) break;
    bodies.push(body);
    position += HEAD_BYTES + body.length;
  }
  if (position === view.length) return { bodies, goodBytes: position, ending: 'whole' };
  return { bodies, goodBytes: position, ending: hasRecordAfter(view, position) ? 'damaged' : 'torn' };
}

function bodyAt(view: Buffer, position: number): Uint8Array | null {
  if (position + HEAD_BYTES > view.length) return null;
  const length = view.readUInt32LE(position);
  const start = position + HEAD_BYTES;
  if (length === 0 || start + length > view.length) return null;
  const body = view.subarray(start, start + length);
  return crc32(body) === view.readUInt32LE(position + 4) ? body : null;
}

/** The fault's own length is the only hint of where the next record begins. */
function hasRecordAfter(view: Buffer, position: number): boolean {
  if (position + HEAD_BYTES > view.length) return false;
  return bodyAt(view, position + HEAD_BYTES + view.readUInt32LE(position)) !== null;
}
