import { KvasirError } from '../errors/kvasir-error.ts';
import { KV_GROUP_VALUES, kvDTypeTakes, kvRecordBytes, type KvDType } from './dtype.ts';
import type { PayloadShape } from '../ports/block-store.port.ts';
import type { ModelDescriptor } from './model-descriptor.ts';

/** Tokens a block holds; the same for every model and backend (ADR-0002). */
export const BLOCK_TOKENS = 256;

/** KV geometry of one layer group: the layers that share block ids. */
export interface CacheGroupSpec {
  readonly group: number;
  /** null: full attention. Otherwise only the last `windowTokens` tokens are ever attended to. */
  readonly windowTokens: number | null;
  readonly layers: readonly CacheLayerSpec[];
}

export interface CacheLayerSpec {
  readonly layer: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

/** The only place that computes KV bytes. */
export class ModelCacheSpec {
  readonly kvDType: KvDType;
  readonly blockTokens: number;
  readonly groups: readonly CacheGroupSpec[];

  /**
   * @throws KvasirError `invalid-argument`; `unsupported-model` when the dtype's groups do not divide a layer's heads
   */
  constructor(groups: readonly CacheGroupSpec[], kvDType: KvDType, blockTokens: number = BLOCK_TOKENS) {
    if (!Number.isSafeInteger(blockTokens) || blockTokens < 1) {
      throw new KvasirError('invalid-argument', `block tokens: expected a positive integer, found ${blockTokens}`);
    }
    if (groups.length === 0 || groups.some((group, index) => group.group !== index || group.layers.length === 0)) {
      throw new KvasirError('invalid-argument', 'layer groups: expected groups 0, 1, … each with a layer');
    }
    for (const { layer, headDim } of groups.flatMap(({ layers }) => layers)) {
      if (!kvDTypeTakes(kvDType, headDim)) throw indivisible(kvDType, layer, headDim);
    }
    this.groups = groups;
    this.kvDType = kvDType;
    this.blockTokens = blockTokens;
  }

  static fromDescriptor(model: ModelDescriptor, kvDType: KvDType): ModelCacheSpec {
    const groups = new Map<number, { windowTokens: number | null; layers: CacheLayerSpec[] }>();
    for (const [layer, description] of model.layers.entries()) {
      const windowTokens = description.attention.kind === 'sliding-window' ? description.attention.windowTokens : null;
      const group = groups.get(description.group) ?? { windowTokens, layers: [] };
      if (group.windowTokens !== windowTokens) {
        throw new KvasirError(
          'invalid-argument',
          `layer group ${description.group}: expected one attention window, found ${group.windowTokens} and ${windowTokens}`,
        );
      }
      group.layers.push({ layer, numKvHeads: description.numKvHeads, headDim: description.headDim });
      groups.set(description.group, group);
    }
    const ordered = [...groups.entries()].sort(([a], [b]) => a - b);
    return new ModelCacheSpec(
      ordered.map(([group, { windowTokens, layers }]) => ({ group, windowTokens, layers })),
      kvDType,
    );
  }

  /** Bytes of one block of a group over all its layers: K and V, (numKvHeads, blockTokens) records each. */
  bytesPerBlock(group = 0): number {
    const spec = this.groups[group];
    if (spec === undefined)
      throw new KvasirError('invalid-argument', `layer group: expected < ${this.groups.length}, found ${group}`);
    const bytesPerToken = spec.layers.reduce(
      (sum, layer) => sum + 2 * layer.numKvHeads * kvRecordBytes(this.kvDType, layer.headDim),
      0,
    );
    return bytesPerToken * this.blockTokens;
  }

  /**
   * How a block's canonical payload lies: (layers, K and V, heads, tokens, dim). A quantized record is `dim` bytes: codes,
   * scales, minima of one head of one token.
   */
  payloadShape(group = 0): PayloadShape {
    const bytes = this.bytesPerBlock(group);
    const { blockTokens, kvDType } = this;
    const layers = this.groups[group]?.layers ?? [];
    const [first] = layers;
    const isUniform = layers.every(
      ({ numKvHeads, headDim }) => numKvHeads === first?.numKvHeads && headDim === first.headDim,
    );
    if (first === undefined || !isUniform) {
      const dim = bytes / blockTokens;
      return { dtype: 'U8', layers: 1, components: 1, heads: 1, blockTokens, dim, isSliceable: false };
    }
    const dtype = PAYLOAD_DTYPES[kvDType];
    const dim = dtype === 'U8' ? kvRecordBytes(kvDType, first.headDim) : first.headDim;
    return {
      dtype,
      layers: layers.length,
      components: 2,
      heads: first.numKvHeads,
      blockTokens,
      dim,
      isSliceable: true,
    };
  }

  /** Whole blocks that hold `tokens` tokens. */
  blocksForTokens(tokens: number): number {
    return Math.ceil(tokens / this.blockTokens);
  }
}

const PAYLOAD_DTYPES: Readonly<Record<KvDType, PayloadShape['dtype']>> = {
  f32: 'F32',
  f16: 'F16',
  bf16: 'BF16',
  q8: 'U8',
  q4: 'U8',
};

function indivisible(kvDType: KvDType, layer: number, headDim: number): KvasirError {
  return new KvasirError(
    'unsupported-model',
    `KV dtype ${kvDType}: expected heads of a multiple of ${KV_GROUP_VALUES} values, or of 8 below that; layer ${layer} has ${headDim}; choose f16 or bf16`,
    { facts: { kvDType, layer, headDim } },
  );
}
