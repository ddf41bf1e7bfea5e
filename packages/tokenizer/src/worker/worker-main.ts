import { isKvasirError } from '@kvasir/domain';
import { setPriority } from 'node:os';
import { platform } from 'node:process';
import { parentPort } from 'node:worker_threads';
import type { WorkerMessage } from './worker-lane.ts';

/** A worker's side of a lane: answers each request with what `handle` returns or throws. */
export function serveLane<Request, Reply>(
  handle: (request: Request) => { readonly value: Reply; readonly transfer?: readonly ArrayBuffer[] },
): void {
  const port = parentPort;
  if (port === null) throw new Error('expected to run in a worker thread');
  // Running generations go first. On Linux, and only there, 0 means the calling thread and not its process.
  if (platform === 'linux') setPriority(0, 10);
  const send = (message: WorkerMessage<Reply>, transfer: readonly ArrayBuffer[] = []): void =>
    port.postMessage(message, transfer);
  port.on('message', (request: Request) => {
    try {
      const { value, transfer } = handle(request);
      send({ kind: 'done', value }, transfer);
    } catch (error) {
      // Errors cross threads as data; the other side makes a KvasirError of it again.
      if (isKvasirError(error)) send({ kind: 'failed', code: error.code, message: error.message });
      else throw error;
    }
  });
  send({ kind: 'ready' });
}
