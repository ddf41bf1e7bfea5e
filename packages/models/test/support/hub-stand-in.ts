import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

export interface StandInFile {
  readonly bytes: Buffer;
  /** Large files lie on the storage host and are known by SHA-256, small ones on the Hub by their git blob hash. */
  readonly lfs: boolean;
  /** Announced instead of the true hash. */
  readonly hash?: string;
  readonly announcedSize?: number;
}

/** What goes wrong with the next transfers of bytes, one a transfer. */
export type Fault =
  | { readonly kind: 'status'; readonly status: number }
  | { readonly kind: 'ignore-range' }
  /** Sends so much and then nothing, until `cut` breaks the connection. */
  | { readonly kind: 'stall'; readonly afterBytes: number };

export interface SeenRequest {
  readonly host: 'hub' | 'storage';
  readonly method: string;
  readonly path: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
}

/**
 * A Hub on loopback: the `resolve` protocol with its headers, large files redirected to a second server that stands for
 * the storage of another host, and faults on demand.
 */
export class HubStandIn {
  readonly requests: SeenRequest[] = [];
  readonly faults: Fault[] = [];
  /** By repository path, `organisation/repository/file`. */
  readonly files = new Map<string, StandInFile>();
  /** Refusal by repository file: status and `X-Error-Code`. */
  readonly refusals = new Map<string, { readonly status: number; readonly reason: string }>();
  requiredToken: string | null = null;
  commit = 'c0ffee'.padEnd(40, '0');
  /** Set to send redirects elsewhere. */
  storageUrl = '';
  /** Where every request for a large file is sent, in place of the storage. */
  redirect: string | null = null;
  readonly #hub: Server;
  readonly #storage: Server;
  #stalled: Socket | null = null;

  constructor() {
    this.#hub = createServer((request, response) => this.#serveHub(request, response));
    this.#storage = createServer((request, response) => this.#serveStorage(request, response));
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#hub.address() as AddressInfo).port}`;
  }

  async start(): Promise<void> {
    for (const server of [this.#hub, this.#storage]) {
      await new Promise<void>((resolve) => {
        server.listen(0, '127.0.0.1', resolve);
      });
    }
    this.storageUrl = `http://127.0.0.1:${(this.#storage.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    for (const server of [this.#hub, this.#storage]) {
      server.closeAllConnections();
      await new Promise((resolve) => {
        server.close(resolve);
      });
    }
  }

  /** Breaks the connection of the transfer that stalled. */
  cut(): void {
    this.#stalled?.destroy();
  }

  #note(host: 'hub' | 'storage', request: IncomingMessage): string {
    const { pathname } = new URL(request.url ?? '/', 'http://stand-in');
    const { authorization, range } = request.headers;
    this.requests.push({ host, method: request.method ?? '', path: pathname, authorization, range });
    return decodeURIComponent(pathname);
  }

  #serveHub(request: IncomingMessage, response: ServerResponse): void {
    const path = this.#note('hub', request);
    const { repository, revision, file } =
      /^(?:\/mirror)?\/(?<repository>[^/]+\/[^/]+)\/resolve\/(?<revision>[^/]+)\/(?<file>.+)$/.exec(path)?.groups ?? {};
    const name = `${repository}/${file}`;
    const refusal = this.refusals.get(name);
    const entry = this.files.get(name);
    if (this.requiredToken !== null && request.headers.authorization !== `Bearer ${this.requiredToken}`) {
      response.writeHead(401, { 'x-error-code': 'RepoNotFound' }).end();
    } else if (refusal !== undefined) {
      response.writeHead(refusal.status, { 'x-error-code': refusal.reason }).end();
    } else if (entry === undefined || (revision !== 'main' && revision !== this.commit)) {
      response.writeHead(404, { 'x-error-code': 'EntryNotFound' }).end();
    } else if (entry.lfs) {
      response
        .writeHead(302, {
          location: this.redirect ?? `${this.storageUrl}/${name}?signature=secret`,
          'x-repo-commit': this.commit,
          'x-linked-size': String(entry.announcedSize ?? entry.bytes.length),
          'x-linked-etag': `"${entry.hash ?? createHash('sha256').update(entry.bytes).digest('hex')}"`,
        })
        .end();
    } else {
      const blob = createHash('sha1').update(`blob ${entry.bytes.length}\0`).update(entry.bytes).digest('hex');
      response.setHeader('x-repo-commit', this.commit);
      response.setHeader('etag', `"${entry.hash ?? blob}"`);
      this.#sendBytes(request, response, entry.bytes);
    }
  }

  #serveStorage(request: IncomingMessage, response: ServerResponse): void {
    const entry = this.files.get(this.#note('storage', request).slice(1));
    if (entry === undefined) response.writeHead(404).end();
    else this.#sendBytes(request, response, entry.bytes);
  }

  #sendBytes(request: IncomingMessage, response: ServerResponse, bytes: Buffer): void {
    if (request.method === 'HEAD') {
      response.writeHead(200, { 'content-length': bytes.length }).end();
      return;
    }
    const fault = this.faults.shift();
    if (fault?.kind === 'status') {
      response.writeHead(fault.status).end();
      return;
    }
    const start =
      fault?.kind === 'ignore-range' ? 0 : Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    if (start >= bytes.length && start > 0) {
      response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end();
      return;
    }
    const range = start > 0 ? { 'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}` } : {};
    response.writeHead(start > 0 ? 206 : 200, { 'content-length': bytes.length - start, ...range });
    if (fault?.kind === 'stall') {
      this.#stalled = response.socket;
      response.write(bytes.subarray(start, start + fault.afterBytes));
    } else {
      response.end(bytes.subarray(start));
    }
  }
}
