import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * The folder of published reference models and vectors, or null where this checkout has none beside it. Set
 * KVASIR_SHARED to point elsewhere. Tests that need it say so when they are skipped.
 */
export function sharedData(): string | null {
  // dist/ and src/ both lie three folders below the repository's root.
  const beside = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../../../shared');
  const folder = path.join(process.env['KVASIR_SHARED'] ?? beside, 'data');
  if (existsSync(folder)) return folder;
  console.warn(`SKIPPED: no reference data at ${folder}; tests against published models and vectors do not run`);
  return null;
}
