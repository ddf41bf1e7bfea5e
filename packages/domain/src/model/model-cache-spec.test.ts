import { describe, expect, it } from 'vitest';
import { ModelCacheSpec } from './model-cache-spec.ts';
import type { LayerDescriptor, ModelDescriptor } from './model-descriptor.ts';

const withCode = (code: string) => expect.objectContaining({ code });

function layer(group: number, windowTokens: number | null): LayerDescriptor {
  return {
    group,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 64,
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
