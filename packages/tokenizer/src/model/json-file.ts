import { KvasirError } from '@kvasir/domain';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { JsonObject } from './tokenizer-json.ts';

/**
 * JSON of one file of a model's directory; null where there is none.
 * @throws KvasirError `file-unreadable`, `file-corrupt`
 */
export async function readJson(directory: string, name: string): Promise<JsonObject | null> {
  const path = join(directory, name);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new KvasirError('file-unreadable', `${path}: expected a readable file, found ${String(error)}`, {
      cause: error,
    });
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject;
  } catch (error) {
    throw new KvasirError('file-corrupt', `${path}: expected JSON, found ${String(error)}`, { cause: error });
  }
  throw new KvasirError('file-corrupt', `${path}: expected a JSON object, found another value`);
}
