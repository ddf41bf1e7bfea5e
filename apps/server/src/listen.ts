import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createAdaptorServer } from '@hono/node-server';
import { KvasirError } from '@kvasir/domain';
import type { App } from './app.ts';

/** An app on a socket. */
export interface Listener {
  readonly address: string;
  readonly port: number;
  readonly url: string;
  /**
   * Stops accepting, lets running requests end, and after the grace calls `abortRequests` and closes what is left.
   * @returns whether every request ended by itself
   */
  close(graceMs: number, abortRequests: () => Promise<void>): Promise<boolean>;
}

/** How long responses may take to reach their clients once their generations were aborted. */
const FAREWELL_MS = 1000;

/** Clients pause between turns; one whose pooled connection went stale meanwhile sees its next request fail. */
const KEEP_ALIVE_MS = 75_000;

/** @throws KvasirError `invalid-argument` when the address is taken, not ours or not allowed */
export async function listen(app: App, host: string, port: number): Promise<Listener> {
  const server = createAdaptorServer({ fetch: app.fetch, overrideGlobalObjects: false }) as Server;
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  // A token is a small write; waiting to fill a packet would hold it back.
  server.on('connection', (socket) => socket.setNoDelay(true));
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(
        new KvasirError(
          'invalid-argument',
          `address: expected to listen on ${host}:${port}, found ${error.code ?? error.message}; choose another with --host or --port`,
          { cause: error },
        ),
      );
    });
    server.listen(port, host, resolve);
  });
  const { address, port: boundPort, family } = server.address() as AddressInfo;
  const shown = family === 'IPv6' ? `[${address}]` : address;
  return {
    address,
    port: boundPort,
    url: `http://${shown}:${boundPort}`,
    close: (graceMs, abortRequests) => close(server, graceMs, abortRequests),
  };
}

async function close(server: Server, graceMs: number, abortRequests: () => Promise<void>): Promise<boolean> {
  // A connection kept alive by its client would hold the server open after its last response.
  server.on('request', (_request, response) => response.on('close', () => server.closeIdleConnections()));
  const closed = new Promise<true>((resolve) => server.close(() => resolve(true)));
  const idle = setInterval(() => server.closeIdleConnections(), 50);
  try {
    if (await within(closed, graceMs)) return true;
    await abortRequests();
    await within(closed, FAREWELL_MS);
    server.closeAllConnections();
    await closed;
    return false;
  } finally {
    clearInterval(idle);
  }
}

async function within(promise: Promise<true>, milliseconds: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
