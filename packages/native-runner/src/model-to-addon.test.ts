import { TENSOR_DTYPES, TENSOR_ROLES } from '@kvasir/domain';
import type { ModelDescriptor } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { numGroups, toAddonModel, toAddonOptions } from './model-to-addon.ts';
import { KV_DTYPE, KV_ROLE } from './waist-constants.ts';

const tensor = { name: 't', layer: null, shape: [3, 4], file: 0, offset: 64, byteLength: 48 };
const model: ModelDescriptor = {
  architecture: 'llama',
  name: 'two layers',
  vocabularySize: 10,
  hiddenSize: 4,
  contextLength: 512,
  normEpsilon: 1e-6,
  embeddingScale: 2,
  logitScale: 0.5,
  tiedEmbeddings: true,
  layers: [
    {
      group: 0,
      numHeads: 4,
      numKvHeads: 2,
      headDim: 8,
      attention: { kind: 'full' },
      rope: 0,
      softmaxScale: 0.25,
      feedForward: { kind: 'dense', size: 16, activation: 'silu' },
    },
    {
      group: 1,
      numHeads: 4,
      numKvHeads: 2,
      headDim: 8,
      attention: { kind: 'sliding-window', windowTokens: 128 },
      rope: null,
      softmaxScale: 0.25,
      logitSoftcap: 50,
      feedForward: { kind: 'routed', size: 16, activation: 'swiglu-oai', numExperts: 8, numExpertsUsed: 2 },
    },
  ],
  ropes: [{ style: 'interleaved', rotaryDim: 4, inverseFrequencies: Float64Array.of(1, 0.1), attentionFactor: 1 }],
  tensors: [{ ...tensor, role: 'token-embedding', dtype: 'q8_0' }],
  files: ['/models/a.gguf'],
};

describe('toAddonModel', () => {
  it('turns absence into the numbers of the waist', () => {
    expect(toAddonModel(model)).toEqual({
      hidden: 4,
      vocab: 10,
      contextLength: 512,
      nGroups: 2,
      normEpsilon: 1e-6,
      embeddingScale: 2,
      logitScale: 0.5,
      finalLogitSoftcap: 0,
      layers: [
        {
          group: 0,
          nHeads: 4,
          nKvHeads: 2,
          headDim: 8,
          windowTokens: 0,
          rope: 0,
          softmaxScale: 0.25,
          logitSoftcap: 0,
          activation: 0,
          ffnDim: 16,
          nExperts: 0,
          nExpertsUsed: 0,
        },
        {
          group: 1,
          nHeads: 4,
          nKvHeads: 2,
          headDim: 8,
          windowTokens: 128,
          rope: -1,
          softmaxScale: 0.25,
          logitSoftcap: 50,
          activation: 2,
          ffnDim: 16,
          nExperts: 8,
          nExpertsUsed: 2,
        },
      ],
      ropes: [{ style: 1, rotaryDim: 4, inverseFrequencies: Float64Array.of(1, 0.1), attentionFactor: 1 }],
      tensors: [{ role: 0, layer: -1, dtype: 3, file: 0, shape: Float64Array.of(3, 4), offset: 64, bytes: 48 }],
      files: ['/models/a.gguf'],
    });
  });

  it('maps every role and dtype of the domain onto the one of the same name', () => {
    const roles = toAddonModel({ ...model, tensors: TENSOR_ROLES.map((role) => ({ ...tensor, role, dtype: 'f32' })) });
    const dtypes = toAddonModel({
      ...model,
      tensors: TENSOR_DTYPES.map((dtype) => ({ ...tensor, role: 'output', dtype })),
    });
    const constant = (prefix: string, name: string): string => `${prefix}${name.toUpperCase().replaceAll('-', '_')}`;
    expect(roles.tensors.map(({ role }) => role)).toEqual(
      TENSOR_ROLES.map((role) => (KV_ROLE as Record<string, number>)[constant('KV_ROLE_', role)]),
    );
    expect(dtypes.tensors.map(({ dtype }) => dtype)).toEqual(
      TENSOR_DTYPES.map((dtype) => (KV_DTYPE as Record<string, number>)[constant('KV_', dtype)]),
    );
    expect(Object.keys(KV_ROLE)).toHaveLength(TENSOR_ROLES.length);
  });

  it('counts groups by their highest number', () => {
    expect(numGroups(model)).toBe(2);
    expect(numGroups({ ...model, layers: [] })).toBe(0);
  });
});

describe('toAddonOptions', () => {
  it('spells the modes in numbers', () => {
    const options = {
      numBlocks: [3, 5],
      kvDType: 'bf16',
      activations: 'float',
      maxBatchTokens: 64,
      maxBatchSequences: 8,
      maxBlocksPerSequence: 4,
      numThreads: 2,
      instructionPath: 'auto',
      poisonPool: true,
    } as const;
    expect(toAddonOptions(options, 16)).toEqual({
      blockTokens: 256,
      nBlocks: Uint32Array.of(3, 5),
      kvDtype: 2,
      activationMode: 1,
      maxBatchTokens: 64,
      maxBatchSequences: 8,
      maxBlocksPerSequence: 4,
      nSamplerSlots: 16,
      nThreads: 2,
      poisonPool: 1,
      instructionPath: 'auto',
    });
    expect(toAddonOptions({ ...options, activations: 'quantized' }, 16).activationMode).toBe(0);
    expect(toAddonOptions({ ...options, activations: 'fast' }, 16).activationMode).toBe(2);
  });
});
