import { describe, expect, it } from 'vitest';
import { KV_DTYPES } from './dtype.ts';
import { ModelCacheSpec } from './model-cache-spec.ts';
import type { LayerDescriptor, ModelDescriptor } from './model-descriptor.ts';

const withCode = (code: string) => expect.objectContaining({ code });

function layer(group: number, windowTokens: number | null, headDim = 64): LayerDescriptor {
  return {
    group,
    numHeads: 4,
    numKvHeads: 2,
    headDim,
    attention: windowTokens === null ? { kind: 'full' } : { kind: 'sliding-window', windowTokens },
    rope: null,
    softmaxScale: 0.125,
    feedForward: { kind: 'dense', size: 256, activation: 'silu' },
  };
}

function modelOf(layers: readonly LayerDescriptor[]): ModelDescriptor {
  return {
    architecture: 'llama',
    name: 'test',
    vocabularySize: 8,
    hiddenSize: 256,
    contextLength: 512,
    normEpsilon: 1e-5,
    embeddingScale: 1,
    logitScale: 1,
    tiedEmbeddings: true,
    layers,
    ropes: [],
    tensors: [],
    files: [],
  };
}

describe('ModelCacheSpec', () => {
  it('computes bytes per block from its layers alone', () => {
    const spec = ModelCacheSpec.fromDescriptor(modelOf([layer(0, null), layer(0, null)]), 'f16');
    expect(spec.bytesPerBlock()).toBe(2 * 2 * 2 * 64 * 256 * 2);
    expect([0, 1, 256, 257].map((tokens) => spec.blocksForTokens(tokens))).toEqual([0, 1, 1, 2]);
  });

  it('keeps groups apart, in order', () => {
    const spec = ModelCacheSpec.fromDescriptor(modelOf([layer(1, 16), layer(0, null), layer(1, 16)]), 'f32');
    expect(spec.groups.map(({ group, windowTokens, layers }) => [group, windowTokens, layers.length])).toEqual([
      [0, null, 1],
      [1, 16, 2],
    ]);
    expect(spec.bytesPerBlock(1)).toBe(2 * spec.bytesPerBlock(0));
  });

  it('counts codes, scales and minima of quantized heads', () => {
    const bytes = (kvDType: 'q8' | 'q4', headDim: number) =>
      ModelCacheSpec.fromDescriptor(modelOf([layer(0, null, headDim)]), kvDType).bytesPerBlock() / (2 * 2 * 256);
    expect([8, 24, 64, 128].map((headDim) => bytes('q8', headDim))).toEqual([10, 26, 66, 132]);
    expect([8, 24, 64, 128].map((headDim) => bytes('q4', headDim))).toEqual([8, 16, 36, 72]);
  });

  it('refuses heads that a quantized dtype cannot divide into groups, and no others', () => {
    const load = (kvDType: 'f16' | 'q8' | 'q4', headDim: number) => () =>
      ModelCacheSpec.fromDescriptor(modelOf([layer(0, null), layer(0, null, headDim)]), kvDType);
    for (const headDim of [4, 20, 65, 80, 96, 100, 160]) {
      expect(load('q8', headDim)).toThrow(withCode('unsupported-model'));
      expect(load('q4', headDim)).toThrow(/layer 1 has \d+; choose f16 or bf16/);
      expect(load('f16', headDim)).not.toThrow();
    }
    for (const headDim of [8, 56, 64, 128, 256]) expect(load('q4', headDim)).not.toThrow();
  });

  it('gives each format a payload shape of its own bytes', () => {
    for (const kvDType of KV_DTYPES) {
      const spec = ModelCacheSpec.fromDescriptor(modelOf([layer(0, null, 128), layer(0, null, 128)]), kvDType);
      const { dtype, layers, components, heads, blockTokens, dim, isSliceable } = spec.payloadShape();
      const size = { F32: 4, F16: 2, BF16: 2, U8: 1 }[dtype];
      expect(layers * components * heads * blockTokens * dim * size).toBe(spec.bytesPerBlock());
      expect([layers, components, heads, isSliceable]).toEqual([2, 2, 2, true]);
    }
    const mixed = ModelCacheSpec.fromDescriptor(modelOf([layer(0, null), layer(0, null, 128)]), 'f16');
    expect(mixed.payloadShape()).toMatchObject({ dtype: 'U8', layers: 1, heads: 1, isSliceable: false });
    expect(mixed.payloadShape().dim * 256).toBe(mixed.bytesPerBlock());
  });

  it('refuses groups that are none', () => {
    expect(() => ModelCacheSpec.fromDescriptor(modelOf([layer(0, 16), layer(0, 8)]), 'f16')).toThrow(
      withCode('invalid-argument'),
    );
    expect(() => new ModelCacheSpec([], 'f16')).toThrow(withCode('invalid-argument'));
    expect(() => ModelCacheSpec.fromDescriptor(modelOf([layer(1, null)]), 'f16')).toThrow(withCode('invalid-argument'));
    const spec = ModelCacheSpec.fromDescriptor(modelOf([layer(0, null)]), 'f16');
    expect(() => spec.bytesPerBlock(1)).toThrow(withCode('invalid-argument'));
    expect(() => new ModelCacheSpec(spec.groups, 'f16', 0)).toThrow(withCode('invalid-argument'));
  });
});
