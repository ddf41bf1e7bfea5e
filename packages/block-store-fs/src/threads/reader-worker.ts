import { setPriority } from 'node:os';
import { platform } from 'node:process';
import { workerData } from 'node:worker_threads';
import { ReadCancelled, readBlock } from '../blocks/block-reader.ts';
import { CacheLayout } from '../files/cache-layout.ts';
import { NodeFileSystem } from '../files/node-file-system.ts';
import type { ReaderCalls, ThreadSettings } from './messages.ts';
import { serveInTurn } from './serve-calls.ts';

const { directory } = workerData as ThreadSettings;
// Summing takes a core; the thread that serves requests goes before it. On Linux, and only there, 0 is the calling thread.
if (platform === 'linux') setPriority(0, 5);

const files = new NodeFileSystem();
const layout = new CacheLayout(directory);

serveInTurn<ReaderCalls>({
  has: (keys) => keys.map(({ hash, group }) => files.describe(layout.blockFile(hash, group)) !== null),
  get: ({ requests, flag }) => {
    const isCancelled = (): boolean => Atomics.load(flag, 0) !== 0;
    try {
      return requests.map((request) => {
        if (isCancelled()) throw new ReadCancelled();
        return readBlock(files, layout.blockFile(request.key.hash, request.key.group), request, isCancelled);
      });
    } catch (error) {
      if (error instanceof ReadCancelled) return null;
      throw error;
    }
  },
});
