import { isKvasirError } from '@kvasir/domain';
import { parentPort } from 'node:worker_threads';
import type { AnswerMessage, AnswerOf, ArgumentOf, Calls, CallMessage, WireFailure } from './messages.ts';

export type Handlers<Table extends Calls<Table>> = {
  readonly [Name in keyof Table]: (
    argument: ArgumentOf<Table[Name]>,
  ) => AnswerOf<Table[Name]> | Promise<AnswerOf<Table[Name]>>;
};

/** A call that has come in and is to be answered once. */
export interface OpenCall {
  readonly name: string;
  readonly argument: unknown;
  answer(value: unknown): void;
  fail(error: unknown): void;
}

/** Hands every call that comes in to `take`. */
export function receiveCalls(take: (call: OpenCall) => void): void {
  const port = parentPort;
  if (port === null) throw new Error('expected to run in a worker thread');
  const send = (message: AnswerMessage): void => port.postMessage(message);
  port.on('message', ({ id, name, argument }: CallMessage) =>
    take({
      name,
      argument,
      answer: (value) => send({ id, answer: value }),
      fail: (error) => send({ id, failure: toWire(error) }),
    }),
  );
}

/** Answers calls one after another, each when the one before is done; `idle` runs while none waits and it returns true. */
export function serveInTurn<Table extends Calls<Table>>(handlers: Handlers<Table>, idle?: () => boolean): void {
  const queue: OpenCall[] = [];
  let isRunning = false;
  const run = async (): Promise<void> => {
    if (isRunning) return;
    isRunning = true;
    for (;;) {
      const call = queue.shift();
      if (call === undefined) {
        if (idle?.() !== true) break;
        // Lets messages in.
        await new Promise<void>((resolve) => {
          setImmediate(resolve);
        });
        continue;
      }
      await answerCall(handlers, call);
    }
    isRunning = false;
  };
  receiveCalls((call) => {
    queue.push(call);
    void run();
  });
}

export async function answerCall<Table extends Calls<Table>>(handlers: Handlers<Table>, call: OpenCall): Promise<void> {
  try {
    const handle = handlers[call.name as keyof Table] as (argument: unknown) => unknown;
    call.answer(await handle(call.argument));
  } catch (error) {
    call.fail(error);
  }
}

function toWire(error: unknown): WireFailure {
  if (isKvasirError(error)) return { code: error.code, message: error.message, facts: error.facts };
  const found = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { code: 'internal', message: `expected the cache directory to be handled, found: ${found}`, facts: {} };
}
