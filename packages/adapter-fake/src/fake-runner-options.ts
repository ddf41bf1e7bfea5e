import { type Clock, KV_FORMATS, type KvDType, ModelCacheSpec, type RunnerInfo } from '@kvasir/domain';

export interface FakeRunnerOptions {
  readonly vocabularySize?: number;
  /** Small by default, so that a test reaches a block's end within a line. */
  readonly blockTokens?: number;
  /** Blocks per layer group; as many groups as elements. */
  readonly numBlocks?: readonly number[];
  readonly maxBatchTokens?: number;
  readonly maxBatchSequences?: number;
  readonly maxBlocksPerSequence?: number;
  readonly numSamplerSlots?: number;
  /** Named in `numericsId`; slots hold tokens and positions whatever it is. */
  readonly kvDType?: KvDType;
  readonly maxStepsInFlight?: number;
  /** Default: Infinity, so that a prompt token costs the same everywhere. */
  readonly attentionParityTokens?: number;
  /** Awaited before a step runs; default: it runs as soon as the ones before it have. */
  readonly latency?: (stepIndex: number) => Promise<void>;
  /** Measures `executeMs`; default: it is 0. */
  readonly clock?: Pick<Clock, 'now'>;
}

export function fakeRunnerInfo(options: FakeRunnerOptions): RunnerInfo {
  const numBlocks = options.numBlocks ?? [64];
  const maxBatchSequences = options.maxBatchSequences ?? 8;
  // One KV head of one f32: K holds the slot's token id, V its position.
  const groups = numBlocks.map((_, group) => ({
    group,
    windowTokens: null,
    layers: [{ layer: group, numKvHeads: 1, headDim: 1 }],
  }));
  return {
    backend: 'fake',
    device: 'memory',
    numericsId: options.kvDType === undefined ? 'fake-1' : `fake-1/kv-${KV_FORMATS[options.kvDType]}`,
    instructionPath: 'fake',
    vocabularySize: options.vocabularySize ?? 64,
    cacheSpec: new ModelCacheSpec(groups, 'f32', options.blockTokens ?? 4),
    numBlocks,
    maxBatchTokens: options.maxBatchTokens ?? 64,
    maxBatchSequences,
    maxBlocksPerSequence: options.maxBlocksPerSequence ?? 64,
    numSamplerSlots: options.numSamplerSlots ?? maxBatchSequences,
    maxStepsInFlight: options.maxStepsInFlight ?? 2,
    attentionParityTokens: options.attentionParityTokens ?? Number.POSITIVE_INFINITY,
  };
}
