import { KvasirError } from '@kvasir/domain';
import { checkJsonStructure } from './json-structure.ts';
import { withFile } from './byte-source.ts';

/**
 * Reads a text file of at most `maxBytes`.
 * @throws KvasirError `file-not-found`, `file-unreadable`, `file-truncated`, `file-corrupt`
 */
export function readTextFile(path: string, maxBytes: number): string {
  return withFile(path, (source) => {
    if (source.size > maxBytes) {
      throw new KvasirError('file-corrupt', `${path}: expected at most ${maxBytes} bytes, found ${source.size}`, {
        facts: { path, bytes: source.size },
      });
    }
    const bytes = new Uint8Array(source.size);
    source.read(0, bytes);
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch (cause) {
      throw new KvasirError('file-corrupt', `${path}: expected text in UTF-8, found other bytes`, {
        facts: { path },
        cause,
      });
    }
  });
}

/**
 * Reads a JSON file whose root is an object.
 * @throws as `readTextFile` and `parseJsonObject`
 */
export function readJsonObject(path: string, maxBytes: number): Readonly<Record<string, unknown>> {
  return parseJsonObject(path, readTextFile(path, maxBytes), { repeatedKeys: 'allow' });
}

/**
 * Parses JSON whose root is an object.
 * @param path for messages
 * @throws KvasirError `file-corrupt`; `file-foreign` for a Git LFS pointer or an HTML page in its place
 */
export function parseJsonObject(
  path: string,
  text: string,
  options: { repeatedKeys: 'allow' | 'refuse' },
): Readonly<Record<string, unknown>> {
  const foreign = text.startsWith('version https://git-lfs')
    ? 'a Git LFS pointer; run `git lfs pull`'
    : /^\s*</.test(text)
      ? 'an HTML page; download the file itself'
      : null;
  if (foreign !== null) {
    throw new KvasirError('file-foreign', `${path}: expected JSON, found ${foreign}`, { facts: { path } });
  }
  checkJsonStructure(text, path, options);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new KvasirError('file-corrupt', `${path}: expected JSON, found a fault: ${(cause as Error).message}`, {
      facts: { path },
      cause,
    });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new KvasirError('file-corrupt', `${path}: expected a JSON object, found another value`, { facts: { path } });
  }
  return value as Record<string, unknown>;
}
