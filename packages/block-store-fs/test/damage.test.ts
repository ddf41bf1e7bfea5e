import { blockOf, hashOf, IDENTITY, requestOf, SHAPE } from '@kvasir/port-contracts';
import type { PayloadShape } from '@kvasir/domain';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeHeader, encodeHeader, headerLength, type BlockHeader } from '../src/blocks/block-header.ts';
import { BlockKeeper } from '../src/blocks/block-keeper.ts';
import { readBlock } from '../src/blocks/block-reader.ts';
import { payloadBytes, payloadRuns, storedPayloadBytes } from '../src/blocks/payload-runs.ts';
import { parseAgentFile } from '../src/agents/agent-file.ts';
import { parseIndex } from '../src/agents/agent-index.ts';
import { LAYOUT } from './support/crash-story.ts';
import { FaultFileSystem } from './support/fault-file-system.ts';

const BUDGETS = { keptBytes: Infinity, writtenBytes: Infinity, periodMs: 1000 };
const BLOCK = blockOf(7, { numTokens: 11 });
const PATH = LAYOUT.blockFile(BLOCK.key.hash, 0);

async function storedBlock(): Promise<{ files: FaultFileSystem; keeper: BlockKeeper }> {
  const files = new FaultFileSystem();
  files.makeDirectory(LAYOUT.directory);
  const keeper = await BlockKeeper.open({ files, layout: LAYOUT, budgets: BUDGETS, now: () => 5 });
  expect(await keeper.put([BLOCK], () => false)).toEqual(['stored']);
  return { files, keeper };
}

describe('a damaged block file', () => {
  it('is a miss after any one bit has changed, and never an exception', async () => {
    const { files } = await storedBlock();
    const whole = files.files().get(PATH) ?? new Uint8Array();
    const served: number[] = [];
    for (let at = 0; at < whole.length; at++) {
      const damaged = await storedBlock();
      damaged.files.corrupt(PATH, (bytes) => {
        bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8));
        return bytes;
      });
      if (readBlock(damaged.files, PATH, requestOf(BLOCK), () => false).isHit) served.push(at);
    }
    expect(whole.length).toBeGreaterThan(4096);
    expect(served).toEqual([]);
  });

  it('is truncated at every length but its own', async () => {
    const { files } = await storedBlock();
    const length = files.files().get(PATH)?.length ?? 0;
    const reasons = new Set<string>();
    for (let kept = 0; kept < length; kept += kept < 4200 ? 1 : 7) {
      const damaged = await storedBlock();
      damaged.files.corrupt(PATH, (bytes) => bytes.slice(0, kept));
      const reading = readBlock(damaged.files, PATH, requestOf(BLOCK), () => false);
      reasons.add(reading.isHit ? `served at ${kept}` : reading.reason);
    }
    expect([...reasons]).toEqual(['truncated']);
  });

  it('is corrupt with something appended, foreign when it is anything else', async () => {
    const { files } = await storedBlock();
    files.corrupt(PATH, (bytes) => Buffer.concat([bytes, Buffer.from('x')]));
    expect(readBlock(files, PATH, requestOf(BLOCK), () => false)).toMatchObject({ reason: 'corrupt' });
    const other = blockOf(8);
    for (const content of ['{"not": "ours"}'.padEnd(200), '\u0000'.repeat(4096), 'GGUF'.repeat(30)]) {
      files.corrupt(PATH, () => Buffer.from(content));
      expect(readBlock(files, PATH, requestOf(BLOCK), () => false)).toMatchObject({ reason: 'foreign' });
    }
    const stored = await storedBlock();
    await stored.keeper.put([other], () => false);
    const bytes = stored.files.files().get(LAYOUT.blockFile(other.key.hash, 0)) ?? new Uint8Array();
    files.corrupt(PATH, () => bytes.slice());
    expect(readBlock(files, PATH, requestOf(BLOCK), () => false)).toMatchObject({ reason: 'foreign' });
  });

  it('is set aside once, found by deletion, and replaced by the next put', async () => {
    const { files, keeper } = await storedBlock();
    const { inode } = files.describe(PATH) ?? { inode: -1 };
    expect(keeper.setAside(BLOCK.key, inode + 1, 'corrupt')).toBe(false);
    expect(keeper.setAside(BLOCK.key, inode, 'corrupt')).toBe(true);
    expect(keeper.setAside(BLOCK.key, inode, 'corrupt')).toBe(false);
    expect(files.list(LAYOUT.quarantine)).toEqual([`${BLOCK.key.hash}.0,corrupt,5`]);
    expect(keeper.usage()).toMatchObject({ blocks: 0, bytes: 0, setAside: 1 });
    expect(await keeper.put([BLOCK], () => false)).toEqual(['stored']);
    expect(await keeper.remove([BLOCK.key])).toEqual([true]);
    expect(files.list(LAYOUT.quarantine)).toEqual([]);
  });

  it('that is too short is replaced by a put', async () => {
    const { files, keeper } = await storedBlock();
    files.corrupt(PATH, (bytes) => bytes.slice(0, 100));
    expect(await keeper.put([BLOCK], () => false)).toEqual(['stored']);
    expect(readBlock(files, PATH, requestOf(BLOCK), () => false)).toMatchObject({ isHit: true });
  });
});

