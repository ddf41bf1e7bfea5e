// What it costs to give a prompt that is all in the pool its block table: the lookup, and the row of the next step.
import { AgentBlocks, BlockPool, Sequence } from '../../packages/domain/dist/index.js';
import { AgentCacheStore } from '../../packages/engine/dist/cache/agent-cache-store.js';
import { resolveSettings } from '../../packages/engine/dist/engine-options.js';
import { Scheduler } from '../../packages/engine/dist/scheduler.js';
import { StepBatchBuilder } from '../../packages/engine/dist/step-batch-builder.js';
import { clock, GREEDY, identityOf, sha256, silent, tokensOf } from '../support/engines.mjs';

/**
 * Admits a prompt of `numBlocks` whole blocks `repetitions` times, all of it in the pool. The engine's own parts, with no
 * device behind them: what is timed is what the engine's thread does.
 * @returns microseconds of each: lookup (AgentCacheStore.prepare) and row (StepBatchBuilder.build)
 */
export function measureHot(runner, numBlocks, repetitions) {
  const { info } = runner;
  const { blockTokens } = info.cacheSpec;
  const pools = [new BlockPool(numBlocks + 8)];
  const ports = { runner, clock, narrator: silent };
  const settings = resolveSettings(
    { contextLength: (numBlocks + 8) * blockTokens },
    {
      ...info,
      maxBlocksPerSequence: numBlocks + 8,
    },
  );
  const cache = new AgentCacheStore(ports, pools, { identity: identityOf(runner), sha256 }, () => 'default', {
    onReuse: () => {},
    onReady: () => {},
    onDeviceFailure: (error) => {
      throw error;
    },
  });
  const scheduler = new Scheduler(settings, cache, info.numSamplerSlots, { onAdmit: () => {}, onPreempt: () => {} });
  const builder = new StepBatchBuilder(settings, info);
  const tokens = tokensOf(numBlocks * blockTokens, 1, info.vocabularySize);
  const goal = { kind: 'generate', sampling: GREEDY, maxOutputs: 1, stopIds: new Int32Array(0), reportHashes: false };
  let lastId = 0;
  const sequenceOf = () => {
    const blocks = new AgentBlocks(++lastId, pools, blockTokens);
    blocks.append(tokens);
    return new Sequence(lastId, blocks, goal, settings.maxBatchTokens);
  };

  const first = sequenceOf();
  cache.prepare(first, 0);
  first.blocks.reserve(tokens.length);
  first.blocks.recordKv(tokens.length);
  cache.leave(first);
  first.blocks.releaseBlocks();

  const lookup = [];
  const row = [];
  for (let repetition = 0; repetition < repetitions; repetition++) {
    const sequence = sequenceOf();
    const start = performance.now();
    const state = cache.prepare(sequence, 0);
    lookup.push((performance.now() - start) * 1000);
    if (state !== 'ready' || sequence.blocks.kvLength !== tokens.length) throw new Error(`expected all hot, ${state}`);
    scheduler.add(sequence);
    const plan = scheduler.plan();
    const building = performance.now();
    const batch = builder.build(plan);
    row.push((performance.now() - building) * 1000);
    if (batch.groups[0].blockTables.length !== numBlocks) throw new Error('expected a row of the whole table');
    scheduler.end(sequence);
  }
  return { lookup, row, both: lookup.map((microseconds, index) => microseconds + row[index]) };
}
