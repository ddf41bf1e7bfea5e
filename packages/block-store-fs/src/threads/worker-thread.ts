import { KvasirError } from '@kvasir/domain';
import { Worker } from 'node:worker_threads';
import type { AnswerMessage, AnswerOf, ArgumentOf, Calls, ThreadSettings } from './messages.ts';

interface Waiting {
  resolve(answer: unknown): void;
  reject(error: unknown): void;
}

/**
 * One worker thread and the calls that wait for it. It starts with the first call, unless it was started before. A thread
 * with nothing to do does not keep the process alive. A thread that dies takes its calls with it (`internal`); later calls
 * fail the same way.
 */
export class WorkerThread<Table extends Calls<Table>> {
  readonly #module: string;
  readonly #settings: ThreadSettings;
  #worker: Worker | null = null;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 0;
  #death: KvasirError | null = null;

  constructor(module: string, settings: ThreadSettings) {
    this.#module = module;
    this.#settings = settings;
  }

  /** Idempotent. Cost: some 50 ms of a core, on the new thread. */
  start(): Worker {
    if (this.#worker !== null) return this.#worker;
    const module = this.#module;
    const worker = new Worker(compiledModule(module), {
      workerData: this.#settings,
      execArgv: [],
      name: `kvasir ${module}`,
    });
    this.#worker = worker;
    worker.on('message', (message: AnswerMessage) => this.#receive(worker, message));
    // Not before: a thread that starts holds its process again.
    worker.once('online', () => this.#release(worker));
    worker.on('error', (cause) => this.#die(cause));
    worker.on('exit', (exitCode) => this.#die(`exit code ${exitCode}`));
    return worker;
  }

  /** Calls that wait: how busy the thread is. */
  get load(): number {
    return this.#waiting.size;
  }

  call<Name extends keyof Table & string>(
    name: Name,
    argument: ArgumentOf<Table[Name]>,
  ): Promise<AnswerOf<Table[Name]>> {
    if (this.#death !== null) return Promise.reject(this.#death);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (answer: unknown) => void, reject });
      const worker = this.start();
      worker.ref();
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker thread has no origin
      worker.postMessage({ id, name, argument });
    });
  }

  async end(): Promise<void> {
    this.#death ??= new KvasirError('disposed', `cache ${this.#module} thread: expected an open one, it is closed`);
    await this.#worker?.terminate();
  }

  /** A thread without calls does not hold its process, but one that ends does, for whoever waits for that. */
  #release(worker: Worker): void {
    if (this.#waiting.size === 0 && this.#death === null) worker.unref();
  }

  #die(cause: unknown): void {
    this.#death ??= new KvasirError(
      'internal',
      `cache ${this.#module} thread: expected it to run on, it ended: ${String(cause)}`,
      { cause },
    );
    for (const { reject } of this.#waiting.values()) reject(this.#death);
    this.#waiting.clear();
  }

  #receive(worker: Worker, message: AnswerMessage): void {
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    this.#release(worker);
    if (waiting === undefined) return;
    if ('answer' in message) waiting.resolve(message.answer);
    else
      waiting.reject(new KvasirError(message.failure.code, message.failure.message, { facts: message.failure.facts }));
  }
}

/** Node runs compiled JavaScript only: from the sources, too, the worker is the built file. */
function compiledModule(module: string): URL {
  const root = import.meta.url.endsWith('.ts') ? '../../dist/threads/' : './';
  return new URL(`${root}${module}.js`, import.meta.url);
}
