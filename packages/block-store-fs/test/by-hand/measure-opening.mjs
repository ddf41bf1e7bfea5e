// Opens a directory of 10,000 agents of 4K tokens: after an orderly stop, after a kill, and with its index gone.
// Usage, after `pnpm build`: node packages/block-store-fs/test/by-hand/measure-opening.mjs [agents] [tokens]
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { openColdTier } from '../../dist/index.js';
import { dropPageCache } from './drop-page-cache.mjs';

const self = fileURLToPath(import.meta.url);
if (process.argv[2] === '--open') await openOnce(process.argv[3], process.argv[4]);
else await measure();

async function measure() {
  const [numAgents = 10_000, numTokens = 4096] = process.argv.slice(2).map(Number);
  const directory = mkdtempSync(path.join(process.env.KVASIR_MEASURE ?? os.tmpdir(), 'kvasir-measure-'));
  const tier = await openColdTier({ directory });
  const identity = {
    modelFingerprint: 'f'.repeat(64),
    kvDType: 'f16',
    layoutVersion: '1',
    numericsId: 'cpu/quantized/3',
  };
  const filling = performance.now();
  const create = async (agent) => {
    const tokenIds = Int32Array.from({ length: numTokens }, (_, index) => (index * 31 + agent) % 32_000);
    const blocks = Array.from({ length: Math.ceil(numTokens / 256) }, (_, index) => ({
      startToken: index * 256,
      numTokens: Math.min(256, numTokens - index * 256),
      hash: createHash('sha256').update(`${agent} ${index}`).digest('hex'),
    }));
    const turns = [
      { endTokens: numTokens, atMs: 1, segments: JSON.stringify({ text: 'x'.repeat(2000) }), isCut: false },
    ];
    await tier.agents.create({
      tenant: 'default',
      name: `agent ${agent}`,
      identity,
      atMs: 1,
      tokenIds,
      turns,
      blocks: [blocks],
    });
  };
  for (let agent = 0; agent < numAgents; agent++) await create(agent);
  console.error(`created ${numAgents} agents in ${((performance.now() - filling) / 1000).toFixed(1)} s`);
  await tier.close();
  const index = path.join(directory, 'agents.index');
  const figures = { agents: numAgents, tokens: numTokens, indexMB: statSync(index).size / 1e6 };
  for (const round of [1, 2, 3]) figures[`cleanMs${round}`] = await openIn(directory, 'stop');
  await openIn(directory, 'kill');
  figures.afterKillMs = await openIn(directory, 'stop');
  rmSync(index);
  figures.rebuildMs = await openIn(directory, 'stop');
  console.log(
    JSON.stringify({
      hardware: `${os.cpus()[0]?.model}, load ${os.loadavg()[0]?.toFixed(1)}, Node ${process.version}`,
      ...figures,
    }),
  );
  rmSync(directory, { recursive: true });
}

/** In a process of its own, the page cache dropped. */
async function openIn(directory, end) {
  dropPageCache();
  const child = spawn(process.execPath, [self, '--open', directory, end], { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  for await (const part of child.stdout) text += part;
  return JSON.parse(text);
}

async function openOnce(directory, end) {
  const start = performance.now();
  const tier = await openColdTier({ directory });
  const openMs = performance.now() - start;
  let count = 0;
  let first = '';
  for await (const page of tier.agents.list()) {
    first ||= page[0].agentId;
    count += page.length;
  }
  const listedMs = performance.now() - start;
  const { tokenIds } = await tier.agents.read(first);
  const opening = (await tier.agents.usage()).opening;
  const facts = {
    opening,
    count,
    openMs,
    listedMs,
    firstReadMs: performance.now() - start,
    tokens: tokenIds.length,
    sinceStartMs: performance.now(),
  };
  if (end === 'kill') {
    const ids = [];
    for await (const page of tier.agents.list()) ids.push(...page.map(({ agentId }) => agentId));
    await Promise.all(
      ids
        .slice(0, 200)
        .map((agentId) => tier.agents.note(agentId, { kind: 'use', atMs: 2, promptTokens: 1, cachedTokens: 0 })),
    );
  }
  for (const name of Object.keys(facts)) if (name.endsWith('Ms')) facts[name] = Math.round(facts[name]);
  process.stdout.write(JSON.stringify(facts));
  if (end === 'kill') process.kill(process.pid, 'SIGKILL');
  await tier.close();
}
