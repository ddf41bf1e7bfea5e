import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { KvasirError, isKvasirError } from '@kvasir/domain';
import { afterAll, expect } from 'vitest';
import type { ByteSource } from '../../src/files/byte-source.ts';

/** A folder that disappears with the test file. */
export function temporaryDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), 'kvasir-models-'));
  afterAll(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Writes files by their paths inside a directory; objects become JSON. */
export function writeFiles(directory: string, files: Readonly<Record<string, Uint8Array | string | object>>): string {
  for (const [name, content] of Object.entries(files)) {
    const path = join(directory, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(
      path,
      typeof content === 'string' || content instanceof Uint8Array ? content : JSON.stringify(content),
    );
  }
  return directory;
}

/** @param tailBytes zeros that follow `bytes` in the file without taking memory */
export function memorySource(bytes: Uint8Array, path = 'memory.gguf', tailBytes = 0): ByteSource {
  const size = bytes.length + tailBytes;
  return {
    path,
    size,
    read(offset, target) {
      if (offset + target.length > size) throw new RangeError('a parser read past the end it was told of');
      target.fill(0);
      target.set(bytes.subarray(offset, offset + target.length));
    },
  };
}

/** Code and message of what an action throws; fails the test when it is no KvasirError or nothing. */
export async function failureOf(action: () => unknown): Promise<{ code: string; message: string }> {
  try {
    await action();
  } catch (error) {
    if (!isKvasirError(error)) throw error;
    const { code, message } = error as KvasirError;
    return { code, message };
  }
  expect.unreachable('expected a KvasirError, nothing was thrown');
}

/** The folder of reference data, or null where a checkout has none: `KVASIR_SHARED`, else `shared` beside it. */
export function sharedDirectory(): string | null {
  const path = process.env['KVASIR_SHARED'] ?? resolve(import.meta.dirname, '../../../../../shared');
  if (existsSync(join(path, 'data', 'models'))) return join(path, 'data');
  console.warn(`SKIPPED: the reference models are not at ${path}; set KVASIR_SHARED to test against them`);
  return null;
}
