import { createHash, webcrypto } from 'node:crypto';
import { open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { makeDirectories, type ModelFile } from '@kvasir/models';

/** Leaves of the hash tree; a few are hashed at once, on the thread pool. */
const LEAF_BYTES = 16 * 2 ** 20;
const LEAVES_AT_ONCE = 4;
const MAX_KNOWN = 256;

/**
 * Names a model by every byte of its weight files, and of its configuration where that lies beside them (ADR-0012). A file
 * that was hashed before is known by device, inode, size and times, and is not read again.
 */
export async function modelFingerprint(
  model: Pick<ModelFile, 'format' | 'files' | 'metadata'>,
  cacheDir: string,
): Promise<string> {
  const known = await KnownFiles.read(path.join(cacheDir, 'fingerprints.json'));
  const hash = createHash('sha256').update('kvasir-model-1\n');
  for (const file of model.files) hash.update(`${await hashOfFile(file, known)}\n`);
  if (model.format === 'safetensors') hash.update(JSON.stringify(model.metadata));
  await known.save();
  return hash.digest('hex');
}

async function hashOfFile(file: string, known: KnownFiles): Promise<string> {
  const before = await identityOf(file);
  const found = known.get(before);
  if (found !== null) return found;
  const hash = await treeHash(file);
  // A file that changes while it is read is named by what was read, and read again the next time.
  if ((await identityOf(file)) === before) known.set(before, hash);
  return hash;
}

/** The change time cannot be set, so a file that was written to never looks as it did. */
async function identityOf(file: string): Promise<string> {
  const { dev, ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true });
  return [dev, ino, size, mtimeNs, ctimeNs].join(':');
}

/** SHA-256 over the SHA-256 of every leaf. */
async function treeHash(file: string): Promise<string> {
  const handle = await open(file);
  try {
    const { size } = await handle.stat();
    const numLeaves = Math.ceil(size / LEAF_BYTES);
    const leaves: Uint8Array[] = Array.from({ length: numLeaves }, () => new Uint8Array());
    let next = 0;
    const work = async (): Promise<void> => {
      const buffer = new Uint8Array(Math.min(LEAF_BYTES, size));
      for (let leaf = next++; leaf < numLeaves; leaf = next++) {
        const length = Math.min(LEAF_BYTES, size - leaf * LEAF_BYTES);
        let filled = 0;
        while (filled < length) {
          const { bytesRead } = await handle.read(buffer, filled, length - filled, leaf * LEAF_BYTES + filled);
          if (bytesRead === 0) break;
          filled += bytesRead;
        }
        leaves[leaf] = new Uint8Array(await webcrypto.subtle.digest('SHA-256', buffer.subarray(0, filled)));
      }
    };
    await Promise.all(Array.from({ length: LEAVES_AT_ONCE }, work));
    const root = createHash('sha256').update(`${size}\n`);
    for (const leaf of leaves) root.update(leaf);
    return root.digest('hex');
  } finally {
    await handle.close();
  }
}

/** Hashes by file identity, the latest last. What cannot be read or written costs a hash, not a start. */
class KnownFiles {
  readonly #file: string;
  readonly #hashes: Map<string, string>;
  #isChanged = false;

  private constructor(file: string, hashes: Map<string, string>) {
    this.#file = file;
    this.#hashes = hashes;
  }

  static async read(file: string): Promise<KnownFiles> {
    let entries: [string, string][] = [];
    try {
      const content: unknown = JSON.parse(await readFile(file, 'utf8'));
      const pairs = typeof content === 'object' && content !== null ? Object.entries(content) : [];
      entries = pairs.filter((pair): pair is [string, string] => /^[0-9a-f]{64}$/.test(String(pair[1])));
    } catch (error) {
      if (!(error instanceof SyntaxError) && (error as NodeJS.ErrnoException).code === undefined) throw error;
    }
    return new KnownFiles(file, new Map(entries));
  }

  get(identity: string): string | null {
    return this.#hashes.get(identity) ?? null;
  }

  set(identity: string, hash: string): void {
    this.#hashes.set(identity, hash);
    this.#isChanged = true;
  }

  async save(): Promise<void> {
    if (!this.#isChanged) return;
    const temporary = `${this.#file}.${process.pid}`;
    let isWritten = false;
    try {
      makeDirectories(path.dirname(this.#file));
      await writeFile(temporary, JSON.stringify(Object.fromEntries([...this.#hashes].slice(-MAX_KNOWN))));
      isWritten = true;
      await rename(temporary, this.#file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === undefined) throw error;
      if (isWritten) await rm(temporary, { force: true });
    }
  }
}
