import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  downloadModel,
  openModel,
  parseHubReference,
  type DownloadOptions,
  type DownloadProgress,
  type HubReference,
} from '../src/index.ts';
import { failureOf, temporaryDirectory, writeFiles } from './support/files.ts';
import { HubStandIn } from './support/hub-stand-in.ts';
import { safetensorsBytes } from './support/safetensors-bytes.ts';
import { tinyCheckpoint, tinyGguf } from './support/tiny-models.ts';

const root = temporaryDirectory();
let hub: HubStandIn;
let cacheDirectory: string;
let count = 0;

const REFERENCE: HubReference = { repository: 'org/model', file: 'tiny.gguf', revision: 'main' };
const LARGE = Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * 7919) % 251));

const download = (options: Partial<DownloadOptions> = {}, reference: Partial<HubReference> = {}) =>
  downloadModel({ ...REFERENCE, ...reference }, { cacheDirectory, endpoint: hub.endpoint, retries: 0, ...options });
const share = (file: string, bytes: Buffer, more: object = {}) =>
  hub.files.set(`org/model/${file}`, { bytes, lfs: true, ...more });
const transfers = () => hub.requests.filter(({ host, method }) => host === 'storage' && method === 'GET');
const pathOf = (file: string, commit = hub.commit) => join(cacheDirectory, 'org', 'model', commit, file);

/** An address where nobody listens any more. */
async function deadEndpoint(): Promise<string> {
  const gone = new HubStandIn();
  await gone.start();
  const { endpoint } = gone;
  await gone.stop();
  return endpoint;
}

beforeEach(async () => {
  cacheDirectory = join(root, `cache-${count++}`);
  hub = new HubStandIn();
  await hub.start();
});
afterEach(() => hub.stop());

describe('parseHubReference', () => {
  it('reads organisation, repository, file and revision', () => {
    expect(parseHubReference('hf:org/repo-1.5:q/model-Q4_K_M.gguf')).toEqual({
      repository: 'org/repo-1.5',
      file: 'q/model-Q4_K_M.gguf',
      revision: 'main',
    });
    expect(parseHubReference('hf:org/repo:a.gguf@refs/pr/1')?.revision).toBe('refs/pr/1');
    expect(parseHubReference('./model.gguf')).toBeNull();
    expect(parseHubReference('C:\\models\\a.gguf')).toBeNull();
  });

  it.each([
    'hf:',
    'hf:repo:a.gguf',
    'hf:org/repo',
    'hf:org/repo:',
    'hf:org/../repo:a.gguf',
    'hf:org/repo:../a.gguf',
    'hf:org/repo:a//b.gguf',
    'hf:org/repo:/a.gguf',
    'hf:org/repo:a\\b.gguf',
    'hf:org/repo:a\0.gguf',
    'hf:org/repo:a.gguf@../main',
    'hf:org/repo:a.gguf@',
  ])('refuses %j', async (text) => {
    const { code, message } = await failureOf(() => parseHubReference(text));
    expect([code, message]).toEqual(['invalid-argument', expect.stringMatching(/expected hf:organisation/)]);
  });
});

