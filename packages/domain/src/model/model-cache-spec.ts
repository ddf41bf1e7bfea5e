import { KvasirError } from '../errors/kvasir-error.ts';
import { KV_DTYPE_BYTES, type KvDType } from './dtype.ts';
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

  constructor(groups: readonly CacheGroupSpec[], kvDType: KvDType, blockTokens: number = BLOCK_TOKENS) {
    if (!Number.isSafeInteger(blockTokens) || blockTokens < 1) {
      throw new KvasirError('invalid-argument', `block tokens: expected a positive integer, found ${blockTokens}`);
    }
    if (groups.length === 0 || groups.some((group, index) => group.group !== index || group.layers.length === 0)) {
      throw new KvasirError('invalid-argument', 'layer groups: expected groups 0, 1, … each with a layer');
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

  /** Bytes of one block of a group over all its layers: K and V, (numKvHeads, blockTokens, headDim) each. */
  bytesPerBlock(group = 0): number {
    const spec = this.groups[group];
    if (spec === undefined)
      throw new KvasirError('invalid-argument', `layer group: expected < ${this.groups.length}, found ${group}`);
    const elements = spec.layers.reduce(
      (sum, layer) => sum + 2 * layer.numKvHeads * layer.headDim * this.blockTokens,
      0,
    );
    return elements * KV_DTYPE_BYTES[this.kvDType];
  }

  /** Whole blocks that hold `tokens` tokens. */
  blocksForTokens(tokens: number): number {
    return Math.ceil(tokens / this.blockTokens);
  }
}
