import type { ModelDescriptor } from '@kvasir/domain';
import {
  describeAgentArchive,
  describeBlockStore,
  describeChatTemplate,
  describeModelLoader,
  describeModelRunner,
  describeTokenizer,
} from '@kvasir/port-contracts';
import {
  FakeAgentArchive,
  FakeBlockStore,
  FakeChatTemplate,
  FakeModelLoader,
  FakeModelRunner,
  FakeTokenizer,
} from '../src/index.ts';

const limits = { blockTokens: 16, maxBatchTokens: 32, maxBatchSequences: 4, maxBlocksPerSequence: 8 };

describeModelRunner('FakeModelRunner', {
  open: async () => new FakeModelRunner({ ...limits, numBlocks: [12] }),
});
describeModelRunner('FakeModelRunner with two layer groups and one step in flight', {
  open: async () => new FakeModelRunner({ ...limits, numBlocks: [12, 16], maxStepsInFlight: 1 }),
});
describeModelLoader('FakeModelLoader', {
  open: async () => new FakeModelLoader(16),
  describeModel: async () => FAKE_MODEL,
});
describeTokenizer('FakeTokenizer', { open: async () => new FakeTokenizer() });
describeChatTemplate('FakeChatTemplate', { open: async () => new FakeChatTemplate() });
describeBlockStore('FakeBlockStore', { open: async (budgets) => new FakeBlockStore(budgets) });
describeAgentArchive('FakeAgentArchive', {
  open: async () => {
    const blocks = new FakeBlockStore();
    return { agents: new FakeAgentArchive(blocks), blocks };
  },
  reopen: null,
});

const FAKE_MODEL: ModelDescriptor = {
  architecture: 'llama',
  name: 'fake',
  vocabularySize: 64,
  hiddenSize: 8,
  contextLength: 64,
  normEpsilon: 1e-5,
  embeddingScale: 1,
  logitScale: 1,
  tiedEmbeddings: true,
  layers: [],
  ropes: [],
  tensors: [
    {
      name: 'a',
      role: 'token-embedding',
      layer: null,
      dtype: 'f32',
      shape: [64, 8],
      file: 0,
      offset: 0,
      byteLength: 2048,
    },
  ],
  files: [],
};
