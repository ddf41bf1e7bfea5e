import { KvasirError } from '@kvasir/domain';
import type { HubReference } from './hub-reference.ts';

/** What the Hub says about one file before it is downloaded. */
export interface HubFile {
  /** Path inside the repository. */
  readonly file: string;
  readonly commit: string;
  readonly bytes: number;
  /** `sha256` for LFS files, `git-blob-sha1` for small ones. */
  readonly hash: { readonly kind: 'sha256' | 'git-blob-sha1'; readonly hex: string };
}

export interface HubClientOptions {
  readonly endpoint: string;
  readonly token?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

const MAX_REDIRECTS = 10;
const FACT_HEADERS = ['x-repo-commit', 'x-linked-size', 'x-linked-etag'];

/**
 * Speaks the Hub's `resolve` protocol. Redirects are followed by hand: the token goes to the endpoint's origin alone,
 * and a secure connection is never left for a plain one.
 */
export class HubClient {
  readonly #endpoint: URL;
  readonly #token: string | undefined;
  readonly #signal: AbortSignal | undefined;

  /** @throws KvasirError `invalid-argument` */
  constructor(options: HubClientOptions) {
    this.#endpoint = parseEndpoint(options.endpoint);
    if (options.token !== undefined && !/^[\x21-\x7e]+$/.test(options.token)) {
      throw new KvasirError('invalid-argument', 'access token: expected visible ASCII letters, found others');
    }
    this.#token = options.token;
    this.#signal = options.signal;
  }

