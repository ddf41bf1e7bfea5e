import type { ByteSource } from './byte-source.ts';

const SAMPLE_BYTES = 4 * 2 ** 20;
/** Vocabularies hold a few U+FFFD and line ends of their own; damage leaves thousands. */
const SUSPICIOUS_COUNT = 64;

/**
 * Says what happened to a binary file that went through a text conversion, or null when there is no sign of one. Costs a
 * pass over the first 4 MiB; called only when a file is already known to be damaged.
 */
export function describeTextDamage(source: ByteSource): string | null {
  const sample = Buffer.alloc(Math.min(source.size, SAMPLE_BYTES));
  source.read(0, sample);
  const advice = 'mark it as binary (git: *.gguf binary; FTP: binary mode) and copy the original again';
  const replaced = countOf(sample, [0xef, 0xbf, 0xbd]);
  if (replaced >= SUSPICIOUS_COUNT) {
    return `The file was damaged by a conversion of text (line endings or character set): ${replaced} sequences EF BF BD stand where other bytes were; ${advice}`;
  }
  const lineFeeds = countOf(sample, [0x0a]);
  if (lineFeeds >= SUSPICIOUS_COUNT && countOf(sample, [0x0d, 0x0a]) === lineFeeds) {
    return `The file was damaged by a line-ending conversion: each of its ${lineFeeds} bytes 0A follows a 0D; ${advice}`;
  }
  return null;
}

function countOf(haystack: Buffer, bytes: readonly number[]): number {
  const needle = Buffer.from(bytes);
  let count = 0;
  for (let at = haystack.indexOf(needle); at >= 0; at = haystack.indexOf(needle, at + needle.length)) count++;
  return count;
}
