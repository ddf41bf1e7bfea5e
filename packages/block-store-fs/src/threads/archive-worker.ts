import { KvasirError } from '@kvasir/domain';
import { randomBytes } from 'node:crypto';
import { workerData } from 'node:worker_threads';
import { ArchiveKeeper, MAX_GROUP, type EntryJob } from '../agents/archive-keeper.ts';
import { CacheLayout } from '../files/cache-layout.ts';
import { DirectoryLock, LOCK_HEARTBEAT_MS } from '../files/directory-lock.ts';
import { makeDurableDirectory } from '../files/file-system.ts';
import { NodeFileSystem } from '../files/node-file-system.ts';
import { nodeProcesses } from '../files/node-processes.ts';
import { toStorageError } from '../files/storage-failure.ts';
import type { ArchiveCalls, ThreadSettings } from './messages.ts';
import { answerCall, receiveCalls, type Handlers, type OpenCall } from './serve-calls.ts';

const { directory } = workerData as ThreadSettings;
const files = new NodeFileSystem();
const layout = new CacheLayout(directory);

let lock: DirectoryLock | null = null;
let heartbeat: NodeJS.Timeout | undefined;
let opened: ArchiveKeeper | null = null;
const keeper = (): ArchiveKeeper => {
  if (opened === null) throw new KvasirError('disposed', 'agent archive: expected an open one, it is closed');
  return opened;
};

const handlers: Omit<Handlers<ArchiveCalls>, 'apply'> = {
  open: async () => {
    try {
      await makeDurableDirectory(files, directory);
      lock = new DirectoryLock(files, layout.lock, nodeProcesses(), randomBytes(8).toString('hex'));
    } catch (error) {
      throw toStorageError(error, 'locking the cache directory');
    }
    const held = lock;
    try {
      const context = { files, layout, now: () => Date.now(), newAgentId: () => randomBytes(16).toString('hex') };
      opened = await ArchiveKeeper.open(context);
    } catch (error) {
      held.release();
      throw error;
    }
    heartbeat = setInterval(() => held.beat(), LOCK_HEARTBEAT_MS).unref();
    return { usage: opened.usage(), deletions: opened.deletions, tookOverLock: held.tookOver };
  },
  list: (position) => keeper().list(position),
  create: (agent) => keeper().create(agent),
  read: (agentId) => keeper().read(agentId),
  flushNotes: async () => {
    await keeper().flushNotes();
    return null;
  },
  beginDeletion: async (agentId) => {
    await keeper().beginDeletion(agentId);
    return null;
  },
  removeFiles: (agentId) => keeper().removeFiles(agentId),
  finishDeletion: async ({ agentId, isLeftover }) => {
    await keeper().finishDeletion(agentId, isLeftover);
    return null;
  },
  usage: () => keeper().usage(),
  close: async () => {
    clearInterval(heartbeat);
    try {
      await keeper().close();
    } finally {
      opened = null;
      lock?.release();
    }
    return null;
  },
};

// Calls run in the order they came. Entries that wait next to each other become one group: written, then flushed together.
const queue: OpenCall[] = [];
let isRunning = false;
receiveCalls((call) => {
  queue.push(call);
  void run();
});

async function run(): Promise<void> {
  if (isRunning) return;
  isRunning = true;
  for (let call = queue[0]; call !== undefined; call = queue[0]) {
    if (call.name === 'apply') await applyGroup(takeEntries());
    else {
      queue.shift();
      await answerCall(handlers as Handlers<ArchiveCalls>, call);
    }
  }
  isRunning = false;
}

function takeEntries(): readonly OpenCall[] {
  const end = queue.findIndex((call) => call.name !== 'apply');
  return queue.splice(0, Math.min(end < 0 ? queue.length : end, MAX_GROUP));
}

async function applyGroup(calls: readonly OpenCall[]): Promise<void> {
  try {
    const outcomes = await keeper().apply(calls.map((call) => call.argument as EntryJob));
    for (const [index, call] of calls.entries()) {
      const outcome = outcomes[index];
      if (outcome !== undefined && 'summary' in outcome) call.answer(outcome.summary);
      else call.fail(outcome?.error);
    }
  } catch (error) {
    for (const call of calls) call.fail(error);
  }
}
