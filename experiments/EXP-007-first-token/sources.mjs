// Time to first token of the same prompts, found nowhere, in the pool, in host memory, on disk, and after a restart.
import path from 'node:path';
import { BUNDLED, loadRunner, makeEngine } from '../support/engines.mjs';
import { dropPageCache, readPlainFile, writePlainFile } from '../support/page-cache.mjs';
import { AgentEngine, conversation, firstToken } from './conversations.mjs';

/**
 * Every source once per round and length, in turns.
 * @returns samples by source and length in milliseconds, the plain read of the longest conversation's KV, openings,
 *   and a decoding step at each length
 */
export async function measureSources(lengths, rounds) {
  const prompts = lengths.map((numTokens, index) => conversation(numTokens, index + 1));
  // The last one only makes room: it fills the pool.
  const withStranger = [...prompts, conversation(4096, 99)];
  const stranger = prompts.length;
  const plainRunner = await loadRunner(BUNDLED, 17);
  const fresh = makeEngine(plainRunner.runner, plainRunner.contextLength, null);
  fresh.start();
  const hot = await AgentEngine.open(prompts, { numBlocks: 32 });
  const warm = await AgentEngine.open(withStranger, { cache: { warmBytes: 1 << 28 } });
  const disk = await AgentEngine.open(withStranger, { hasCold: true });
  const restarted = await AgentEngine.open(prompts, { hasCold: true });
  const plain = path.join(disk.directory, 'plain');
  const kvBytes = lengths.map((numTokens) => (numTokens / 256) * disk.blockBytes);
  writePlainFile(plain, kvBytes.at(-1), Buffer.from(Array.from({ length: 1 << 16 }, () => Math.random() * 256)));

  const samples = Object.fromEntries(
    ['fresh', 'hot', 'warm', 'disk', 'restart'].map((name) => [name, lengths.map(() => [])]),
  );
  const plainReadMs = [];
  const openMs = [];
  const decodeMs = lengths.map(() => []);
  const expect = ({ reused, fromTier }, tier, numTokens) => {
    if (reused !== (tier === null ? 0 : numTokens) || (tier !== null && fromTier[tier] !== numTokens)) {
      throw new Error(`expected ${numTokens} tokens from ${tier}, found ${reused}, ${JSON.stringify(fromTier)}`);
    }
  };
  for (let round = -1; round < rounds; round++) {
    dropPageCache();
    const readMs = readPlainFile(plain);
    if (round >= 0) plainReadMs.push(readMs);
    for (const [index, numTokens] of lengths.entries()) {
      const note = (name, tier, answer) => {
        expect(answer, tier, numTokens);
        if (round >= 0) samples[name][index].push(answer.ms);
      };
      note('fresh', null, await firstToken(fresh, prompts[index]));
      const fromHot = await hot.ask(index, 17);
      note('hot', 'hot', fromHot);
      if (round >= 0) decodeMs[index].push(fromHot.decodeMs);
      await warm.ask(stranger);
      note('warm', 'warm', await warm.ask(index));
      await disk.ask(stranger);
      dropPageCache();
      note('disk', 'cold', await disk.ask(index));
      const opened = await restarted.restart();
      if (round >= 0) openMs.push(opened);
      dropPageCache();
      note('restart', 'cold', await restarted.ask(index));
    }
  }
  for (const engine of [hot, warm, disk, restarted]) await engine.close();
  await fresh.dispose();
  await plainRunner.runner.dispose();
  return { samples, plainReadMs, openMs, decodeMs, kvBytes };
}
