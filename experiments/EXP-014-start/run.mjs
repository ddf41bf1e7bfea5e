// EXP-014: how soon a server is ready whose directory holds 10,000 agents. See README.md.
// Usage, as root on Linux: node experiments/EXP-014-start/run.mjs [--agents 10000] [--rounds 7] [--record]
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { openColdTier } from '../../packages/block-store-fs/dist/index.js';
import { dropPageCache } from '../support/page-cache.mjs';
import { circumstances, record, summary, table } from '../support/report.mjs';
import { Server } from './server.mjs';

const { values } = parseArgs({
  options: {
    agents: { type: 'string', default: '10000' },
    rounds: { type: 'string', default: '7' },
    record: { type: 'boolean', default: false },
  },
});
const numAgents = Number(values.agents);
const rounds = Number(values.rounds);
const TOKENS = 4096;
const BLOCK_TOKENS = 256;
/** Killed with so many agents used since the index was last settled. */
const USED_BEFORE_A_KILL = 50;
const result = { ...circumstances('EXP-014, start'), agents: numAgents, tokensEach: TOKENS };

const directory = await mkdtemp(path.join(process.env.KVASIR_MEASURE ?? os.tmpdir(), 'kvasir-exp-014-'));
const question = `${'The sea was calm that morning and the ship lay still. '.repeat(60)}What happened next?`;
try {
  // One agent of the server's own, so that the others get the identity it gives.
  const first = await Server.start(directory);
  await first.ask('real', question);
  await first.stop();
  const empty = await measure('stop');
  await fill();
  result.indexMegabytes = Number(((await stat(path.join(directory, 'agents.index'))).size / 1e6).toFixed(1));
  const full = await measure('stop');
  const killed = await measure('kill');
  result.nodeAlone = nodeAlone();
  result.oneAgent = empty;
  result.allAgents = full;
  result.afterKill = killed;
  const cells = ({ median, lowest, highest }) => `${median} (${lowest}–${highest})`;
  const row = (name, { readyMs, listMs, firstTokenMs, cachedTokens, promptTokens }) => [
    name,
    cells(readyMs),
    cells(listMs),
    cells(firstTokenMs),
    `${cachedTokens} of ${promptTokens}`,
  ];
  console.log(
    table(
      ['directory', 'ready, ms', 'first page of agents, ms', 'first token of an agent, ms', 'tokens it found'],
      [
        ['Node alone', cells(result.nodeAlone), '', '', ''],
        row('one agent', empty),
        row(`${numAgents.toLocaleString('en')} agents`, full),
        row('the same, after kill -9', killed),
      ],
    ),
  );
  if (values.record) record(import.meta.dirname, 'result.json', result);
} finally {
  await rm(directory, { recursive: true });
}

async function measure(end) {
  const samples = { readyMs: [], listMs: [], firstTokenMs: [] };
  let usage = null;
  for (let round = 0; round < rounds; round++) {
    if (end === 'kill') {
      const server = await Server.start(directory);
      for (let agent = 0; agent < USED_BEFORE_A_KILL; agent++) await server.pin(`agent-${agent}`, round % 2);
      await server.kill();
    }
    dropPageCache();
    const server = await Server.start(directory);
    samples.readyMs.push(server.readyMs);
    samples.listMs.push(await server.list());
    const answer = await server.ask('real', question);
    samples.firstTokenMs.push(answer.ms);
    usage = answer.usage;
    if (!(usage.cachedTokens > 0)) throw new Error('expected the agent to find its blocks, it found none');
    await server.stop();
  }
  return {
    ...Object.fromEntries(Object.entries(samples).map(([name, list]) => [name, summary(list, 0)])),
    ...usage,
  };
}

/** Node with an empty program, out of a page cache as empty: the part of a start that is not ours. */
function nodeAlone() {
  const samples = Array.from({ length: rounds }, () => {
    dropPageCache();
    const start = performance.now();
    const { status } = spawnSync(process.execPath, ['--eval', '0']);
    if (status !== 0) throw new Error(`node --eval 0: expected exit code 0, found ${status}`);
    return performance.now() - start;
  });
  return summary(samples, 0);
}

/** Agents as a server leaves them behind, without the blocks their manifests name. */
async function fill() {
  const tier = await openColdTier({ directory });
  let real = null;
  for await (const page of tier.agents.list()) real ??= page[0];
  const { identity, tenant } = await tier.agents.read(real.agentId);
  for (let agent = 0; agent < numAgents - 1; agent++) {
    const tokenIds = Int32Array.from({ length: TOKENS }, (_, index) => (index * 31 + agent) % 8000);
    const blocks = Array.from({ length: TOKENS / BLOCK_TOKENS }, (_, index) => ({
      startToken: index * BLOCK_TOKENS,
      numTokens: BLOCK_TOKENS,
      hash: createHash('sha256').update(`${agent} ${index}`).digest('hex'),
    }));
    const turns = [{ endTokens: TOKENS, atMs: 1, segments: '[]', isCut: false }];
    await tier.agents.create({ tenant, name: `agent-${agent}`, identity, atMs: 1, tokenIds, turns, blocks: [blocks] });
  }
  await tier.close();
}