  /** @throws KvasirError `unauthorized`, `model-not-found`, `download-failed`, `aborted` */
  async describe(reference: HubReference): Promise<HubFile> {
    const url = this.#urlOf(reference);
    // The Hub names the commit, and size and hash of LFS files, while it redirects; the storage knows nothing of them.
    const facts = new Headers();
    const note = ({ headers }: Response) => {
      for (const name of FACT_HEADERS) {
        const value = headers.get(name);
        if (value !== null && !facts.has(name)) facts.set(name, value);
      }
      return !(facts.has('x-linked-etag') && facts.has('x-linked-size'));
    };
    const response = await this.#request(url, 'HEAD', {}, note);
    if (note(response)) {
      if (!response.ok) throw await refusal(url, response, reference, this.#token !== undefined);
      for (const name of ['etag', 'content-length']) facts.set(name, response.headers.get(name) ?? '');
    }
    return readFacts(url, reference, facts);
  }

  /**
   * Starts the transfer of a file's bytes from `offset` on.
   * @returns the response with status 200 (from the start, whatever was asked) or 206 (from `offset`) or 416
   * @throws KvasirError `unauthorized`, `model-not-found`, `download-failed`, `aborted`
   */
  async open(reference: HubReference, offset: number): Promise<Response> {
    const url = this.#urlOf(reference);
    const response = await this.#request(url, 'GET', offset > 0 ? { range: `bytes=${offset}-` } : {}, () => true);
    if (response.ok || response.status === 416) return response;
    throw await refusal(url, response, reference, this.#token !== undefined);
  }

  #urlOf({ repository, revision, file }: HubReference): URL {
    const path = [...repository.split('/'), 'resolve', revision, ...file.split('/')].map(encodeURIComponent).join('/');
    return new URL(`${this.#endpoint.href}${path}`);
  }

  /** Follows redirects while `follow` says so. */
  async #request(
    start: URL,
    method: 'GET' | 'HEAD',
    headers: Readonly<Record<string, string>>,
    follow: (response: Response) => boolean,
  ): Promise<Response> {
    let url = start;
    for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
      const isHome = url.origin === this.#endpoint.origin;
      const response = await this.#fetch(url, {
        method,
        redirect: 'manual',
        headers: {
          ...headers,
          // Sizes and hashes are those of the file, not of a compressed transfer.
          'accept-encoding': 'identity',
          'user-agent': 'kvasir',
          ...(isHome && this.#token !== undefined ? { authorization: `Bearer ${this.#token}` } : {}),
        },
      });
      const location = response.headers.get('location');
      if (response.status < 300 || response.status > 399 || location === null || !follow(response)) return response;
      await response.body?.cancel();
      url = nextUrl(url, location);
    }
    throw failed(start, `expected a file within ${MAX_REDIRECTS} redirects, found more`);
  }

  async #fetch(url: URL, init: RequestInit): Promise<Response> {
    try {
      return await fetch(url, { ...init, ...(this.#signal === undefined ? {} : { signal: this.#signal }) });
    } catch (cause) {
      throw connectionError(url, cause, this.#signal);
    }
  }
}

/** Turns what `fetch` or a body's stream throws into ours: `aborted`, or `download-failed` with `isOffline`. */
export function connectionError(url: URL | string, cause: unknown, signal: AbortSignal | undefined): KvasirError {
  if (signal?.aborted) return new KvasirError('aborted', 'the download was stopped; it can be resumed', { cause });
  const reason = systemReason(cause);
  return new KvasirError(
    'download-failed',
    `${withoutQuery(url)}: expected an answer, found a broken connection (${reason}); check the network, the endpoint and proxies`,
    { facts: { url: withoutQuery(url), isOffline: true }, cause },
  );
}

// -------------------------------------------------------------------------------------------------------------- pieces

function parseEndpoint(endpoint: string): URL {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : null;
  if (url === null || !['http:', 'https:'].includes(url.protocol) || url.username !== '' || url.search !== '') {
    throw new KvasirError(
      'invalid-argument',
      `Hub endpoint: expected an address like https://huggingface.co, found ${JSON.stringify(endpoint.slice(0, 200))}`,
    );
  }
  if (!url.pathname.endsWith('/')) url.pathname += '/';
  return url;
}

function nextUrl(from: URL, location: string): URL {
  const url = URL.canParse(location, from.href) ? new URL(location, from) : null;
  const isAllowed = url?.protocol === 'https:' || (url?.protocol === 'http:' && from.protocol === 'http:');
  if (url === null || !isAllowed) {
    throw failed(from, `expected a redirect to a secure address, found ${JSON.stringify(location.slice(0, 200))}`);
  }
  return url;
}

/** Source: the headers that huggingface_hub reads (X-Repo-Commit, X-Linked-Size, X-Linked-Etag, ETag). */
function readFacts(url: URL, reference: HubReference, headers: Headers): HubFile {
  const commit = headers.get('x-repo-commit') ?? '';
  const bytes = Number(headers.get('x-linked-size') ?? (headers.get('content-length') || Number.NaN));
  const etag = (headers.get('x-linked-etag') ?? headers.get('etag') ?? '').replace(/^W\//, '').replaceAll('"', '');
  if (!/^[0-9a-f]{40}$/.test(commit) || !Number.isSafeInteger(bytes) || !/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(etag)) {
    throw failed(
      url,
      `expected a Hub that names commit, size and hash of the file, found commit ${JSON.stringify(commit.slice(0, 50))}, size ${bytes}, etag ${JSON.stringify(etag.slice(0, 80))}; use another endpoint`,
    );
  }
  const kind = etag.length === 64 ? 'sha256' : 'git-blob-sha1';
  return { file: reference.file, commit, bytes, hash: { kind, hex: etag } };
}

/** What the Hub's refusals mean; `X-Error-Code` tells apart what the status alone does not. */
async function refusal(url: URL, response: Response, reference: HubReference, hasToken: boolean): Promise<KvasirError> {
  await response.body?.cancel();
  const { status } = response;
  const reason = (response.headers.get('x-error-code') ?? '').slice(0, 60);
  const facts = { url: withoutQuery(url), status, reason };
  const name = `${reference.repository}:${reference.file}@${reference.revision}`;
  if (status === 401 || status === 403) {
    const advice = hasToken
      ? 'the token is not accepted, or its owner has not been granted access to the model'
      : 'the repository does not exist, is private or is gated: check its name, or give an access token';
    return new KvasirError(
      'unauthorized',
      `${name}: expected to be let in, found HTTP ${status} ${reason}; ${advice}`,
      {
        facts,
      },
    );
  }
  if (status === 404) {
    return new KvasirError(
      'model-not-found',
      `${name}: expected a file on the Hub, found HTTP 404 ${reason}; check organisation, repository, file and revision`,
      { facts },
    );
  }
  const advice = status === 429 || status >= 500 ? 'the Hub is busy or broken: try again later' : 'check the endpoint';
  return new KvasirError('download-failed', `${name}: expected the file, found HTTP ${status} ${reason}; ${advice}`, {
    facts,
  });
}

function failed(url: URL, message: string): KvasirError {
  return new KvasirError('download-failed', `${withoutQuery(url)}: ${message}`, { facts: { url: withoutQuery(url) } });
}

/** Signed addresses carry secrets in their query. */
function withoutQuery(url: URL | string): string {
  const { origin, pathname } = new URL(url);
  return `${origin}${pathname}`;
}

/** `fetch` says only that it failed; the reason is the innermost cause. */
function systemReason(error: unknown): string {
  let reason = String(error);
  for (let cause = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth++) {
    reason = 'code' in cause && typeof cause.code === 'string' ? cause.code : cause.message;
  }
  return reason;
}
