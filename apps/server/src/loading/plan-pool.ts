import { BLOCK_TOKENS, KvasirError, ModelCacheSpec } from '@kvasir/domain';
import type { KvDType, MemoryPlan, ModelDescriptor } from '@kvasir/domain';

/** How large the KV pool is, and how long a sequence in it may get. */
export interface PoolPlan {
  /** One entry a layer group. */
  readonly numBlocks: readonly number[];
  readonly maxBlocksPerSequence: number;
  readonly contextLength: number;
  readonly poolBytes: number;
}

export interface PoolWishes {
  readonly kvDType: KvDType;
  /** 0: what the model was made for. */
  readonly contextLength: number;
  /** 0: chosen here. */
  readonly poolTokens: number;
  /** 0: by `poolTokens`. */
  readonly poolBytes: number;
  /** Memory the process may still take. */
  readonly availableBytes: number;
  /** What the runner takes of a device's memory besides its pool; null where the pool lies in the host's. */
  readonly device: Omit<MemoryPlan, 'kvPoolBytes' | 'pinnedBytes'> | null;
  /** Share of the device's memory that weights, workspace and pool may take together. */
  readonly gpuMemoryUtilization: number;
}

/** Of the free memory an unconfigured pool takes at most this share: weights, workspace and the page cache need some. */
const SHARE_OF_FREE_MEMORY = 0.25;
/** An unconfigured pool holds this many full contexts, while they are short ones. */
const DEFAULT_CONTEXTS = 4;
const DEFAULT_TOKENS_LIMIT = 32_768;
/** A token's slot in the pool is a 32-bit number. */
const MOST_BLOCKS = Math.floor((2 ** 31 - 1) / BLOCK_TOKENS);

/** Most blocks of one sequence, as far as it is known before the pool is planned. */
export function mostBlocksPerSequence(model: ModelDescriptor, contextLength: number): number {
  return Math.ceil((contextLength > 0 ? contextLength : model.contextLength) / BLOCK_TOKENS);
}

/**
 * Chooses the pool's size. Without wishes it takes what weights and workspace leave of a device; in host memory it holds
 * one full context and several where they are short, within a share of the free memory. A context that does not fit is
 * shortened to the pool.
 * @throws KvasirError `out-of-memory` when a device has no room for weights, workspace and one block, or the context asked for; `context-length-exceeded` when more is asked for than the model was made for; `pool-too-small` when a size was asked for that holds no block, or less than the context asked for
 */
export function planPool(model: ModelDescriptor, wishes: PoolWishes): PoolPlan {
  const spec = ModelCacheSpec.fromDescriptor(model, wishes.kvDType);
  const bytesPerBlock = spec.groups.reduce((sum, { group }) => sum + spec.bytesPerBlock(group), 0);
  const context = wishes.contextLength > 0 ? wishes.contextLength : model.contextLength;
  if (context > model.contextLength) {
    throw new KvasirError(
      'context-length-exceeded',
      `context: expected at most the ${model.contextLength} tokens the model was made for, found ${context}`,
      { facts: { contextLength: context, limit: model.contextLength } },
    );
  }
  const numBlocks = chooseNumBlocks(context, bytesPerBlock, wishes);
  const poolTokens = numBlocks * BLOCK_TOKENS;
  if (wishes.contextLength > poolTokens) {
    throw new KvasirError(
      'pool-too-small',
      `pool: expected at least one context of ${context} tokens, found ${poolTokens}; raise poolTokens or lower contextLength`,
      { facts: { contextLength: context, poolTokens } },
    );
  }
  const contextLength = Math.min(context, poolTokens);
  return {
    numBlocks: spec.groups.map(() => numBlocks),
    maxBlocksPerSequence: spec.blocksForTokens(contextLength),
    contextLength,
    poolBytes: numBlocks * bytesPerBlock,
  };
}

function chooseNumBlocks(contextLength: number, bytesPerBlock: number, wishes: PoolWishes): number {
  if (wishes.poolTokens > 0) return Math.ceil(wishes.poolTokens / BLOCK_TOKENS);
  if (wishes.poolBytes > 0) {
    const numBlocks = Math.floor(wishes.poolBytes / bytesPerBlock);
    if (numBlocks > 0) return numBlocks;
    throw new KvasirError(
      'pool-too-small',
      `poolBytes: expected at least one block of ${bytesPerBlock} bytes, found ${wishes.poolBytes}`,
    );
  }
  if (wishes.device !== null) return fillDevice(wishes.device, bytesPerBlock, wishes);
  const tokens = Math.max(contextLength, Math.min(DEFAULT_CONTEXTS * contextLength, DEFAULT_TOKENS_LIMIT));
  const affordable = Math.floor((wishes.availableBytes * SHARE_OF_FREE_MEMORY) / bytesPerBlock);
  return Math.max(1, Math.min(Math.ceil(tokens / BLOCK_TOKENS), affordable));
}

function fillDevice(device: NonNullable<PoolWishes['device']>, bytesPerBlock: number, wishes: PoolWishes): number {
  const { totalBytes, freeBytes, weightsBytes, workspaceBytes } = device;
  const availableBytes = Math.min(Math.floor(totalBytes * wishes.gpuMemoryUtilization), freeBytes);
  const numBlocks = Math.floor((availableBytes - weightsBytes - workspaceBytes) / bytesPerBlock);
  const fewestBlocks = Math.max(1, Math.ceil(wishes.contextLength / BLOCK_TOKENS));
  if (numBlocks >= fewestBlocks) return Math.min(numBlocks, MOST_BLOCKS);
  const kvPoolBytes = fewestBlocks * bytesPerBlock;
  const requiredBytes = weightsBytes + workspaceBytes + kvPoolBytes;
  throw new KvasirError(
    'out-of-memory',
    `device memory: expected at most ${availableBytes} bytes (${wishes.gpuMemoryUtilization} of ${totalBytes}, ${freeBytes} free), found ${requiredBytes} required: weights ${weightsBytes}, workspace ${workspaceBytes}, ${fewestBlocks} blocks of KV pool ${kvPoolBytes}; raise gpuMemoryUtilization, lower contextLength or maxBatchTokens, or use a smaller model`,
    { facts: { requiredBytes, availableBytes, totalBytes, freeBytes, weightsBytes, workspaceBytes, kvPoolBytes } },
  );
}
