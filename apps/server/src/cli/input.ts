import { readFile } from 'node:fs/promises';
import { KvasirError } from '@kvasir/domain';

/** A text file, or standard input for `-`. @throws KvasirError as `readBytes`, `file-foreign` when it is no UTF-8 */
export async function readText(file: string): Promise<string> {
  const bytes = await readBytes(file);
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new KvasirError('file-foreign', `${file}: expected UTF-8 text, found other bytes`, { cause });
  }
}

/** @throws KvasirError `file-not-found`, `file-unreadable` */
export async function readBytes(file: string): Promise<Uint8Array> {
  try {
    return file === '-' ? await readStandardInput() : await readFile(file);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    throw new KvasirError(
      code === 'ENOENT' ? 'file-not-found' : 'file-unreadable',
      `${file}: expected a readable file, found ${code ?? String(cause)}`,
      { cause },
    );
  }
}

async function readStandardInput(): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks);
}