describe('downloadModel', () => {
  it('downloads, verifies and opens a model, reporting progress', async () => {
    share('tiny.gguf', tinyGguf('llama'));
    const progress: DownloadProgress[] = [];
    const model = await download({ onProgress: (step) => progress.push(step) });
    const bytes = tinyGguf('llama').length;
    expect(model).toEqual({
      path: pathOf('tiny.gguf'),
      files: [pathOf('tiny.gguf')],
      commit: hub.commit,
      bytesDownloaded: bytes,
      isOffline: false,
    });
    expect(progress[0]).toMatchObject({
      file: 'tiny.gguf',
      fileIndex: 0,
      numFiles: 1,
      bytesDone: 0,
      bytesTotal: bytes,
    });
    expect(progress.at(-1)).toMatchObject({ bytesDone: bytes, bytesTotal: bytes });
    expect(existsSync(`${pathOf('tiny.gguf')}.incomplete`)).toBe(false);
    expect((await openModel(model.path)).descriptor().layers).toHaveLength(2);
  });

  it('fetches nothing twice, and needs no network for a commit it has', async () => {
    share('tiny.gguf', LARGE);
    await download();
    expect((await download()).bytesDownloaded).toBe(0);
    expect(transfers()).toHaveLength(1);
    const before = hub.requests.length;
    expect((await download({}, { revision: hub.commit })).path).toBe(pathOf('tiny.gguf'));
    expect(hub.requests).toHaveLength(before);
  });

  it('takes a file that changed in size behind its back for missing', async () => {
    share('tiny.gguf', LARGE);
    const { path } = await download();
    writeFileSync(path, 'cut');
    expect((await download()).bytesDownloaded).toBe(LARGE.length);
    expect(readFileSync(path).equals(LARGE)).toBe(true);
  });

  it('uses the file of another commit when it is the same', async () => {
    share('tiny.gguf', LARGE);
    await download();
    hub.commit = 'decade'.padEnd(40, '1');
    const model = await download();
    expect([model.bytesDownloaded, model.path]).toEqual([0, pathOf('tiny.gguf')]);
    expect(readFileSync(model.path).equals(LARGE)).toBe(true);
  });

  it('uses the cache when the Hub cannot be reached, and says so', async () => {
    share('tiny.gguf', LARGE);
    const { path } = await download();
    const endpoint = await deadEndpoint();
    expect(await download({ endpoint })).toMatchObject({ path, isOffline: true, bytesDownloaded: 0 });
    const { code, message } = await failureOf(() => download({ endpoint }, { file: 'other.gguf' }));
    expect([code, message]).toEqual(['download-failed', expect.stringMatching(/ECONNREFUSED.*check the network/)]);
  });

  it('goes on by itself where a connection broke', async () => {
    share('tiny.gguf', LARGE);
    hub.faults.push({ kind: 'stall', afterBytes: 100_000 }, { kind: 'stall', afterBytes: 50_000 });
    const onProgress = ({ bytesDone }: DownloadProgress) => {
      if (bytesDone === 100_000 || bytesDone === 150_000) hub.cut();
    };
    const { path, bytesDownloaded } = await download({ onProgress });
    expect(readFileSync(path).equals(LARGE)).toBe(true);
    expect(transfers().map(({ range }) => range)).toEqual([undefined, 'bytes=100000-', 'bytes=150000-']);
    expect(bytesDownloaded).toBe(LARGE.length);
  });

  it('goes on in the next call where the last one was stopped', async () => {
    share('tiny.gguf', LARGE);
    hub.faults.push({ kind: 'stall', afterBytes: 120_000 });
    const controller = new AbortController();
    const onProgress = ({ bytesDone }: DownloadProgress) => {
      if (bytesDone === 120_000) controller.abort();
    };
    const stopped = await failureOf(() => download({ signal: controller.signal, onProgress }));
    expect(stopped).toEqual({ code: 'aborted', message: expect.stringMatching(/can be resumed/) });
    expect(statSync(`${pathOf('tiny.gguf')}.incomplete`).size).toBe(120_000);
    const progress: number[] = [];
    const model = await download({ onProgress: (step) => progress.push(step.bytesDone) });
    expect(transfers()[1]?.range).toBe('bytes=120000-');
    expect([progress[0], model.bytesDownloaded]).toEqual([120_000, LARGE.length - 120_000]);
    expect(readFileSync(model.path).equals(LARGE)).toBe(true);
  });

  it('starts over where the server knows no ranges or what is there is too long', async () => {
    share('tiny.gguf', LARGE);
    writeFiles(join(cacheDirectory, 'org', 'model', hub.commit), { 'tiny.gguf.incomplete': LARGE.subarray(0, 1000) });
    hub.faults.push({ kind: 'ignore-range' });
    expect((await download()).bytesDownloaded).toBe(LARGE.length);
    share('other.gguf', LARGE);
    const long = Buffer.concat([LARGE, LARGE]);
    writeFiles(join(cacheDirectory, 'org', 'model', hub.commit), { 'other.gguf.incomplete': long });
    expect((await download({}, { file: 'other.gguf' })).bytesDownloaded).toBe(LARGE.length);
  });

  it('leaves a file alone that a living process is downloading, and takes over from a dead one', async () => {
    share('tiny.gguf', LARGE);
    const directory = join(cacheDirectory, 'org', 'model', hub.commit);
    writeFiles(directory, { 'tiny.gguf.incomplete.lock': `${process.pid}` });
    expect((await failureOf(() => download())).message).toMatch(new RegExp(`found process ${process.pid} at it`));
    // Larger than any process id a system gives out.
    writeFiles(directory, { 'tiny.gguf.incomplete.lock': '999999999' });
    expect((await download()).bytesDownloaded).toBe(LARGE.length);
    expect(readdirSync(directory).sort()).toEqual(['tiny.gguf', 'tiny.gguf.verified']);
  });

  it('verifies a download that was complete but for its name', async () => {
    share('tiny.gguf', LARGE);
    writeFiles(join(cacheDirectory, 'org', 'model', hub.commit), { 'tiny.gguf.incomplete': LARGE });
    expect((await download()).bytesDownloaded).toBe(0);
    expect(transfers()).toHaveLength(0);
  });

  it('deletes a file whose hash is wrong', async () => {
    share('tiny.gguf', LARGE, { hash: 'ab'.repeat(32) });
    const { code, message } = await failureOf(() => download());
    const truth = createHash('sha256').update(LARGE).digest('hex');
    expect([code, message]).toEqual(['file-corrupt', expect.stringContaining(truth)]);
    expect(readdirSync(join(cacheDirectory, 'org', 'model', hub.commit))).toEqual([]);
  });

  it('refuses bytes that were resumed onto the wrong beginning', async () => {
    share('tiny.gguf', LARGE);
    writeFiles(join(cacheDirectory, 'org', 'model', hub.commit), { 'tiny.gguf.incomplete': Buffer.alloc(1000) });
    expect((await failureOf(() => download())).code).toBe('file-corrupt');
    expect((await download()).bytesDownloaded).toBe(LARGE.length);
  });

  it('refuses another size than was announced', async () => {
    share('tiny.gguf', LARGE, { announcedSize: LARGE.length - 10 });
    expect((await failureOf(() => download())).message).toMatch(/expected 299990 bytes as the Hub announced/);
    share('long.gguf', LARGE, { announcedSize: LARGE.length + 10 });
    expect((await failureOf(() => download({}, { file: 'long.gguf' }))).code).toBe('download-failed');
  });

  it('sends the token to the endpoint and to nobody else', async () => {
    share('tiny.gguf', LARGE);
    hub.requiredToken = 'hf_secret';
    await download({ token: 'hf_secret' });
    const seen = (host: string) =>
      new Set(hub.requests.filter((request) => request.host === host).map((r) => r.authorization));
    expect([seen('hub'), seen('storage')]).toEqual([new Set(['Bearer hf_secret']), new Set([undefined])]);
    const { message } = await failureOf(() => download({ token: 'a\nb' }));
    expect(message).toMatch(/access token/);
    expect(message).not.toContain('a\nb');
  });

  it('works with a mirror under a path', async () => {
    share('tiny.gguf', LARGE);
    const { path } = await download({ endpoint: `${hub.endpoint}/mirror/` });
    expect(readFileSync(path).equals(LARGE)).toBe(true);
    expect(hub.requests[0]?.path).toBe('/mirror/org/model/resolve/main/tiny.gguf');
    expect((await failureOf(() => download({ endpoint: 'ftp://mirror' }))).code).toBe('invalid-argument');
  });

  it('keeps the secrets of signed addresses out of its messages', async () => {
    share('tiny.gguf', LARGE);
    hub.storageUrl = await deadEndpoint();
    const { code, message } = await failureOf(() => download());
    expect(code).toBe('download-failed');
    expect(message).toContain(`${hub.storageUrl}/org/model/tiny.gguf`);
    expect(message).not.toMatch(/signature|secret/);
  });

  it('refuses redirects that leave the web or never end', async () => {
    share('tiny.gguf', LARGE);
    hub.redirect = 'file:///etc/passwd';
    expect((await failureOf(() => download())).message).toMatch(/redirect to a secure address, found "file:/);
    hub.redirect = '/org/model/resolve/main/tiny.gguf';
    expect((await failureOf(() => download())).message).toMatch(/within 10 redirects/);
  });

  const refusals: [status: number, reason: string, code: string, message: RegExp][] = [
    [401, 'RepoNotFound', 'unauthorized', /HTTP 401 RepoNotFound.*give an access token/],
    [403, 'GatedRepo', 'unauthorized', /HTTP 403 GatedRepo/],
    [404, 'EntryNotFound', 'model-not-found', /HTTP 404 EntryNotFound; check organisation, repository, file/],
    [503, '', 'download-failed', /HTTP 503.*try again later/],
  ];
  it.each(refusals)('says what HTTP %i %s means', async (status, reason, code, message) => {
    hub.refusals.set('org/model/tiny.gguf', { status, reason });
    expect(await failureOf(() => download())).toEqual({ code, message: expect.stringMatching(message) });
  });

  it('survives a server that is busy for a moment, and gives up on one that stays so', async () => {
    share('tiny.gguf', LARGE);
    hub.faults.push({ kind: 'status', status: 503 });
    expect((await download({ retries: 1 })).bytesDownloaded).toBe(LARGE.length);
    share('busy.gguf', LARGE);
    hub.faults.push({ kind: 'status', status: 503 });
    expect((await failureOf(() => download({}, { file: 'busy.gguf' }))).message).toMatch(/HTTP 503/);
  });

  it('says when the cache cannot be written', async () => {
    share('tiny.gguf', LARGE);
    const file = join(root, 'a-file');
    writeFileSync(file, '');
    const { code } = await failureOf(() => download({ cacheDirectory: file }));
    expect(code).toBe('file-unreadable');
  });

  it('downloads all shards of a split model, asking for each before the first byte', async () => {
    const names = [1, 2, 3].map((number) => `m-0000${number}-of-00003.gguf`);
    for (const [index, name] of names.entries()) share(name, LARGE.subarray(index * 1000, index * 1000 + 1000));
    const progress: DownloadProgress[] = [];
    const model = await download({ onProgress: (step) => progress.push(step) }, { file: names[1] as string });
    expect(model.files).toEqual(names.map((name) => pathOf(name)));
    expect(progress.at(-1)).toEqual({ file: names[2], fileIndex: 2, numFiles: 3, bytesDone: 3000, bytesTotal: 3000 });
    expect(hub.requests.slice(0, 3).map(({ method }) => method)).toEqual(['HEAD', 'HEAD', 'HEAD']);
    hub.files.delete('org/model/m-00003-of-00003.gguf');
    cacheDirectory = join(cacheDirectory, 'fresh');
    expect((await failureOf(() => download({}, { file: names[0] as string }))).message).toMatch(/m-00003-of-00003/);
    expect((await failureOf(() => download({}, { file: 'm-00009-of-00003.gguf' }))).code).toBe('invalid-argument');
  });

  it('downloads safetensors weights with what lies beside them, small files by their git hash', async () => {
    const { config, tensors } = tinyCheckpoint('qwen3');
    const half = tensors.length / 2;
    const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
    share(shards[0] as string, safetensorsBytes(tensors.slice(0, half)));
    share(shards[1] as string, safetensorsBytes(tensors.slice(half)));
    const weight_map = Object.fromEntries(tensors.map(({ name }, index) => [name, shards[index < half ? 0 : 1]]));
    const json = (name: string, value: object) => share(name, Buffer.from(JSON.stringify(value)), { lfs: false });
    json('model.safetensors.index.json', { weight_map });
    json('config.json', config);
    json('tokenizer_config.json', { chat_template: 'T' });
    const file = 'model.safetensors.index.json';
    const model = await openModel((await download({}, { file })).path);
    expect([model.descriptor().architecture, model.chatTemplates.get('default')]).toEqual(['qwen3', 'T']);
    expect((await download({ endpoint: await deadEndpoint() }, { file })).files).toHaveLength(4);
  });
});
