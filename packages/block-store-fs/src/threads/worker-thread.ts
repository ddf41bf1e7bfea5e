import { KvasirError } from '@kvasir/domain';
import { Worker } from 'node:worker_threads';
import type { AnswerMessage, AnswerOf, ArgumentOf, Calls, ThreadSettings } from './messages.ts';

interface Waiting {
  resolve(answer: unknown): void;
  reject(error: unknown): void;
}

/**
 * One worker thread and the calls that wait for it. A thread with nothing to do does not keep the process alive. A thread
 * that dies takes its calls with it (`internal`); later calls fail the same way.
 */
export class WorkerThread<Table extends Calls<Table>> {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 0;
  #death: KvasirError | null = null;

  constructor(module: string, settings: ThreadSettings) {
    this.#worker = new Worker(compiledModule(module), { workerData: settings, execArgv: [], name: `kvasir ${module}` });
    this.#worker.on('message', (message: AnswerMessage) => this.#receive(message));
    // Not before: a thread that starts holds its process again.
    this.#worker.once('online', () => {
      if (this.#waiting.size === 0) this.#worker.unref();
    });
    const die = (cause: unknown): void => {
      this.#death ??= new KvasirError(
        'internal',
        `cache ${module} thread: expected it to run on, it ended: ${String(cause)}`,
        {
          cause,
        },
      );
      for (const { reject } of this.#waiting.values()) reject(this.#death);
      this.#waiting.clear();
    };
    this.#worker.on('error', die);
    this.#worker.on('exit', (exitCode) => die(`exit code ${exitCode}`));
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
      this.#worker.ref();
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker thread has no origin
      this.#worker.postMessage({ id, name, argument });
    });
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  #receive(message: AnswerMessage): void {
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (this.#waiting.size === 0) this.#worker.unref();
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
