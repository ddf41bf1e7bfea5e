import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** One file on a Hub stand-in. */
export interface HubFile {
  readonly repository: string;
  readonly file: string;
  readonly content: Buffer;
}

export interface Hub {
  readonly url: string;
  readonly sha256: string;
  readonly authorizations: readonly (string | undefined)[];
  close(): Promise<void>;
}

/** Serves one small file the way the Hugging Face Hub does; its faults are tested where the client lives. */
export async function startHub({ repository, file, content }: HubFile): Promise<Hub> {
  const authorizations: (string | undefined)[] = [];
  const blob = createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
  const server = createServer((request, response) => {
    authorizations.push(request.headers.authorization);
    const [, , , kind] = (request.url ?? '').split('/');
    if (!request.url?.startsWith(`/${repository}/`) || kind !== 'resolve' || !request.url.endsWith(`/${file}`)) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, {
      'content-length': content.length,
      'x-repo-commit': 'c0ffee'.padEnd(40, '0'),
      etag: `"${blob}"`,
    });
    response.end(request.method === 'HEAD' ? undefined : content);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    sha256: createHash('sha256').update(content).digest('hex'),
    authorizations,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}
