import type { BlockStore } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { allOf, blockOf, hashOf, leadingSlots, requestOf, SHAPE } from './stored-blocks.ts';

export interface BlockStoreHarness {
  /** A fresh, empty store. */
  open(budgets?: { readonly keptBytes?: number; readonly writtenBytes?: number }): Promise<BlockStore>;
}

/** What every BlockStore owes the tiers above it. */
export function describeBlockStore(name: string, harness: BlockStoreHarness): void {
  describe(`${name} as a BlockStore`, () => {
    const using = async (
      work: (store: BlockStore) => Promise<void>,
      budgets?: { readonly keptBytes?: number; readonly writtenBytes?: number },
    ): Promise<void> => {
      const store = await harness.open(budgets);
      try {
        await work(store);
      } finally {
        await store.close();
      }
    };

    it('gives back the bytes that were put, into memory of either kind', () =>
      using(async (store) => {
        const blocks = [blockOf(0), blockOf(1, { isShared: false }), blockOf(2)];
        expect(await store.put(blocks)).toEqual(['stored', 'stored', 'stored']);
        const requests = [requestOf(blocks[2] ?? blockOf(2)), requestOf(blockOf(0), false), requestOf(blockOf(1))];
        const loads = await store.get(requests);
        expect(loads).toMatchObject([
          { isHit: true, predecessor: hashOf(1) },
          { isHit: true, predecessor: null },
          { isHit: true, predecessor: hashOf(0) },
        ]);
        expect(requests.map(({ into }) => Buffer.from(into).toString('hex'))).toEqual(
          [2, 0, 1].map((seed) => Buffer.from(blockOf(seed).payload).toString('hex')),
        );
      }));

    it('keeps a partial block: its leading slots come back', () =>
      using(async (store) => {
        for (const numTokens of [1, 5, 15]) {
          const block = blockOf(numTokens, { numTokens });
          expect(await store.put([block])).toEqual(['stored']);
          const request = requestOf(block);
          expect(await store.get([request])).toMatchObject([{ isHit: true }]);
          expect(leadingSlots(request.into, SHAPE, numTokens)).toEqual(leadingSlots(block.payload, SHAPE, numTokens));
        }
      }));

    it('keeps a partial block whole when its layout cannot be sliced', () =>
      using(async (store) => {
        const shape = { ...SHAPE, dtype: 'U8', layers: 1, components: 1, heads: 1, isSliceable: false } as const;
        const block = blockOf(4, { numTokens: 3, shape });
        await store.put([block]);
        const request = requestOf(block);
        expect(await store.get([request])).toMatchObject([{ isHit: true }]);
        expect(Buffer.from(request.into).equals(Buffer.from(block.payload))).toBe(true);
      }));

    it('does not write twice what it has, within a batch and across batches', () =>
      using(async (store) => {
        const block = blockOf(0);
        expect(await store.put([block, blockOf(1), block])).toEqual(['stored', 'stored', 'present']);
        const { writtenBytes, blocks, bytes } = await store.usage();
        expect(await store.put([block])).toEqual(['present']);
        expect(await store.usage()).toMatchObject({ writtenBytes, blocks: 2, bytes });
        expect(blocks).toBe(2);
      }));

    it('answers for each key, and keeps groups apart', () =>
      using(async (store) => {
        const block = blockOf(0);
        await store.put([block]);
        const other = { ...block.key, group: 1 };
        expect(await store.has([block.key, other, { hash: hashOf(9), group: 0 }])).toEqual([true, false, false]);
        expect(await store.get([{ ...requestOf(block), key: other }])).toEqual([{ isHit: false, reason: 'absent' }]);
      }));

    it('refuses another model, dtype, layout and numerics, and sets the block aside', () =>
      using(async (store) => {
        for (const field of ['modelFingerprint', 'kvDType', 'layoutVersion', 'numericsId'] as const) {
          const block = blockOf(0);
          expect(await store.put([block])).toEqual(['stored']);
          const identity = { ...block.identity, [field]: 'another' };
          expect(await store.get([{ ...requestOf(block), identity }])).toEqual([
            { isHit: false, reason: 'other-identity' },
          ]);
          expect(await store.get([requestOf(block)])).toEqual([{ isHit: false, reason: 'absent' }]);
        }
        expect(await store.usage()).toMatchObject({
          setAside: 4,
          blocks: 0,
          bytes: 0,
          misses: { 'other-identity': 4 },
        });
      }));

    it('never serves other tokens than asked for, and leaves the block', () =>
      using(async (store) => {
        const block = blockOf(0);
        await store.put([block]);
        const tokenIds = block.tokenIds.slice();
        tokenIds[7] = 12345;
        const asked = [
          { ...requestOf(block), tokenIds },
          { ...requestOf(block), tokenIds: block.tokenIds.slice(0, 5) },
        ];
        expect(await store.get(asked)).toEqual([
          { isHit: false, reason: 'other-tokens' },
          { isHit: false, reason: 'other-tokens' },
        ]);
        expect(await store.get([requestOf(block)])).toMatchObject([{ isHit: true }]);
      }));

    it('removes, lists and counts', () =>
      using(async (store) => {
        const blocks = Array.from({ length: 12 }, (_, seed) => blockOf(seed));
        await store.put(blocks);
        const gone = blocks.slice(0, 3).map(({ key }) => key);
        expect(await store.delete([...gone, { hash: hashOf(99), group: 0 }])).toEqual([true, true, true, false]);
        const listed = await allOf(store.list());
        const left = blocks.slice(3).map(({ key }) => key.hash);
        expect(listed.map(({ key }) => key.hash).sort()).toEqual(left.sort());
        expect(await store.usage()).toMatchObject({
          blocks: 9,
          bytes: listed.reduce((sum, { bytes }) => sum + bytes, 0),
          isExact: true,
        });
        expect(await store.has(gone)).toEqual([false, false, false]);
      }));

    it('refuses what would not fit the bytes kept, and takes more after a deletion', async () => {
      const bytes = await sizeOf(harness, 1);
      await using(
        async (store) => {
          const blocks = [blockOf(1), blockOf(2), blockOf(3)];
          expect(await store.put(blocks)).toEqual(['stored', 'stored', 'over-budget']);
          await store.delete([hashKey(1)]);
          expect(await store.put([blockOf(3)])).toEqual(['stored']);
          expect(await store.usage()).toMatchObject({ blocks: 2, bytes: 2 * bytes, budgetBytes: 2 * bytes + 1 });
        },
        { keptBytes: 2 * bytes + 1 },
      );
    });

    it('refuses what would not fit the bytes written, also after a deletion', async () => {
      const bytes = await sizeOf(harness, 1);
      await using(
        async (store) => {
          expect(await store.put([blockOf(1), blockOf(2)])).toEqual(['stored', 'over-write-budget']);
          await store.delete([hashKey(1)]);
          expect(await store.put([blockOf(2)])).toEqual(['over-write-budget']);
          expect(await store.usage()).toMatchObject({ writtenBytes: bytes, writtenBytesThisPeriod: bytes });
        },
        { writtenBytes: bytes + 1 },
      );
    });

    it('ends when its caller gives up', () =>
      using(async (store) => {
        const signal = AbortSignal.abort();
        const block = blockOf(0);
        for (const work of [
          () => store.has([block.key], signal),
          () => store.get([requestOf(block)], signal),
          () => store.put([block], signal),
        ]) {
          await expect(work()).rejects.toMatchObject({ code: 'aborted' });
        }
        expect(await store.has([block.key])).toEqual([false]);
      }));

    it('refuses keys, shapes and sizes that are none', () =>
      using(async (store) => {
        const block = blockOf(0);
        const badKeys = ['../../etc/passwd', block.key.hash.toUpperCase(), `${block.key.hash}0`, ''].map((hash) => ({
          hash,
          group: 0,
        }));
        for (const key of [...badKeys, { ...block.key, group: -1 }, { ...block.key, group: 0.5 }]) {
          await expect(store.has([key])).rejects.toMatchObject({ code: 'invalid-argument' });
          await expect(store.put([{ ...block, key }])).rejects.toMatchObject({ code: 'invalid-argument' });
          await expect(store.delete([key])).rejects.toMatchObject({ code: 'invalid-argument' });
        }
        for (const bad of [{ payload: block.payload.subarray(1) }, { tokenIds: new Int32Array() }]) {
          await expect(store.put([{ ...block, ...bad }])).rejects.toMatchObject({ code: 'invalid-argument' });
        }
        await expect(store.get([{ ...requestOf(block), into: new Uint8Array(3) }])).rejects.toMatchObject({
          code: 'invalid-argument',
        });
      }));

    it('refuses everything once it is closed, which may be done twice', async () => {
      const store = await harness.open();
      await store.close();
      await store.close();
      await expect(store.has([hashKey(1)])).rejects.toMatchObject({ code: 'disposed' });
      await expect(store.put([blockOf(1)])).rejects.toMatchObject({ code: 'disposed' });
    });
  });
}

function hashKey(seed: number): { readonly hash: string; readonly group: number } {
  return { hash: hashOf(seed), group: 0 };
}

async function sizeOf(harness: BlockStoreHarness, seed: number): Promise<number> {
  const store = await harness.open();
  await store.put([blockOf(seed)]);
  const { bytes } = await store.usage();
  await store.close();
  return bytes;
}
