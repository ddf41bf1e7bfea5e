import {
  BLOCK_MISSES,
  type BlockKey,
  type BlockListing,
  type BlockMiss,
  type BlockPayload,
  type BlockStoreUsage,
  type BlockStoring,
} from '@kvasir/domain';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { FOLDERS, keyOfBlockFile, type CacheLayout } from '../files/cache-layout.ts';
import { writeAtomically, type FileSystem } from '../files/file-system.ts';
import { blockSubject, Quarantine } from '../files/quarantine.ts';
import { isFileFailure, refusalOf, toStorageError } from '../files/storage-failure.ts';
import { encodeHeader } from './block-header.ts';
import { payloadRuns, piecesOf, storedPayloadBytes } from './payload-runs.ts';
import { NO_SUM, sumOf } from './payload-sum.ts';
import { encodeUsage, readUsage } from './usage-record.ts';
import { WriteBudget, type BlockBudgets } from './write-budget.ts';

export interface KeeperContext {
  readonly files: FileSystem;
  readonly layout: CacheLayout;
  readonly budgets: BlockBudgets;
  readonly now: () => number;
}

type KeeperUsage = Omit<BlockStoreUsage, 'hits' | 'misses'>;

/** Written together, flushed together: bounds what a power cut can take and how long a batch holds memory dirty. */
const GROUP_BYTES = 64 << 20;
const GROUP_BLOCKS = 64;

interface WrittenFile {
  readonly index: number;
  readonly key: BlockKey;
  readonly temporary: string;
  readonly bytes: number;
  /** null once it is closed: a descriptor's number is soon another file's. */
  file: number | null;
}

/**
 * The one writer of block files: stores, removes, sets aside, counts. Lives in a worker thread and runs one call at a
 * time. Readers work beside it: a block appears under its name by a rename and is never changed afterwards.
 */
