import { execSync } from 'node:child_process';
import { closeSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';

const CHUNK_BYTES = 4 << 20;

/** Writes everything out and forgets what files held. Takes Linux and root. */
export function dropPageCache() {
  execSync('sync');
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}

export function canDropPageCache() {
  try {
    dropPageCache();
    return true;
  } catch {
    return false;
  }
}

/** A file of `bytes` bytes that no compression shortens, written from `source` over and over. */
export function writePlainFile(file, bytes, source) {
  const out = openSync(file, 'w');
  for (let left = bytes; left > 0; left -= source.length) {
    writeSync(out, source.subarray(0, Math.min(left, source.length)));
  }
  closeSync(out);
}

const chunk = Buffer.alloc(CHUNK_BYTES, 1);

/** From its first byte to its last in reads of 4 MiB. @returns milliseconds */
export function readPlainFile(file) {
  const start = performance.now();
  const input = openSync(file);
  while (readSync(input, chunk, 0, chunk.length, null) > 0);
  closeSync(input);
  return performance.now() - start;
}
