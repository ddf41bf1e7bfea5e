import { describeModelRunner } from '@kvasir/port-contracts';
import { FakeModelRunner } from '../src/index.ts';

const limits = { blockTokens: 16, maxBatchTokens: 32, maxBatchSequences: 4, maxBlocksPerSequence: 8 };

describeModelRunner('FakeModelRunner', {
  open: async () => new FakeModelRunner({ ...limits, numBlocks: [12] }),
});
describeModelRunner('FakeModelRunner with two layer groups and one step in flight', {
  open: async () => new FakeModelRunner({ ...limits, numBlocks: [12, 16], maxStepsInFlight: 1 }),
});
