import type { SamplingParams } from '@kvasir/domain';
import { fakeLogits } from './fake-distribution.ts';
import { foldToken } from './fake-kv-pool.ts';
import { FakeSampler } from './fake-sampler.ts';

/**
 * What a FakeModelRunner gives a sequence that is alone, computed from the token ids with no blocks, batches or steps: the
 * answer every schedule must come to. A stop token ends the outputs and is not among them.
 */
export function expectedOutputs(
  promptIds: Int32Array,
  options: {
    readonly sampling: SamplingParams;
    readonly maxTokens: number;
    readonly stopIds?: readonly number[];
    readonly vocabularySize?: number;
    readonly numGroups?: number;
  },
): number[] {
  const { sampling, maxTokens, stopIds = [], vocabularySize = 64, numGroups = 1 } = options;
  const sampler = new FakeSampler({
    slot: 0,
    params: sampling,
    history: promptIds,
    numPromptTokens: promptIds.length,
    stopIds: Int32Array.from(stopIds),
    maxOutputs: maxTokens,
  });
  let contextHash = 0;
  let position = 0;
  const extend = (tokenId: number): void => {
    for (let group = 0; group < numGroups; group++) contextHash = foldToken(contextHash, tokenId, position);
    position++;
  };
  for (const tokenId of promptIds) extend(tokenId);
  const outputs: number[] = [];
  while (outputs.length < maxTokens) {
    const tokenId = sampler.sample(fakeLogits(contextHash, vocabularySize), outputs.length);
    if (stopIds.includes(tokenId)) break;
    outputs.push(tokenId);
    extend(tokenId);
  }
  return outputs;
}
