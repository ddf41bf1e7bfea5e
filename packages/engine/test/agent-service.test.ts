import { FakeAgentArchive, FakeAgentMemory, FakeBlockStore, RecordingNarrator } from '@kvasir/adapter-fake';
import { openColdTier } from '@kvasir/block-store-fs';
import type { AgentDirectory, AgentManifest, CacheIdentity } from '@kvasir/domain';
import { describeAgentDirectory, type OpenedDirectory } from '@kvasir/port-contracts';
import fc from 'fast-check';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { AgentService } from '../src/index.ts';

const VOCABULARY = 256;
const IDENTITY: CacheIdentity = { modelFingerprint: 'm', kvDType: 'f16', layoutVersion: '1', numericsId: 'n' };
const OTHERS = { model: { ...IDENTITY, modelFingerprint: 'other' }, numerics: { ...IDENTITY, numericsId: 'other' } };
const common = { now: () => 1000, checksum: crc32, vocabularySize: VOCABULARY, narrator: new RecordingNarrator() };

const directories: string[] = [];
afterAll(async () => {
  for (const directory of directories) await rm(directory, { recursive: true });
});

async function openFake(identity = IDENTITY) {
  const blocks = new FakeBlockStore();
  const archive = new FakeAgentArchive(blocks);
  const memory = new FakeAgentMemory({ identity, archive, blocks });
  const agents = await AgentService.open({ ...common, archive, memory });
  return { agents, archive, memory, blocks, vocabularySize: VOCABULARY, close: () => agents.close() };
}

describeAgentDirectory('AgentService on fakes', {
  open: openFake,
  openOther: (which) => openFake(OTHERS[which]),
  reopen: null,
});

const opened = new WeakMap<OpenedDirectory, string>();
async function openOnDisk(identity = IDENTITY, directory?: string): Promise<OpenedDirectory> {
  const place = directory ?? (await mkdtemp(join(tmpdir(), 'kvasir-agents-')));
  if (directory === undefined) directories.push(place);
  const tier = await openColdTier({ directory: place });
  const memory = new FakeAgentMemory({ identity, archive: tier.agents, blocks: tier.blocks });
  const agents = await AgentService.open({ ...common, archive: tier.agents, memory });
  const close = async (): Promise<void> => {
    await agents.close();
    await memory.flush();
    await tier.close();
  };
  const result = { agents, vocabularySize: VOCABULARY, close };
  opened.set(result, place);
  return result;
}

describeAgentDirectory('AgentService on files', {
  open: openOnDisk,
  openOther: (which) => openOnDisk(OTHERS[which]),
  reopen: async (before) => {
    await before.close();
    return openOnDisk(IDENTITY, opened.get(before) as string);
  },
});

const ADA = { tenant: 'default', name: 'ada' };
const turnOf = (tokenIds: Int32Array) => ({ tokenIds, segments: '{}', promptTokens: 1, cachedTokens: 0 });

