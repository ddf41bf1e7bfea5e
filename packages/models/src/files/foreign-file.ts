import { KvasirError } from '@kvasir/domain';
import type { ByteSource } from './byte-source.ts';

export type WeightFormat = 'gguf' | 'safetensors';

/**
 * What a file's first bytes say it is: one of ours, or null.
 * A safetensors file has no magic: a header length that is plausible, then the brace that opens a JSON object.
 */
export function sniffWeightFormat(source: ByteSource): WeightFormat | null {
  const head = readHead(source);
  if (startsWith(head, 'GGUF')) return 'gguf';
  const isSafetensors = head.length >= 9 && head.readUInt32LE(4) === 0 && head.readUInt32LE(0) > 0 && head[8] === 0x7b;
  return isSafetensors ? 'safetensors' : null;
}

/**
 * Refuses a file that is plainly something else, and says what it is and what to do about it.
 * @throws KvasirError `file-foreign`; `file-truncated` when there is nothing in it; `unsupported-format` for GGUF's
 *   predecessors and big-endian files
 */
export function rejectForeignFile(source: ByteSource, expected: WeightFormat): void {
  if (source.size === 0) {
    throw new KvasirError('file-truncated', `${source.path}: expected a ${expected} file, found an empty file`, {
      facts: { path: source.path },
    });
  }
  if (sniffWeightFormat(source) === expected) return;
  const head = readHead(source);
  // A safetensors file is known by its structure alone: damage to it is for its own reader to name.
  const signature = SIGNATURES.find(({ matches }) => matches(head));
  if (signature === undefined && expected === 'safetensors') return;
  const found = signature?.found ?? `bytes ${[...head.subarray(0, 8)].map(hex).join(' ')}`;
  throw new KvasirError(
    signature?.code ?? 'file-foreign',
    `${source.path}: expected a ${expected} file, found ${found}`,
    { facts: { path: source.path, offset: 0 } },
  );
}

// ---------------------------------------------------------------------------------------------------------- signatures

interface Signature {
  readonly matches: (head: Buffer) => boolean;
  readonly found: string;
  readonly code?: 'unsupported-format' | 'file-truncated';
}

const HEAD_BYTES = 512;
const CONVERT = 'convert the model to GGUF or safetensors first';

const SIGNATURES: readonly Signature[] = [
  {
    matches: (head) => startsWith(head, 'GGUF'),
    found: 'a GGUF file; pass it by its .gguf path',
  },
  {
    matches: (head) => startsWith(head, 'FUGG'),
    found: 'a big-endian GGUF file; convert it with gguf_convert_endian.py',
    code: 'unsupported-format',
  },
  {
    matches: (head) => ['lmgg', 'fmgg', 'tjgg', 'algg'].some((magic) => startsWith(head, magic)),
    found: 'a file of the GGML formats before GGUF; convert the original model to GGUF',
    code: 'unsupported-format',
  },
  {
    matches: (head) => startsWith(head, 'version https://git-lfs'),
    found: 'a Git LFS pointer in place of the file; run `git lfs pull` or download the file itself',
  },
  {
    matches: (head) => /^\s*(?:<!doctype|<html|<\?xml|<head)/i.test(head.toString('latin1')),
    found: 'an HTML page; the download went to a web page: use the link of the file itself',
  },
  {
    matches: (head) => startsWith(head, 'PK\u0003\u0004'),
    found: `a zip archive (a PyTorch checkpoint or a packed model); unpack it, or ${CONVERT}`,
  },
  {
    matches: (head) => head[0] === 0x80 && head[1] !== undefined && head[1] >= 2 && head[1] <= 5,
    found: `a Python pickle (an old PyTorch checkpoint); ${CONVERT}`,
  },
  {
    matches: (head) =>
      startsWith(head, '\u001f\u008b') || startsWith(head, 'BZh') || startsWith(head, '(\u00b5/\u00fd'),
    found: 'a compressed file (gzip, bzip2 or zstd); unpack it first',
  },
  {
    matches: (head) => startsWith(head, '\u00fd7zXZ') || startsWith(head, '7z\u00bc\u00af'),
    found: 'a compressed file (xz or 7z); unpack it first',
  },
  { matches: (head) => head.toString('latin1', 257, 262) === 'ustar', found: 'a tar archive; unpack it first' },
  { matches: (head) => startsWith(head, '\u0089HDF'), found: `an HDF5 file (Keras); ${CONVERT}` },
  { matches: (head) => startsWith(head, '\u0093NUMPY'), found: `a NumPy array; ${CONVERT}` },
  {
    matches: (head) => head.length >= 9 && head.readUInt32LE(4) === 0 && head.readUInt32LE(0) > 0 && head[8] === 0x7b,
    found: 'a safetensors file; pass the directory that holds it and its config.json',
  },
  { matches: (head) => /^\s*[{[]/.test(head.toString('latin1')), found: 'JSON text; pass the model file itself' },
  {
    matches: (head) => head.every((byte) => byte === 0),
    found: 'zero bytes at its start; the download or copy was interrupted: delete it and download it again',
    code: 'file-truncated',
  },
  {
    matches: (head) => head.length < 4 && 'GGUF'.startsWith(head.toString('latin1')),
    found: 'only the beginning of the magic bytes; the file is incomplete, download or copy it again',
    code: 'file-truncated',
  },
];

function readHead(source: ByteSource): Buffer {
  const head = Buffer.alloc(Math.min(source.size, HEAD_BYTES));
  source.read(0, head);
  return head;
}

function startsWith(head: Buffer, magic: string): boolean {
  return head.toString('latin1', 0, magic.length) === magic;
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}
