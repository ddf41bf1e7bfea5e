import type { IncomingMessage } from 'node:http';
import type { MiddlewareHandler } from 'hono';
import type { AppEnvironment } from './app-environment.ts';

/** What is read and thrown away of an upload that was refused, and for how long. */
const MAX_DISCARDED_BYTES = 64 * 2 ** 20;
const MAX_DISCARD_MS = 10_000;

/**
 * Answers after the upload has ended. A refusal that overtakes its upload reaches few clients: they see a broken
 * connection, now or at the next request on it. What is not over within the limits is cut off with the answer.
 */
export function awaitUpload(): MiddlewareHandler<AppEnvironment> {
  return async (context, next) => {
    await next();
    // Absent where the app is called without a socket.
    const incoming = context.env?.incoming;
    if (incoming === undefined || incoming.complete || incoming.destroyed) return;
    if (!(await discard(incoming))) context.header('connection', 'close');
  };
}

/** @returns whether the upload ended */
function discard(incoming: IncomingMessage): Promise<boolean> {
  return new Promise((resolve) => {
    let left = MAX_DISCARDED_BYTES;
    const settle = (): void => {
      clearTimeout(timer);
      incoming.off('data', onData).off('end', settle).off('close', settle);
      resolve(incoming.complete);
    };
    const onData = (chunk: Uint8Array): void => {
      left -= chunk.length;
      if (left < 0) settle();
    };
    const timer = setTimeout(settle, MAX_DISCARD_MS);
    incoming.on('data', onData).once('end', settle).once('close', settle);
  });
}
