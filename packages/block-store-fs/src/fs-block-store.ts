import {
  isBlockHash,
  KvasirError,
  type BlockKey,
  type BlockListing,
  type BlockLoad,
  type BlockMiss,
  type BlockPayload,
  type BlockRequest,
  type BlockStore,
  type BlockStoreUsage,
  type BlockStoring,
  type CancellationSignal,
  type Narrator,
  type PayloadShape,
} from '@kvasir/domain';
import { emptyMisses } from './blocks/block-keeper.ts';
import type { BlockReading } from './blocks/block-reader.ts';
import { checkShape, payloadBytes, storedPayloadBytes } from './blocks/payload-runs.ts';
import { FOLDERS } from './files/cache-layout.ts';
import { copyInSlices, isShared, nextTurn } from './shared-memory.ts';
import type { KeeperCalls, ReaderCalls } from './threads/messages.ts';
import type { WorkerThread } from './threads/worker-thread.ts';

export interface BlockStoreParts {
  readonly keeper: WorkerThread<KeeperCalls>;
  readonly readers: readonly WorkerThread<ReaderCalls>[];
  /** Flushes references noted so far: they must outlive a power cut if the blocks do. */
  readonly flushReferences: () => Promise<unknown>;
  readonly narrator: Narrator | undefined;
}

/** One message to a reader: enough to keep it busy while the next is on its way, little enough to share the work. */
const TASK_BYTES = 4 << 20;
const TASK_BLOCKS = 16;
const TASKS_PER_TURN = 16;

const SET_ASIDE: ReadonlySet<BlockMiss> = new Set(['truncated', 'corrupt', 'foreign', 'other-identity']);

/** BlockStore over one cache directory: this side checks, spreads over threads and counts. */
export class FsBlockStore implements BlockStore {
  readonly #parts: BlockStoreParts;
  readonly #misses = emptyMisses();
  #hits = 0;
  readonly #running = new Set<Promise<unknown>>();
  #isClosed = false;

  constructor(parts: BlockStoreParts) {
    this.#parts = parts;
  }

  has(keys: readonly BlockKey[], signal?: CancellationSignal): Promise<readonly boolean[]> {
    return this.#run(async () => {
      keys.forEach(checkKey);
      requireLive(signal);
      const found = await this.#leastBusy().call('has', keys);
      requireLive(signal);
      return found;
    });
  }

  get(requests: readonly BlockRequest[], signal?: CancellationSignal): Promise<readonly BlockLoad[]> {
    return this.#run(async () => {
      for (const request of requests) {
        checkKey(request.key);
        checkPayload(request.shape, request.tokenIds, request.into);
      }
      const { flag, stop } = cancellationFlag(signal);
      try {
        const staged = requests.map((request) =>
          isShared(request.into) ? request : { ...request, into: sharedBytes(request.into.length) },
        );
        const answering: Promise<PromiseSettledResult<readonly BlockReading[] | null>>[] = [];
        for (const [index, task] of tasksOf(staged).entries()) {
          // Handing a task over takes some tens of microseconds: a long list is handed over in parts.
          if (index % TASKS_PER_TURN === TASKS_PER_TURN - 1) await nextTurn();
          answering.push(settled(this.#leastBusy().call('get', { requests: task, flag })));
        }
        // All of them, also when one failed: memory is the caller's again only when no thread writes to it.
        const answers = (await Promise.all(answering)).map((answer) => {
          if (answer.status === 'rejected') throw answer.reason;
          return answer.value;
        });
        requireLive(signal);
        return await this.#conclude(requests, staged, answers.map((answer) => answer ?? []).flat());
      } finally {
        stop();
      }
    });
  }

  put(blocks: readonly BlockPayload[], signal?: CancellationSignal): Promise<readonly BlockStoring[]> {
    return this.#run(async () => {
      for (const block of blocks) {
        checkKey(block.key);
        if (block.predecessor !== null) checkKey({ hash: block.predecessor, group: block.key.group });
        checkPayload(block.shape, block.tokenIds, block.payload);
      }
      const { flag, stop } = cancellationFlag(signal);
      try {
        await this.#parts.flushReferences();
        const staged: BlockPayload[] = [];
        for (const block of blocks) {
          requireLive(signal);
          staged.push(isShared(block.payload) ? block : { ...block, payload: await shareOf(block.payload) });
        }
        const results = await this.#parts.keeper.call('put', { blocks: staged, flag });
        return results.map((result) => {
          if (result === 'cancelled') throw abortedError(signal);
          return result;
        });
      } finally {
        stop();
      }
    });
  }

  delete(keys: readonly BlockKey[]): Promise<readonly boolean[]> {
    return this.#run(async () => {
      keys.forEach(checkKey);
      return this.#parts.keeper.call('remove', keys);
    });
  }

  async *list(): AsyncGenerator<readonly BlockListing[]> {
    for (const folder of FOLDERS.keys()) {
      const page = await this.#run(() => this.#parts.keeper.call('list', folder));
      if (page.length > 0) yield page;
    }
  }

  usage(): Promise<BlockStoreUsage> {
    return this.#run(async () => {
      const usage = await this.#parts.keeper.call('usage', null);
      return { ...usage, hits: this.#hits, misses: { ...this.#misses } };
    });
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await Promise.allSettled(this.#running);
    try {
      await this.#parts.keeper.call('close', null);
    } finally {
      await Promise.all([this.#parts.keeper, ...this.#parts.readers].map((thread) => thread.end()));
    }
  }

  // ------------------------------------------------------------------------------------------------------------- pieces

  async #conclude(
    requests: readonly BlockRequest[],
    staged: readonly BlockRequest[],
    readings: readonly BlockReading[],
  ): Promise<readonly BlockLoad[]> {
    const loads: BlockLoad[] = [];
    for (const [index, reading] of readings.entries()) {
      const request = requests[index] as BlockRequest;
      if (reading.isHit) {
        this.#hits++;
        const from = (staged[index] as BlockRequest).into;
        if (from !== request.into) await copyInSlices(from, request.into);
        loads.push(reading);
        continue;
      }
      const { reason, inode } = reading;
      this.#misses[reason]++;
      if (SET_ASIDE.has(reason) && inode !== null) await this.#setAside(request.key, inode, reason);
      loads.push({ isHit: false, reason });
    }
    return loads;
  }

  async #setAside(key: BlockKey, inode: number, reason: BlockMiss): Promise<void> {
    const isSetAside = await this.#parts.keeper.call('setAside', { key, inode, reason });
    this.#parts.narrator?.narrate({
      level: 'warn',
      name: 'cold-block-damaged',
      facts: { reason, hash: key.hash, group: key.group, isSetAside },
    });
  }

  #leastBusy(): WorkerThread<ReaderCalls> {
    return this.#parts.readers.reduce((least, reader) => (reader.load < least.load ? reader : least));
  }

  async #run<Value>(work: () => Promise<Value>): Promise<Value> {
    if (this.#isClosed) throw new KvasirError('disposed', 'block store: expected an open one, it is closed');
    const running = work();
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }
}

