import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The folder of reference data beside the checkout, or null with a loud line where it is absent. */
export function sharedData(folder: string): string | null {
  const root = process.env.KVASIR_SHARED ?? fileURLToPath(new URL('../../../../../shared', import.meta.url));
  const path = `${root}/data/${folder}`;
  if (existsSync(path)) return path;
  process.stderr.write(
    `SKIPPED: reference data ${folder} is absent (set KVASIR_SHARED to the folder that holds data/)\n`,
  );
  return null;
}