const shapes = fc.record({
  dtype: fc.constantFrom('F32', 'F16', 'BF16', 'U8'),
  layers: fc.integer({ min: 1, max: 5 }),
  components: fc.integer({ min: 1, max: 2 }),
  heads: fc.integer({ min: 1, max: 5 }),
  blockTokens: fc.constantFrom(1, 4, 16, 256),
  dim: fc.constantFrom(1, 3, 64, 2048),
  isSliceable: fc.boolean(),
}) as fc.Arbitrary<PayloadShape>;
const hashes = fc.integer({ min: 0, max: 1e6 }).map(hashOf);

describe('headers and runs', () => {
  it('come back as they were written', () => {
    fc.assert(
      fc.property(
        shapes,
        hashes,
        fc.string(),
        fc.integer({ min: 0, max: 0xffff }),
        fc.nat(),
        (shape, hash, text, group, seed) => {
          const numTokens = 1 + (seed % shape.blockTokens);
          const runs = payloadRuns(shape, numTokens);
          const header: BlockHeader = {
            key: { hash, group },
            predecessor: seed % 2 === 0 ? null : hash,
            identity: { ...IDENTITY, modelFingerprint: text, numericsId: `${text}"\\` },
            numTokens,
            shape,
            tokensCrc32: seed >>> 0,
            payloadSums: runs.map((_, index) => (seed + index).toString(16).padStart(32, '0')),
          };
          const bytes = encodeHeader(header);
          const fileBytes = bytes.length + numTokens * 4 + storedPayloadBytes(shape, numTokens);
          expect(headerLength(bytes.subarray(0, 200), fileBytes)).toBe(bytes.length);
          expect(decodeHeader(bytes)).toEqual(header);
          expect((bytes.length + numTokens * 4) % 4096).toBe(0);
        },
      ),
    );
  });

  it('cover the stored part of a payload once, in order, within it', () => {
    fc.assert(
      fc.property(shapes, fc.nat(), (shape, seed) => {
        const numTokens = 1 + (seed % shape.blockTokens);
        const runs = payloadRuns(shape, numTokens);
        const pieces = runs.flatMap((run) => run.pieces);
        const ends = pieces.map(({ offset, bytes }) => offset + bytes);
        expect(runs.every((run) => run.bytes === run.pieces.reduce((sum, { bytes }) => sum + bytes, 0))).toBe(true);
        expect(runs.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(storedPayloadBytes(shape, numTokens));
        expect(pieces.every(({ offset }, index) => offset >= (ends[index - 1] ?? 0))).toBe(true);
        expect(ends.at(-1)).toBeLessThanOrEqual(payloadBytes(shape));
      }),
    );
  });

  it('that are hostile are refused with a reason', () => {
    const good = encodeHeader({
      key: BLOCK.key,
      predecessor: null,
      identity: IDENTITY,
      numTokens: 11,
      shape: SHAPE,
      tokensCrc32: 1,
      payloadSums: payloadRuns(SHAPE, 11).map(() => '1'.repeat(32)),
    });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 20 }),
        (edits) => {
          const bytes = good.slice();
          for (const [at, value] of edits) bytes[at] = value;
          const length = headerLength(bytes, 1e6);
          const outcome =
            typeof length === 'number' ? decodeHeader(bytes.subarray(0, Math.min(length, bytes.length))) : length;
          const isUnchanged = Buffer.from(bytes).equals(good);
          expect(typeof outcome === 'string' || isUnchanged).toBe(true);
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('of any bytes whatever are refused with a reason', async () => {
    const { files } = await storedBlock();
    const starts = fc.constantFrom('', '{"__metadata__":{"headerCrc32":"', '{}');
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), starts, fc.nat(400), (noise, start, length) => {
        const head = Buffer.alloc(8);
        head.writeBigUInt64LE(BigInt(length));
        files.corrupt(PATH, () => Buffer.concat([head, Buffer.from(start), noise]));
        expect(readBlock(files, PATH, requestOf(BLOCK), () => false).isHit).toBe(false);
      }),
      { numRuns: 1000 },
    );
  });
});

describe('journals and indexes', () => {
  it('of any bytes are read without an exception', () => {
    const magics = fc.constantFrom('KVAGENT1', 'KVINDEX1', '');
    fc.assert(
      fc.property(magics, fc.uint8Array({ maxLength: 200 }), (magic, noise) => {
        const bytes = Buffer.concat([Buffer.from(magic), noise]);
        expect(parseAgentFile(bytes, '0'.repeat(32))).toBe(null);
        expect(parseIndex(bytes).agents.size).toBe(0);
      }),
      { numRuns: 2000 },
    );
  });
});
