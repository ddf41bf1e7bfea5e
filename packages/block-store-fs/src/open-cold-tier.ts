import { KvasirError, type AgentArchive, type BlockStore, type Narrator } from '@kvasir/domain';
import { resolve } from 'node:path';
import type { BlockBudgets } from './blocks/write-budget.ts';
import { FsAgentArchive } from './fs-agent-archive.ts';
import { FsBlockStore } from './fs-block-store.ts';
import type { ArchiveCalls, ArchiveOpened, KeeperCalls, ReaderCalls, ThreadSettings } from './threads/messages.ts';
import { WorkerThread } from './threads/worker-thread.ts';

export interface ColdTierOptions {
  /** Made when it does not exist. One process at a time. */
  readonly directory: string;
  /** Bytes of block files kept at any time; default: no limit. Agents' files are not counted. */
  readonly keptBytes?: number;
  /** Bytes of blocks written per period; default: no limit. */
  readonly writtenBytes?: number;
  /** Default: a day. */
  readonly writePeriodMs?: number;
  /** Threads that read blocks; default 3. Each reads and sums about 1.8 GB a second. */
  readonly readers?: number;
  readonly narrator?: Narrator;
}

/** The cold tier's two ports over one directory. */
export interface ColdTier {
  readonly blocks: BlockStore;
  readonly agents: AgentArchive;
  /** Starts the threads that read blocks, which the first read would wait for. Idempotent. */
  startReaders(): void;
  /** Closes both, blocks first, and gives the directory up. Idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const DAY_MS = 86_400_000;

/**
 * Opens or makes a cache directory: takes its lock, reads the index of agents, finishes deletions that a crash interrupted.
 * Does not read agents' files after an orderly stop, and only those that were in use after a crash.
 * @throws KvasirError `cache-locked`, `disk-full`, `disk-unwritable`, `invalid-argument`
 */
export async function openColdTier(options: ColdTierOptions): Promise<ColdTier> {
  const { keptBytes = Infinity, writtenBytes = Infinity, writePeriodMs = DAY_MS, readers = 3, narrator } = options;
  for (const [name, value] of Object.entries({ keptBytes, writtenBytes, writePeriodMs, readers })) {
    if (value > 0 || (value === 0 && name.endsWith('Bytes'))) continue;
    throw new KvasirError('invalid-argument', `cold tier: expected ${name} above 0, found ${value}`);
  }
  const budgets: BlockBudgets = { keptBytes, writtenBytes, periodMs: writePeriodMs };
  const settings: ThreadSettings = { directory: resolve(options.directory), budgets };
  const archive = new WorkerThread<ArchiveCalls>('archive-worker', settings);
  const keeper = new WorkerThread<KeeperCalls>('keeper-worker', settings);
  const readerThreads = Array.from({ length: readers }, () => new WorkerThread<ReaderCalls>('reader-worker', settings));
  archive.start();
  keeper.start();
  let isLocked = false;
  try {
    const opened = await archive.call('open', null);
    isLocked = true;
    await keeper.call('open', null);
    const agents = new FsAgentArchive({ archive, removeBlocks: (keys) => keeper.call('remove', keys), narrator });
    const blocks = new FsBlockStore({
      keeper,
      readers: readerThreads,
      flushReferences: () => agents.flushReferences(),
      narrator,
    });
    narrateOpening(narrator, opened);
    await agents.finishDeletions(opened.deletions);
    return joined(blocks, agents, () => readerThreads.forEach((reader) => reader.start()));
  } catch (error) {
    if (isLocked) await archive.call('close', null);
    await Promise.all([archive, keeper, ...readerThreads].map((thread) => thread.end()));
    throw error;
  }
}

function joined(blocks: FsBlockStore, agents: FsAgentArchive, startReaders: () => void): ColdTier {
  let isClosed = false;
  const close = async (): Promise<void> => {
    isClosed = true;
    try {
      await blocks.close();
    } finally {
      await agents.close();
    }
  };
  return {
    blocks,
    agents,
    startReaders: () => (isClosed ? undefined : startReaders()),
    close,
    [Symbol.asyncDispose]: close,
  };
}

function narrateOpening(narrator: Narrator | undefined, { usage, tookOverLock }: ArchiveOpened): void {
  const { opening, agents } = usage;
  narrator?.narrate({
    level: opening === 'rebuilt' ? 'warn' : 'info',
    name: 'cold-tier-opened',
    facts: { opening, agents, tookOverLock },
  });
}
