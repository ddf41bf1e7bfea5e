import { FakeClock, FakeModelRunner, RecordingNarrator } from '@kvasir/adapter-fake';
import { describeGenerationEngine } from '@kvasir/port-contracts';
import { BatchEngine } from '../src/index.ts';

for (const numGroups of [1, 2]) {
  describeGenerationEngine(`BatchEngine over a fake runner of ${numGroups} layer groups`, {
    open: async ({ numBlocks = 32, ...options }) => {
      const runner = new FakeModelRunner({
        blockTokens: 8,
        numBlocks: Array.from({ length: numGroups }, () => numBlocks),
      });
      const ports = { runner, clock: new FakeClock(), narrator: new RecordingNarrator() };
      const engine = new BatchEngine(ports, { contextLength: 256, ...options });
      return {
        engine,
        blockTokens: 8,
        close: async () => {
          await engine.dispose();
          await runner.dispose();
        },
      };
    },
  });
}