// --------------------------------------------------------------------------------------------------------------- checks

function checkKey({ hash, group }: BlockKey): void {
  if (isBlockHash(hash) && Number.isInteger(group) && group >= 0 && group <= 0xffff) return;
  throw new KvasirError(
    'invalid-argument',
    `block key: expected 64 lower-case hex digits and a group from 0 to 65535, found ${String(hash).slice(0, 80)} and ${group}`,
  );
}

function checkPayload(shape: PayloadShape, tokenIds: Int32Array, payload: Uint8Array): void {
  checkShape(shape);
  const bytes = payloadBytes(shape);
  if (payload.length === bytes && tokenIds.length >= 1 && tokenIds.length <= shape.blockTokens) return;
  throw new KvasirError(
    'invalid-argument',
    `block: expected ${bytes} bytes and 1 to ${shape.blockTokens} token ids, found ${payload.length} and ${tokenIds.length}`,
  );
}

function tasksOf(requests: readonly BlockRequest[]): readonly (readonly BlockRequest[])[] {
  const tasks: BlockRequest[][] = [];
  let bytes = TASK_BYTES;
  for (const request of requests) {
    const last = tasks.at(-1);
    if (last === undefined || bytes >= TASK_BYTES || last.length >= TASK_BLOCKS) {
      tasks.push([request]);
      bytes = 0;
    } else last.push(request);
    bytes += storedPayloadBytes(request.shape, request.tokenIds.length);
  }
  return tasks;
}

async function settled<Value>(running: Promise<Value>): Promise<PromiseSettledResult<Value>> {
  const [outcome] = await Promise.allSettled([running]);
  return outcome;
}

async function shareOf(bytes: Uint8Array): Promise<Uint8Array> {
  const copy = sharedBytes(bytes.length);
  await copyInSlices(bytes, copy);
  return copy;
}

function sharedBytes(length: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(length));
}

function cancellationFlag(signal: CancellationSignal | undefined): { flag: Int32Array; stop: () => void } {
  requireLive(signal);
  const flag = new Int32Array(new SharedArrayBuffer(4));
  const onAbort = (): void => void Atomics.store(flag, 0, 1);
  signal?.addEventListener('abort', onAbort);
  return { flag, stop: () => signal?.removeEventListener('abort', onAbort) };
}

function requireLive(signal: CancellationSignal | undefined): void {
  if (signal?.aborted === true) throw abortedError(signal);
}

function abortedError(signal: CancellationSignal | undefined): KvasirError {
  return new KvasirError('aborted', 'block store: ended by its caller', { cause: signal?.reason });
}
