import { KvasirError } from '@kvasir/domain';
import { setPriority } from 'node:os';
import { platform } from 'node:process';
import { workerData } from 'node:worker_threads';
import { BlockKeeper } from '../blocks/block-keeper.ts';
import { CacheLayout } from '../files/cache-layout.ts';
import { NodeFileSystem } from '../files/node-file-system.ts';
import { toStorageError } from '../files/storage-failure.ts';
import type { KeeperCalls, ThreadSettings } from './messages.ts';
import { serveInTurn } from './serve-calls.ts';

const { directory, budgets } = workerData as ThreadSettings;
// Saving goes behind generating. On Linux, and only there, 0 means the calling thread and not its process.
if (platform === 'linux') setPriority(0, 10);

let opened: BlockKeeper | null = null;
const keeper = (): BlockKeeper => {
  if (opened === null) throw new KvasirError('disposed', 'block store: expected an open one, it is closed');
  return opened;
};

serveInTurn<KeeperCalls>(
  {
    open: async () => {
      const context = {
        files: new NodeFileSystem(),
        layout: new CacheLayout(directory),
        budgets,
        now: () => Date.now(),
      };
      try {
        opened = await BlockKeeper.open(context);
      } catch (error) {
        throw toStorageError(error, 'opening the block store');
      }
      return null;
    },
    put: ({ blocks, flag }) => keeper().put(blocks, () => Atomics.load(flag, 0) !== 0),
    remove: (keys) => keeper().remove(keys),
    setAside: ({ key, inode, reason }) => keeper().setAside(key, inode, reason),
    list: (folder) => keeper().list(folder),
    usage: () => keeper().usage(),
    close: async () => {
      try {
        await keeper().close();
      } catch (error) {
        throw toStorageError(error, 'closing the block store');
      } finally {
        opened = null;
      }
      return null;
    },
  },
  () => opened?.countNext() === true,
);
