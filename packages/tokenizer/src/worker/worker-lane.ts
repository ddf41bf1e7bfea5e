import { KvasirError, type CancellationSignal, type ErrorCode } from '@kvasir/domain';
import { Worker } from 'node:worker_threads';

/** What a worker answers: that it is ready, or the outcome of the one request it was given. */
export type WorkerMessage<Reply> =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly value: Reply }
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly message: string };

export interface LaneOptions {
  /** Module to run, without its extension, beside this package's compiled files: `encode/encode-worker`. */
  readonly module: string;
  readonly workerData: unknown;
  readonly deadlineMs: number;
  /** Megabytes of JavaScript heap; a worker that needs more dies and its request fails. */
  readonly maxHeapMb: number;
  /** What the work is called in messages. */
  readonly task: string;
  /** Code of a request whose worker died of its own accord. */
  readonly crashCode: ErrorCode;
}

interface Job<Request, Reply> {
  readonly request: Request;
  readonly signal: CancellationSignal | undefined;
  resolve(value: Reply): void;
  reject(error: KvasirError): void;
}

/** More waiting than this is refused: the queue is bounded like every other. */
const MAX_WAITING = 256;

/**
 * One worker thread that takes one request at a time, in order. It is started by the first request and does not keep the
 * process alive between requests. A request that passes its deadline or is aborted is ended by ending the worker, which
 * stops any loop; the next request starts another. Used from one thread.
 */
export class WorkerLane<Request, Reply> {
  readonly #options: LaneOptions;
  readonly #waiting: Job<Request, Reply>[] = [];
  #active: Job<Request, Reply> | null = null;
  #worker: Worker | null = null;
  #isReady = false;
  #timer: NodeJS.Timeout | undefined;
  #isDisposed = false;
  readonly #ending = new Set<Promise<number>>();

  constructor(options: LaneOptions) {
    this.#options = options;
  }

  /** @throws KvasirError `deadline-exceeded`, `aborted`, `overloaded`, `disposed`, or what the worker answered */
  run(request: Request, signal?: CancellationSignal): Promise<Reply> {
    const { task } = this.#options;
    if (this.#isDisposed)
      return Promise.reject(new KvasirError('disposed', `${task}: expected an open one, it is disposed`));
    if (signal?.aborted === true) return Promise.reject(abortedError(task));
    if (this.#waiting.length >= MAX_WAITING) {
      return Promise.reject(
        new KvasirError(
          'overloaded',
          `${task}: expected at most ${MAX_WAITING} waiting, found as many; try again later`,
        ),
      );
    }
    return new Promise<Reply>((resolve, reject) => {
      const job: Job<Request, Reply> = {
        request,
        signal,
        resolve: (value) => {
          signal?.removeEventListener('abort', onAbort);
          resolve(value);
        },
        reject: (error) => {
          signal?.removeEventListener('abort', onAbort);
          reject(error);
        },
      };
      const onAbort = (): void => this.#abort(job);
      signal?.addEventListener('abort', onAbort);
      this.#waiting.push(job);
      this.#advance();
    });
  }

  /** Ends the worker and everything waiting with `disposed`. Idempotent. */
  async dispose(): Promise<void> {
    this.#isDisposed = true;
    const error = new KvasirError('disposed', `${this.#options.task}: disposed while it ran`);
    this.#endActive(error);
    for (const job of this.#waiting.splice(0)) job.reject(error);
    this.#endWorker();
    await Promise.all(this.#ending);
  }

  #advance(): void {
    if (this.#active !== null) return;
    const job = this.#waiting.shift();
    if (job === undefined) {
      this.#worker?.unref();
      return;
    }
    this.#active = job;
    this.#worker ??= this.#start();
    this.#worker.ref();
    if (this.#isReady) this.#send(this.#worker, job);
  }

  #send(worker: Worker, job: Job<Request, Reply>): void {
    const { deadlineMs, task } = this.#options;
    try {
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker thread has no origin
      worker.postMessage(job.request);
    } catch (error) {
      // Only data crosses threads; what does not is the caller's mistake and leaves the worker as it was.
      this.#endActive(new KvasirError('invalid-argument', `${task}: expected plain data, found ${String(error)}`));
      this.#advance();
      return;
    }
    this.#timer = setTimeout(() => {
      this.#endWorker();
      this.#endActive(
        new KvasirError('deadline-exceeded', `${task}: expected an end within ${deadlineMs} ms, it was still running`, {
          facts: { deadlineMs },
        }),
      );
      this.#advance();
    }, deadlineMs);
  }

  #start(): Worker {
    const { module, workerData, maxHeapMb, task, crashCode } = this.#options;
    this.#isReady = false;
    const worker = new Worker(compiledModule(module), {
      workerData,
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: maxHeapMb },
    });
    worker.on('message', (message: WorkerMessage<Reply>) => {
      if (worker === this.#worker) this.#receive(worker, message);
    });
    const crash = (cause: unknown): void => {
      if (worker !== this.#worker) return;
      this.#worker = null;
      this.#endActive(
        new KvasirError(crashCode, `${task}: expected a result, the worker ended with ${String(cause)}`, { cause }),
      );
      this.#advance();
    };
    worker.on('error', crash);
    worker.on('exit', (exitCode) => crash(`exit code ${exitCode}`));
    return worker;
  }

  #receive(worker: Worker, message: WorkerMessage<Reply>): void {
    if (message.kind === 'ready') {
      this.#isReady = true;
      if (this.#active !== null) this.#send(worker, this.#active);
      return;
    }
    const job = this.#active;
    clearTimeout(this.#timer);
    this.#active = null;
    if (message.kind === 'done') job?.resolve(message.value);
    else job?.reject(new KvasirError(message.code, message.message));
    this.#advance();
  }

  #abort(job: Job<Request, Reply>): void {
    const error = abortedError(this.#options.task);
    if (job === this.#active) {
      this.#endWorker();
      this.#endActive(error);
      this.#advance();
      return;
    }
    const index = this.#waiting.indexOf(job);
    if (index >= 0) this.#waiting.splice(index, 1);
    job.reject(error);
  }

  #endActive(error: KvasirError): void {
    clearTimeout(this.#timer);
    const job = this.#active;
    this.#active = null;
    job?.reject(error);
  }

  #endWorker(): void {
    const worker = this.#worker;
    this.#worker = null;
    if (worker === null) return;
    const ending = worker.terminate();
    this.#ending.add(ending);
    void ending.finally(() => this.#ending.delete(ending));
  }
}

function abortedError(task: string): KvasirError {
  return new KvasirError('aborted', `${task}: ended by its caller`);
}

/** Node runs compiled JavaScript only: from the sources, too, the worker is the built file. */
function compiledModule(module: string): URL {
  const root = import.meta.url.endsWith('.ts') ? '../../dist/' : '../';
  return new URL(`${root}${module}.js`, import.meta.url);
}
