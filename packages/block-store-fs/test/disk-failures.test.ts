import { blockOf, hashOf, IDENTITY, requestOf } from '@kvasir/port-contracts';
import { describe, expect, it } from 'vitest';
import { readBlock } from '../src/blocks/block-reader.ts';
import { FOREIGN_LOCK_PATIENCE_MS, DirectoryLock, type ProcessTable } from '../src/files/directory-lock.ts';
import { closeCores, LAYOUT, openCores, type OpenedCores } from './support/crash-story.ts';
import { FaultFileSystem } from './support/fault-file-system.ts';

const AGENT = { tenant: 't', name: 'ada', identity: IDENTITY, atMs: 1, tokenIds: Int32Array.of(1, 2, 3) };

async function opened(): Promise<{ files: FaultFileSystem; cores: OpenedCores; agentId: string }> {
  const files = new FaultFileSystem();
  const cores = await openCores(files);
  const { agentId } = await cores.archive.create(AGENT);
  return { files, cores, agentId };
}

function turn(agentId: string, startTokens: number, count = 2) {
  const tokenIds = Int32Array.from({ length: count }, (_, index) => startTokens + index);
  return [{ agentId, entry: { kind: 'turn', startTokens, tokenIds, segments: '', atMs: 2 }, isCommit: true }] as const;
}

describe('a disk that refuses', () => {
  it.each([
    ['ENOSPC', 'write', 'disk-full'],
    ['EDQUOT', 'flush', 'disk-full'],
    ['EIO', 'flush', 'disk-unwritable'],
    ['EROFS', 'write', 'disk-unwritable'],
  ] as const)('%s on %s: turns fail as %s, and nothing that was promised is lost', async (code, on, expected) => {
    const { files, cores, agentId } = await opened();
    await cores.archive.apply(turn(agentId, 3));
    files.failure = { code, on };
    for (const attempt of [1, 2]) {
      const [outcome] = await cores.archive.apply(turn(agentId, 5, 50 * attempt));
      expect(outcome).toMatchObject({ error: { code: expected } });
    }
    await expect(cores.archive.create({ ...AGENT, name: 'b' })).rejects.toMatchObject({ code: expected });
    expect((await cores.archive.read(agentId)).tokenIds.length).toBe(5);
    expect(cores.archive.usage().writeFailures).toBeGreaterThan(1);

    const meanwhile = files.crashed('nothing', () => 0);
    const afterCut = await openCores(meanwhile);
    expect((await afterCut.archive.read(agentId)).tokenIds.length).toBe(5);

    files.failure = null;
    expect(await cores.archive.apply(turn(agentId, 5))).toMatchObject([{ summary: { numTokens: 7 } }]);
    await closeCores(cores);
    const again = await openCores(files.crashed('nothing', () => 0));
    expect([...(await again.archive.read(agentId)).tokenIds]).toEqual([1, 2, 3, 3, 4, 5, 6]);
    expect(again.archive.usage()).toMatchObject({ opening: 'clean', tornTails: 0, agents: 1 });
  });

  it.each([
    ['ENOSPC', 'write', 'disk-full'],
    ['ENOSPC', 'create', 'disk-full'],
    ['EIO', 'flush', 'unwritable'],
    ['EACCES', 'rename', 'unwritable'],
  ] as const)('%s on %s: blocks are not stored, as a value: %s', async (code, on, expected) => {
    const { files, cores } = await opened();
    const before = files.list(LAYOUT.blocksTemporary);
    await cores.blocks.put([blockOf(1)], () => false);
    files.failure = { code, on };
    expect(await cores.blocks.put([blockOf(1), blockOf(2), blockOf(3)], () => false)).toEqual([
      'present',
      expected,
      expected,
    ]);
    files.failure = null;
    expect(files.list(LAYOUT.blocksTemporary)).toEqual(before);
    expect(cores.blocks.usage()).toMatchObject({ blocks: 1, storings: { [expected]: 2 } });
    expect(await cores.blocks.put([blockOf(2)], () => false)).toEqual(['stored']);
    const reading = readBlock(files, LAYOUT.blockFile(hashOf(2), 0), requestOf(blockOf(2)), () => false);
    expect(reading).toMatchObject({ isHit: true });
  });

  it('removes what an earlier process had not finished', async () => {
    const { files, cores } = await opened();
    await closeCores(cores);
    for (const directory of [LAYOUT.blocksTemporary, LAYOUT.agentsTemporary]) {
      files.close(files.open(`${directory}/17`, 'create'));
    }
    const again = await openCores(files);
    expect([...files.list(LAYOUT.agentsTemporary), ...files.list(LAYOUT.blocksTemporary)]).toEqual([]);
    expect(again.blocks.usage().temporaryFilesRemoved).toBe(1);
  });

  it('counts again after an unclean stop, with blocks coming and going meanwhile', async () => {
    const { files, cores } = await opened();
    await cores.blocks.put(
      Array.from({ length: 20 }, (_, seed) => blockOf(seed)),
      () => false,
    );
    const { bytes } = cores.blocks.usage();
    const after = await openCores(files.crashed('process', () => 0));
    expect(after.blocks.usage().isExact).toBe(false);
    for (let folder = 0; folder < 100; folder++) after.blocks.countNext();
    await after.blocks.remove([0, 1, 2, 3, 4].map((seed) => blockOf(seed).key));
    await after.blocks.put([blockOf(30), blockOf(31)], () => false);
    for (let more = true; more; ) more = after.blocks.countNext();
    expect(after.blocks.usage()).toMatchObject({ isExact: true, blocks: 17, bytes: (bytes / 20) * 17 });
  });
});

