import { execSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';

/** Writes everything out and forgets what files held; false where that is not permitted (it takes Linux and root). */
export function dropPageCache() {
  try {
    execSync('sync');
    writeFileSync('/proc/sys/vm/drop_caches', '3');
    return true;
  } catch (error) {
    console.error(`the page cache could not be dropped, figures are of cached files: ${error.message}`);
    return false;
  }
}

export function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}