async function live(agents: AgentDirectory, name: string, tokenIds: Int32Array): Promise<void> {
  await (await agents.beginTurn({ tenant: 'default', name }, { createAbsent: true })).commit(turnOf(tokenIds));
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

describe('AgentService', () => {
  it('leaves earlier turns as they are when a turn that rewinds cannot be written', async () => {
    const { agents, archive } = await openFake();
    await live(agents, 'ada', Int32Array.of(1, 2, 3, 4));
    const turn = await agents.beginTurn(ADA, { createAbsent: false });
    archive.refuse('disk-full');
    await expect(turn.commit(turnOf(Int32Array.of(1, 9)))).rejects.toMatchObject({ code: 'disk-full' });
    archive.refuse(null);
    expect([...(await agents.inspect(ADA)).manifest.tokenIds]).toEqual([1, 2, 3, 4]);
    (await agents.beginTurn(ADA, { createAbsent: false })).release();
  });

  it('says what could not be noted, and counts the turn all the same', async () => {
    const { agents, archive } = await openFake();
    const turn = await agents.beginTurn(ADA, { createAbsent: true });
    // More reused than asked for: the archive refuses the note.
    await turn.commit({ ...turnOf(Int32Array.of(1)), cachedTokens: 2 });
    await agents.close();
    expect(common.narrator.named('agent-note-failed')).toHaveLength(1);
    expect((await archive.usage()).commits).toBe(1);
    await expect(agents.create(ADA)).rejects.toMatchObject({ code: 'disposed' });
  });

  it('tells the memory what to follow, adopt, pin and forget', async () => {
    const { agents, memory, blocks } = await openFake();
    const tokens = Int32Array.from({ length: 40 }, (_, index) => index);
    await live(agents, 'ada', tokens);
    await agents.fork(ADA, 'fork', { tokens: 33 });
    await memory.flush();
    const fork = (await agents.inspect({ tenant: 'default', name: 'fork' })).manifest;
    const source = (await agents.inspect(ADA)).manifest;
    expect(memory.adopted).toContain(fork.agentId);
    expect(fork.blocks[0]?.slice(0, 2)).toEqual(source.blocks[0]?.slice(0, 2));
    expect((await blocks.usage()).blocks).toBe(4);
    await agents.pin(ADA, 7);
    expect(memory.pinned.get(source.agentId)).toBe(7);
    await agents.delete(ADA);
    expect((await blocks.usage()).blocks).toBe(3);
    expect(memory.tiersOf(source.agentId).hot.blocks).toBe(0);
    expect((await agents.inspect({ tenant: 'default', name: 'fork' })).tiers.hot).toMatchObject({
      blocks: 3,
      tokens: 33,
    });
  });

  it('takes blocks of an export, marks what other numerics made, and says what it refused', async () => {
    const { agents, memory } = await openFake();
    const tokens = Int32Array.from({ length: 40 }, (_, index) => index);
    await live(agents, 'ada', tokens);
    const file = await collect(await agents.export(ADA));
    const imported = await agents.import({ tenant: 'default', name: 'b' }, once(file));
    expect([imported.blocks, imported.refused, memory.written.size]).toEqual([3, [], 3]);
    const other = await openFake(OTHERS.numerics);
    expect((await other.agents.import(ADA, once(file))).refused).toEqual([
      { reason: expect.stringMatching(/numericsId: expected other, found n/), blocks: 3 },
    ]);
    const accepted = await other.agents.import({ ...ADA, name: 'c' }, once(file), { acceptNumerics: true });
    expect(accepted).toMatchObject({ blocks: 3, agent: { identity: { numericsId: 'other importing n' } } });
    memory.lose((await agents.inspect(ADA)).manifest.agentId, 16);
    const part = await collect(await agents.export(ADA));
    expect((await agents.import({ ...ADA, name: 'd' }, once(part))).blocks).toBe(1);
  });

  it('exports what is gone by then as absent, and nobody else’s slots', async () => {
    const { agents, memory } = await openFake();
    await live(
      agents,
      'ada',
      Int32Array.from({ length: 20 }, (_, index) => index),
    );
    const stream = await agents.export(ADA);
    memory.lose((await agents.inspect(ADA)).manifest.agentId, 16);
    const imported = await agents.import({ ...ADA, name: 'b' }, stream);
    expect(imported).toMatchObject({ blocks: 1, refused: [{ reason: expect.stringMatching(/^absent/), blocks: 1 }] });
    const whole = await agents.export({ ...ADA, name: 'b' });
    const bytes = await collect(whole);
    const header = JSON.parse(bytes.toString('latin1', 8, 8 + Number(bytes.readBigUInt64LE()))) as Record<
      string,
      { data_offsets: [number, number] }
    >;
    const start = 8 + Number(bytes.readBigUInt64LE());
    const [from, to] = (header['block.0.16'] as { data_offsets: [number, number] }).data_offsets;
    const payload = bytes.subarray(start + from, start + to);
    // 2 × 2 × 1 stripes of 16 slots of 8 bytes; 4 slots hold tokens.
    for (let stripe = 0; stripe < 4; stripe += 1) {
      expect(payload.subarray(stripe * 128 + 32, (stripe + 1) * 128).every((byte) => byte === 0)).toBe(true);
      expect(payload.subarray(stripe * 128, stripe * 128 + 32).some((byte) => byte !== 0)).toBe(true);
    }
  });

  it('leaves no file with an agent’s tokens after its deletion', async () => {
    const directory = await openOnDisk();
    const tokens = Int32Array.from({ length: 40 }, (_, index) => 0x5a + index);
    await live(directory.agents, 'ada', tokens);
    await live(directory.agents, 'ada', tokens.slice(0, 30));
    await directory.agents.delete(ADA);
    await directory.close();
    const needle = Buffer.from(tokens.slice(0, 8).buffer);
    const place = opened.get(directory) as string;
    for (const entry of await readdir(place, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      expect((await readFile(join(entry.parentPath, entry.name))).includes(needle), entry.name).toBe(false);
    }
  });

  it('keeps, whatever runs at once, for each agent what a list of its operations gives', async () => {
    const operation = fc.record({
      kind: fc.constantFrom('extend', 'diverge', 'rewind', 'fork', 'delete', 'release', 'leave'),
      agent: fc.constantFrom('a', 'b', 'c'),
      other: fc.constantFrom('a', 'b', 'c', 'd'),
      part: fc.double({ min: 0, max: 1, noNaN: true }),
      turns: fc.nat(3),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 25 }), async (operations) => {
        const { agents } = await openFake();
        const model = new Map<string, number[]>();
        let next = 0;
        const pause = async (count: number): Promise<void> => {
          for (let index = 0; index < count; index += 1) await Promise.resolve();
        };
        const locked = new Map<string, AgentManifest>();
        const run = async ({ kind, agent, other, part, turns }: (typeof operations)[number]): Promise<void> => {
          const name = { tenant: 'default', name: agent };
          if (kind === 'extend' || kind === 'diverge' || kind === 'release' || kind === 'leave') {
            const controller = new AbortController();
            if (kind === 'leave') void pause(turns).then(() => controller.abort());
            const turn = await agents.beginTurn(name, { createAbsent: true, signal: controller.signal });
            if (locked.has(agent)) throw new Error('expected one turn at a time, found two');
            locked.set(agent, turn.manifest);
            const before = [...turn.manifest.tokenIds];
            const expected = model.get(agent) ?? [];
            if (String(before) !== String(expected)) throw new Error(`expected ${expected}, found ${before}`);
            await pause(turns * 3);
            locked.delete(agent);
            if (kind === 'release' || kind === 'leave') {
              model.set(agent, before);
              turn.release();
              return;
            }
            const kept = kind === 'extend' ? before.length : Math.floor(part * before.length);
            const after = [...before.slice(0, kept), (next += 1) % 256, 255 - (next % 256)];
            model.set(agent, after);
            await turn.commit(turnOf(Int32Array.from(after)));
            return;
          }
          // These settle in the order in which they get the agent: the model follows in the same turn of the loop.
          if (kind === 'rewind') {
            const { manifest } = await agents.inspect(name);
            const tokens = Math.floor(part * manifest.tokenIds.length);
            await agents.rewind(name, { tokens });
            model.set(agent, (model.get(agent) ?? []).slice(0, tokens));
          } else if (kind === 'fork') {
            await agents.fork(name, other);
            model.set(other, [...(await agents.inspect({ tenant: 'default', name: other })).manifest.tokenIds]);
          } else {
            await agents.delete(name);
            model.delete(agent);
          }
        };
        // Turns run beside each other; what changes names or cuts runs alone, so that the model knows its place.
        let together: Promise<unknown>[] = [];
        const expected = /^(agent-not-found|agent-exists|aborted|invalid-argument)$/;
        const settle = async (): Promise<void> => {
          for (const outcome of await Promise.allSettled(together)) {
            if (outcome.status === 'rejected' && !expected.test((outcome.reason as { code?: string }).code ?? '')) {
              throw outcome.reason;
            }
          }
          together = [];
        };
        for (const one of operations) {
          if (['rewind', 'fork', 'delete'].includes(one.kind)) {
            await settle();
            together.push(run(one));
            await settle();
          } else together.push(run(one));
        }
        await settle();
        const names = (await agents.list('default', { limit: 100 })).map((summary) => summary.name);
        for (const name of names) {
          const { manifest, isBusy } = await agents.inspect({ tenant: 'default', name });
          expect([...manifest.tokenIds]).toEqual(model.get(name) ?? []);
          expect(isBusy).toBe(false);
        }
      }),
      { numRuns: 200 },
    );
  });
});