describe('a damaged journal', () => {
  it('keeps what is before the damage, sets the rest aside and counts', async () => {
    const { files, cores, agentId } = await opened();
    await cores.archive.apply(turn(agentId, 3));
    const { length } = files.files().get(LAYOUT.agentFile(agentId)) ?? { length: 0 };
    await cores.archive.apply(turn(agentId, 5));
    await cores.archive.apply(turn(agentId, 7));
    await closeCores(cores);
    files.corrupt(LAYOUT.agentFile(agentId), (bytes) => {
      bytes[length + 12] = (bytes[length + 12] ?? 0) ^ 1;
      return bytes;
    });
    const again = await openCores(files);
    expect((await again.archive.read(agentId)).tokenIds.length).toBe(5);
    expect(again.archive.usage()).toMatchObject({ damagedJournals: 1, tornTails: 0 });
    expect(files.list(LAYOUT.quarantine)).toEqual([`${agentId},damaged,1000`]);
    await again.archive.beginDeletion(agentId);
    await again.archive.removeFiles(agentId);
    expect(files.list(LAYOUT.quarantine)).toEqual([]);
  });

  it('is an error with a code where not even the manifest is left, and deletable', async () => {
    const { files, cores, agentId } = await opened();
    await closeCores(cores);
    files.corrupt(LAYOUT.agentFile(agentId), () => Buffer.from('nothing'));
    const again = await openCores(files);
    await expect(again.archive.read(agentId)).rejects.toMatchObject({ code: 'file-corrupt' });
    expect(await again.archive.apply(turn(agentId, 3))).toMatchObject([{ error: { code: 'file-corrupt' } }]);
    await again.archive.beginDeletion(agentId);
    expect(await again.archive.removeFiles(agentId)).toEqual([]);
  });
});

describe('an index that is missing, damaged or cut', () => {
  it.each([
    ['missing', null],
    ['empty', () => new Uint8Array()],
    ['another file', () => Buffer.from('GGUF and so on')],
    ['cut', (bytes: Uint8Array) => bytes.slice(0, bytes.length - 5)],
    ['flipped', (bytes: Uint8Array) => bytes.map((byte, at) => (at === 40 ? byte ^ 4 : byte))],
  ] as const)('is built again from the agents: %s', async (_, damage) => {
    const { files, cores, agentId } = await opened();
    await cores.archive.apply(turn(agentId, 3));
    await closeCores(cores);
    if (damage === null) files.remove(LAYOUT.index);
    else files.corrupt(LAYOUT.index, damage);
    const again = await openCores(files);
    expect(again.archive.usage()).toMatchObject({ opening: 'rebuilt', indexRebuilds: 1, agents: 1 });
    expect(again.archive.list(0).summaries).toMatchObject([{ agentId, name: 'ada', numTokens: 5 }]);
    await closeCores(again);
    expect((await openCores(files)).archive.usage().opening).toBe('clean');
  });
});

describe('DirectoryLock', () => {
  const table = (pid: number, alive: Record<number, string>, scope = 'here', now = 1e6): ProcessTable => ({
    self: { pid, startedAt: alive[pid] ?? '', scope },
    startOf: (asked) => alive[asked] ?? null,
    now: () => now,
  });

  it('is refused while its process lives, and taken over when it is gone or its id is another process', () => {
    const files = new FaultFileSystem();
    files.makeDirectory('/cache');
    const first = new DirectoryLock(files, '/cache/lock', table(1, { 1: 'a', 2: 'b' }), 'x');
    const second = (alive: Record<number, string>) => new DirectoryLock(files, '/cache/lock', table(2, alive), 'y');
    expect(() => second({ 1: 'a', 2: 'b' })).toThrow(/held by process 1/);
    expect(second({ 1: 'later', 2: 'b' }).tookOver).toBe(true);
    first.release();
    expect(() => new DirectoryLock(files, '/cache/lock', table(3, { 2: 'b', 3: 'c' }), 'z')).toThrow(
      /held by process 2/,
    );
    expect(new DirectoryLock(files, '/cache/lock', table(3, { 3: 'c' }), 'z').tookOver).toBe(true);
    expect(files.list('/cache')).toEqual(['lock']);
  });

  it('is given up by its holder only', () => {
    const files = new FaultFileSystem();
    files.makeDirectory('/cache');
    const lock = new DirectoryLock(files, '/cache/lock', table(1, { 1: 'a' }), 'x');
    expect(() => new DirectoryLock(files, '/cache/lock', table(1, { 1: 'a' }), 'y')).toThrow(/held by process 1/);
    lock.release();
    lock.release();
    expect(new DirectoryLock(files, '/cache/lock', table(1, { 1: 'a' }), 'y').tookOver).toBe(false);
  });

  it('of another container counts as held until its heartbeat is old', () => {
    const files = new FaultFileSystem();
    files.makeDirectory('/cache');
    const lock = new DirectoryLock(files, '/cache/lock', table(1, { 1: 'a' }, 'there'), 'x');
    expect(lock.tookOver).toBe(false);
    const later = (now: number) => new DirectoryLock(files, '/cache/lock', table(1, { 1: 'a' }, 'here', now), 'y');
    expect(() => later(FOREIGN_LOCK_PATIENCE_MS - 1)).toThrow(/expected a cache directory no other server uses/);
    expect(later(FOREIGN_LOCK_PATIENCE_MS).tookOver).toBe(true);
  });

  it('that a power cut left empty or unreadable is taken over', () => {
    for (const content of ['', 'garbage', '{}', 'null']) {
      const files = new FaultFileSystem();
      files.makeDirectory('/cache');
      files.close(files.open('/cache/lock', 'create'));
      files.corrupt('/cache/lock', () => Buffer.from(content));
      expect(new DirectoryLock(files, '/cache/lock', table(1, { 1: 'a' }), 'x').tookOver).toBe(true);
    }
  });
});
