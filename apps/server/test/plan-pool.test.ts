import type { ModelDescriptor } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { planPool, type PoolWishes } from '../src/loading/plan-pool.ts';

/** 2 layers of 2 KV heads of 64: 1 KiB a token in f16, 256 KiB a block. */
function model(contextLength: number): ModelDescriptor {
  const layer = {
    group: 0,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 64,
    attention: { kind: 'full' },
    rope: null,
    softmaxScale: 0.125,
    feedForward: { kind: 'dense', size: 256, activation: 'silu' },
  } as const;
  return {
    architecture: 'llama',
    name: 'test',
    vocabularySize: 300,
    hiddenSize: 256,
    contextLength,
    normEpsilon: 1e-5,
    embeddingScale: 1,
    logitScale: 1,
    tiedEmbeddings: true,
    layers: [layer, layer],
    ropes: [],
    tensors: [],
    files: [],
  };
}

const wishes: PoolWishes = {
  kvDType: 'f16',
  contextLength: 0,
  poolTokens: 0,
  poolBytes: 0,
  availableBytes: 8 * 2 ** 30,
  device: null,
  gpuMemoryUtilization: 0.9,
};

describe('planPool', () => {
  it('holds four short contexts', () => {
    expect(planPool(model(4096), wishes)).toEqual({
      numBlocks: [64],
      maxBlocksPerSequence: 16,
      contextLength: 4096,
      poolBytes: 64 * 256 * 1024,
    });
  });

  it('holds one long context', () => {
    expect(planPool(model(131_072), wishes)).toMatchObject({ numBlocks: [512], contextLength: 131_072 });
  });

  it('takes a quarter of the free memory at most and shortens the context to it', () => {
    const plan = planPool(model(131_072), { ...wishes, availableBytes: 64 * 2 ** 20 });
    expect(plan).toMatchObject({ numBlocks: [64], contextLength: 16_384, maxBlocksPerSequence: 64 });
  });

  it('rounds tokens up and bytes down to whole blocks', () => {
    expect(planPool(model(4096), { ...wishes, poolTokens: 257 })).toMatchObject({ numBlocks: [2], contextLength: 512 });
    expect(planPool(model(4096), { ...wishes, poolBytes: 2 ** 20 - 1 }).numBlocks).toEqual([3]);
  });

  describe('on a device with memory of its own', () => {
    const MIB = 2 ** 20;
    const device = { totalBytes: 1000 * MIB, freeBytes: 990 * MIB, weightsBytes: 600 * MIB, workspaceBytes: 100 * MIB };

    it('takes what weights and workspace leave of the share of it', () => {
      expect(planPool(model(4096), { ...wishes, device })).toMatchObject({ numBlocks: [800], poolBytes: 200 * MIB });
      expect(planPool(model(4096), { ...wishes, device, gpuMemoryUtilization: 0.75 })).toMatchObject({
        numBlocks: [200],
      });
    });

    it('takes no more than is free', () => {
      const plan = planPool(model(4096), { ...wishes, device: { ...device, freeBytes: 710 * MIB } });
      expect(plan).toMatchObject({ numBlocks: [40], poolBytes: 10 * MIB });
    });

    it('shortens the context to the pool, unless one was asked for', () => {
      const tight = { ...device, freeBytes: 701 * MIB };
      expect(planPool(model(4096), { ...wishes, device: tight })).toMatchObject({
        numBlocks: [4],
        contextLength: 1024,
      });
      expect(() => planPool(model(4096), { ...wishes, device: tight, contextLength: 2048 })).toThrow(
        expect.objectContaining({ code: 'out-of-memory' }),
      );
    });

    it('says by purpose what is required and what is available where it does not fit', () => {
      const full = { ...device, freeBytes: 650 * MIB };
      expect(() => planPool(model(4096), { ...wishes, device: full })).toThrow(
        expect.objectContaining({
          code: 'out-of-memory',
          message: expect.stringMatching(
            /at most 681574400 bytes .* found 734265344 required: weights 629145600, workspace 104857600, 1 blocks of KV pool 262144/,
          ),
          facts: expect.objectContaining({ requiredBytes: 734_265_344, availableBytes: 681_574_400 }),
        }),
      );
    });

    it('is not asked where the size was given', () => {
      expect(planPool(model(4096), { ...wishes, device, poolTokens: 512 })).toMatchObject({ numBlocks: [2] });
      expect(planPool(model(4096), { ...wishes, device, poolBytes: MIB })).toMatchObject({ numBlocks: [4] });
    });

    it('numbers every token of the pool in 31 bits', () => {
      const vast = { ...device, totalBytes: 2 ** 45, freeBytes: 2 ** 45 };
      expect(planPool(model(4096), { ...wishes, device: vast }).numBlocks).toEqual([2 ** 23 - 1]);
    });
  });

  it('refuses a pool without a block or smaller than the context asked for', () => {
    expect(() => planPool(model(4096), { ...wishes, poolBytes: 1000 })).toThrow(/at least one block of 262144 bytes/);
    expect(() => planPool(model(4096), { ...wishes, poolTokens: 512, contextLength: 1024 })).toThrow(
      expect.objectContaining({ code: 'pool-too-small' }),
    );
  });
});