export class BlockKeeper {
  readonly #context: KeeperContext;
  readonly #quarantine: Quarantine;
  readonly #budget: WriteBudget;
  readonly #storings: Record<BlockStoring, number> = {
    stored: 0,
    present: 0,
    'over-budget': 0,
    'over-write-budget': 0,
    'disk-full': 0,
    unwritable: 0,
  };
  #blocks: number;
  #bytes: number;
  #writtenBytes: number;
  #setAside = 0;
  #temporaryFilesRemoved = 0;
  #nextTemporary = 0;
  /** Recount after an unclean stop: folders below `next` are counted, null when the figures are exact. */
  #recount: { next: number; blocks: number; bytes: number } | null = null;

  private constructor(context: KeeperContext) {
    this.#context = context;
    this.#quarantine = new Quarantine(context.files, context.layout, context.now);
    const usage = readUsage(context.files, context.layout);
    this.#writtenBytes = usage.writtenBytes;
    this.#budget = new WriteBudget(context.budgets, usage.period);
    const names = new Set(context.files.list(context.layout.blocks));
    const isEmpty = !FOLDERS.some((folder) => names.has(folder));
    this.#blocks = isEmpty ? 0 : usage.blocks;
    this.#bytes = isEmpty ? 0 : usage.bytes;
    if (!usage.isExact && !isEmpty) this.#recount = { next: 0, blocks: 0, bytes: 0 };
  }

  /** Removes unfinished writes, and marks the counts as unsure for whoever comes after a crash. */
  static async open(context: KeeperContext): Promise<BlockKeeper> {
    const { files, layout } = context;
    for (const directory of [layout.blocks, layout.blocksTemporary, layout.quarantine]) files.makeDirectory(directory);
    await files.flushDirectories([layout.directory]);
    const keeper = new BlockKeeper(context);
    for (const name of files.list(layout.blocksTemporary)) {
      if (files.remove(join(layout.blocksTemporary, name))) keeper.#temporaryFilesRemoved++;
    }
    await keeper.#saveUsage(false);
    return keeper;
  }

  async put(
    blocks: readonly BlockPayload[],
    isCancelled: () => boolean,
  ): Promise<readonly (BlockStoring | 'cancelled')[]> {
    const results: (BlockStoring | 'cancelled')[] = blocks.map(() => 'cancelled');
    let next = 0;
    while (next < blocks.length && !isCancelled()) next = await this.#putGroup(blocks, next, results);
    for (const result of results) if (result !== 'cancelled') this.#storings[result]++;
    this.#rememberUsage();
    return results;
  }

  /** @throws KvasirError `disk-unwritable` */
  async remove(keys: readonly BlockKey[]): Promise<readonly boolean[]> {
    const { files, layout } = this.#context;
    const folders = new Set<string>();
    try {
      const kept = this.#quarantine.forget(new Set(keys.map(({ hash, group }) => blockSubject(hash, group))));
      const removed = keys.map(({ hash, group }) => {
        const path = layout.blockFile(hash, group);
        const facts = files.describe(path);
        if (facts === null || !files.remove(path)) return false;
        folders.add(layout.blockFolder(hash));
        this.#count(hash, -1, -facts.bytes);
        return true;
      });
      await files.flushDirectories(kept.size > 0 ? [...folders, layout.quarantine] : [...folders]);
      this.#rememberUsage();
      return removed.map((was, index) => was || kept.has(subjectAt(keys, index)));
    } catch (error) {
      throw toStorageError(error, 'deleting blocks');
    }
  }

  /** Takes a damaged file out of service, unless another has taken its name since it was judged. */
  setAside(key: BlockKey, inode: number, reason: BlockMiss): boolean {
    const { files, layout } = this.#context;
    const path = layout.blockFile(key.hash, key.group);
    try {
      const facts = files.describe(path);
      if (facts === null || facts.inode !== inode) return false;
      this.#quarantine.take(path, blockSubject(key.hash, key.group), reason);
      this.#count(key.hash, -1, -facts.bytes);
      this.#setAside++;
      return true;
    } catch (error) {
      // A read-only disk keeps its damaged file; it is judged again at every load and never served.
      if (isFileFailure(error)) return false;
      throw error;
    }
  }

  /** Keys of one folder; `folder` counts up to `FOLDERS.length`. */
  list(folder: number): readonly BlockListing[] {
    const { files, layout } = this.#context;
    const directory = join(layout.blocks, FOLDERS[folder] ?? '');
    return files.list(directory).flatMap((name) => {
      const key = keyOfBlockFile(name);
      const facts = key === null ? null : files.describe(join(directory, name));
      return key === null || facts === null ? [] : [{ key, bytes: facts.bytes }];
    });
  }

  /** Counts one more folder after an unclean stop. @returns whether more are to be counted */
  countNext(): boolean {
    const recount = this.#recount;
    if (recount === null) return false;
    for (const { bytes } of this.list(recount.next)) {
      recount.blocks++;
      recount.bytes += bytes;
    }
    recount.next++;
    if (recount.next < FOLDERS.length) return true;
    this.#blocks = recount.blocks;
    this.#bytes = recount.bytes;
    this.#recount = null;
    return false;
  }

  usage(): KeeperUsage {
    const { budgets, now } = this.#context;
    return {
      blocks: this.#recount === null ? this.#blocks : Math.max(this.#blocks, this.#recount.blocks),
      bytes: this.#keptBytes(),
      isExact: this.#recount === null,
      budgetBytes: budgets.keptBytes,
      writtenBytes: this.#writtenBytes,
      writtenBytesThisPeriod: this.#budget.use(now()).bytes,
      writeBudgetBytes: budgets.writtenBytes,
      storings: { ...this.#storings },
      setAside: this.#setAside,
      temporaryFilesRemoved: this.#temporaryFilesRemoved,
    };
  }

  async close(): Promise<void> {
    await this.#saveUsage(this.#recount === null);
  }

  // ------------------------------------------------------------------------------------------------------------ putting

  async #putGroup(blocks: readonly BlockPayload[], from: number, results: (BlockStoring | 'cancelled')[]) {
    const written: WrittenFile[] = [];
    const inGroup = new Map<string, number>();
    const twins: { readonly index: number; readonly of: number }[] = [];
    let bytes = 0;
    let next = from;
    for (; next < blocks.length && bytes < GROUP_BYTES && next - from < GROUP_BLOCKS; next++) {
      const block = blocks[next] as BlockPayload;
      const subject = blockSubject(block.key.hash, block.key.group);
      const twin = inGroup.get(subject);
      if (twin !== undefined) {
        twins.push({ index: next, of: twin });
        continue;
      }
      inGroup.set(subject, next);
      const outcome = this.#write(block, next, bytes);
      if (typeof outcome === 'string') results[next] = outcome;
      else {
        written.push(outcome);
        bytes += outcome.bytes;
      }
    }
    await this.#publish(written, results);
    for (const { index, of } of twins)
      results[index] = results[of] === 'stored' ? 'present' : (results[of] ?? 'unwritable');
    return next;
  }

  /** Writes one block to a temporary file that is left open; nothing of it is promised yet. */
  #write(block: BlockPayload, index: number, groupBytes: number): WrittenFile | BlockStoring {
    const { files, layout, now } = this.#context;
    const { key, shape, tokenIds } = block;
    const numTokens = tokenIds.length;
    const tokens = Buffer.from(tokenIds.buffer, tokenIds.byteOffset, tokenIds.byteLength);
    const runs = payloadRuns(shape, numTokens);
    const temporary = join(layout.blocksTemporary, String(this.#nextTemporary++));
    let file: number | null = null;
    try {
      const path = layout.blockFile(key.hash, key.group);
      const facts = files.describe(path);
      const { predecessor, identity } = block;
      const unsummed = {
        key,
        predecessor,
        identity,
        numTokens,
        shape,
        tokensCrc32: 0,
        payloadSums: runs.map(() => NO_SUM),
      };
      // Sums have a fixed width: the file's size is known before they are.
      const bytes = encodeHeader(unsummed).length + numTokens * 4 + storedPayloadBytes(shape, numTokens);
      if (facts?.bytes === bytes) return 'present';
      if (facts !== null) this.setAside(key, facts.inode, facts.bytes < bytes ? 'truncated' : 'corrupt');
      if (this.#keptBytes() + groupBytes + bytes > this.#context.budgets.keptBytes) return 'over-budget';
      if (!this.#budget.allows(groupBytes + bytes, now())) return 'over-write-budget';
      const payloadSums = runs.map((run) => sumOf(piecesOf(block.payload, run)));
      const header = encodeHeader({ ...unsummed, tokensCrc32: crc32(tokens), payloadSums });
      file = files.open(temporary, 'create');
      files.write(file, [header, tokens]);
      for (const run of runs) files.write(file, piecesOf(block.payload, run));
      return { index, key, temporary, bytes, file };
    } catch (error) {
      if (!isFileFailure(error)) throw error;
      if (file !== null) this.#discard(file, temporary);
      return refusalOf(error);
    }
  }

  /** Flushes the group's files, gives them their names, flushes the names. */
  async #publish(written: readonly WrittenFile[], results: (BlockStoring | 'cancelled')[]): Promise<void> {
    if (written.length === 0) return;
    const { files, layout, now } = this.#context;
    const waiting = new Set(written);
    const folders = new Set<string>();
    try {
      await files.flush(written.flatMap(({ file }) => (file === null ? [] : [file])));
      for (const entry of written) {
        const folder = layout.blockFolder(entry.key.hash);
        files.makeDirectory(folder);
        if (entry.file !== null) files.close(entry.file);
        entry.file = null;
        files.rename(entry.temporary, layout.blockFile(entry.key.hash, entry.key.group));
        waiting.delete(entry);
        folders.add(folder);
        this.#count(entry.key.hash, 1, entry.bytes);
        this.#writtenBytes += entry.bytes;
        this.#budget.count(entry.bytes, now());
        results[entry.index] = 'stored';
      }
      await files.flushDirectories([...folders, layout.blocks]);
    } catch (error) {
      if (!isFileFailure(error)) throw error;
      const refusal = refusalOf(error);
      for (const { file, temporary } of waiting) this.#discard(file, temporary);
      // Names that could not be flushed may be lost by a power cut: they are there, but nothing is promised of them.
      for (const { index } of written) results[index] = refusal;
    }
  }

  #discard(file: number | null, temporary: string): void {
    const { files } = this.#context;
    try {
      if (file !== null) files.close(file);
    } catch (error) {
      if (!isFileFailure(error)) throw error;
    }
    try {
      files.remove(temporary);
    } catch (error) {
      // Removed at the next opening.
      if (!isFileFailure(error)) throw error;
    }
  }

  // ----------------------------------------------------------------------------------------------------------- counting

  #keptBytes(): number {
    return this.#recount === null ? this.#bytes : Math.max(this.#bytes, this.#recount.bytes);
  }

  #count(hash: string, blocks: number, bytes: number): void {
    this.#blocks = Math.max(0, this.#blocks + blocks);
    this.#bytes = Math.max(0, this.#bytes + bytes);
    const recount = this.#recount;
    if (recount !== null && Number.parseInt(hash.slice(0, 2), 16) < recount.next) {
      recount.blocks += blocks;
      recount.bytes += bytes;
    }
  }

  /** The written bytes of this period outlive a crash, without a flush. */
  #rememberUsage(): void {
    const { files, layout } = this.#context;
    const temporary = join(layout.blocksTemporary, String(this.#nextTemporary++));
    let file: number | null = null;
    try {
      file = files.open(temporary, 'create');
      files.write(file, [this.#usageBytes(false)]);
      files.close(file);
      file = null;
      files.rename(temporary, layout.usage);
    } catch (error) {
      // Counts are remembered for convenience; blocks do not depend on them.
      if (!isFileFailure(error)) throw error;
      this.#discard(file, temporary);
    }
  }

  async #saveUsage(isExact: boolean): Promise<void> {
    const { files, layout } = this.#context;
    const temporary = join(layout.blocksTemporary, String(this.#nextTemporary++));
    await writeAtomically(files, { directory: layout.blocks, path: layout.usage, temporary }, [
      this.#usageBytes(isExact),
    ]);
  }

  #usageBytes(isExact: boolean): Uint8Array {
    return encodeUsage({
      blocks: this.#blocks,
      bytes: this.#bytes,
      writtenBytes: this.#writtenBytes,
      period: this.#budget.use(this.#context.now()),
      isExact,
    });
  }
}

export function emptyMisses(): Record<BlockMiss, number> {
  return Object.fromEntries(BLOCK_MISSES.map((reason) => [reason, 0])) as Record<BlockMiss, number>;
}

function subjectAt(keys: readonly BlockKey[], index: number): string {
  const { hash, group } = keys[index] as BlockKey;
  return blockSubject(hash, group);
}
