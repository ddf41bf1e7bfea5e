// A process that writes to a cache directory until it is killed, and says on standard output what it was asked to do and
// what it was told, one JSON line each. Usage: node writer.mjs <directory> <phase> <seed> <state>
import { randomBytes } from 'node:crypto';
import { writeSync } from 'node:fs';
import { ArchiveKeeper } from '../../packages/block-store-fs/dist/agents/archive-keeper.js';
import { BlockKeeper } from '../../packages/block-store-fs/dist/blocks/block-keeper.js';
import { CacheLayout } from '../../packages/block-store-fs/dist/files/cache-layout.js';
import { openColdTier } from '../../packages/block-store-fs/dist/index.js';
import { KillingFileSystem } from './killing-file-system.mjs';
import { blockOf, IDENTITY, PAYLOAD_BYTES, randomFrom, SHAPE, tokensOf } from './workload.mjs';

const [, , directory, phase, seedText, stateText] = process.argv;
const random = randomFrom(Number(seedText));
const say = (fact) => writeSync(1, `${JSON.stringify(fact)}\n`);
const pick = (items) => items[Math.floor(random() * items.length)];

/** agents: owner → { id, numTokens, blocks: numbers }: what earlier writers left, as it was verified. */
const state = JSON.parse(stateText);
const agents = new Map(state.agents);
let { nextOwner } = state;

if (phase === 'load') await load();
else await write();

async function write() {
  const files = new KillingFileSystem(directory, phase, 1 + Math.floor(random() * 24), random);
  const layout = new CacheLayout(directory);
  const limits = { touchedAgents: 3, slackBytes: 4000, journalEntries: 8 };
  const newAgentId = () => randomBytes(16).toString('hex');
  files.makeDirectory(directory);
  const archive = await ArchiveKeeper.open({ files, layout, now: () => Date.now(), newAgentId, limits });
  const budgets = { keptBytes: Infinity, writtenBytes: Infinity, periodMs: 1000 };
  const blocks = await BlockKeeper.open({ files, layout, budgets, now: () => Date.now() });
  const apply = async (jobs) => {
    for (const outcome of await archive.apply(jobs)) if ('error' in outcome) throw outcome.error;
  };
  const remove = async (agentId, isLeftover) => {
    await blocks.remove(await archive.removeFiles(agentId));
    await archive.finishDeletion(agentId, isLeftover);
  };
  for (const agentId of archive.deletions) await remove(agentId, true);

  const actions = {
    create: async () => {
      const owner = nextOwner++;
      const tokens = tokensOf(owner, 0, Math.floor(random() * 20));
      say({ asked: owner, numTokens: tokens.length });
      const agent = {
        tenant: 't',
        name: `agent ${owner}`,
        identity: IDENTITY,
        atMs: 1,
        tokenIds: Int32Array.from(tokens),
      };
      const { agentId } = await archive.create(agent);
      agents.set(owner, { id: agentId, numTokens: tokens.length, blocks: [] });
      say({ done: owner, id: agentId });
    },
    turns: async () => {
      const owners = [...new Set([pick([...agents.keys()]), pick([...agents.keys()])])];
      const jobs = owners.map((owner) => {
        const agent = agents.get(owner);
        const startTokens = agent.numTokens;
        const tokenIds = Int32Array.from(tokensOf(owner, startTokens, 1 + Math.floor(random() * 30)));
        agent.numTokens += tokenIds.length;
        say({ asked: owner, numTokens: agent.numTokens });
        const entry = { kind: 'turn', startTokens, tokenIds, segments: '{"text":"…"}', atMs: 2 };
        return { agentId: agent.id, entry, isCommit: true };
      });
      await apply(jobs);
      for (const owner of owners) say({ done: owner });
    },
    rewind: async () => {
      const owner = pick([...agents.keys()]);
      const agent = agents.get(owner);
      agent.numTokens = Math.floor(agent.numTokens * random());
      agent.blocks = agent.blocks.filter((number) => number * 16 + 16 <= agent.numTokens);
      say({ asked: owner, numTokens: agent.numTokens });
      const entry = { kind: 'rewind', numTokens: agent.numTokens, atMs: 3 };
      await apply([{ agentId: agent.id, entry, isCommit: true }]);
      say({ done: owner });
    },
    save: async () => {
      const owner = pick([...agents.keys()]);
      const agent = agents.get(owner);
      agent.blocks = Array.from({ length: Math.floor(agent.numTokens / 16) }, (_, number) => number);
      const saved = agent.blocks.map((number) => blockOf(owner, number, true));
      const references = saved.map(({ key }, number) => ({ startToken: number * 16, numTokens: 16, hash: key.hash }));
      const entry = { kind: 'blocks', group: 0, keep: 0, blocks: references };
      await apply([{ agentId: agent.id, entry, isCommit: false }]);
      await archive.flushNotes();
      const results = await blocks.put(saved, () => false);
      if (results.some((result) => result !== 'stored' && result !== 'present')) throw new Error(String(results));
      for (const number of agent.blocks) say({ stored: [owner, number] });
    },
    evict: async () => {
      const owner = pick([...agents.keys()]);
      const agent = agents.get(owner);
      if (agent.blocks.length === 0) return;
      const number = agent.blocks.at(-1);
      say({ evicting: [owner, number] });
      agent.blocks.pop();
      await blocks.remove([blockOf(owner, number, true).key]);
    },
    delete: async () => {
      if (agents.size < 4) return;
      const owner = pick([...agents.keys()]);
      const { id } = agents.get(owner);
      agents.delete(owner);
      say({ deleting: owner });
      await archive.beginDeletion(id);
      await remove(id, false);
      say({ deleted: owner });
    },
  };
  const weights = ['create', 'turns', 'turns', 'turns', 'save', 'save', 'rewind', 'evict', 'delete'];
  say({ ready: true });
  await actions.create();
  for (let round = 0; round < 10_000; round++)
    await actions[phase === 'delete' && random() < 0.4 ? 'delete' : pick(weights)]();
  throw new Error(`phase ${phase} was never reached`);
}

/** The whole tier with its threads, loading for as long as it is let. */
async function load() {
  const tier = await openColdTier({ directory });
  say({ ready: true });
  for (;;) {
    const requests = [];
    for (const [owner, agent] of agents) {
      for (const number of agent.blocks) {
        const { key, identity, tokenIds } = blockOf(owner, number, true);
        requests.push({
          key,
          identity,
          tokenIds,
          shape: SHAPE,
          into: new Uint8Array(new SharedArrayBuffer(PAYLOAD_BYTES)),
        });
      }
      await tier.agents.read(agent.id);
      await tier.agents.note(agent.id, { kind: 'use', atMs: 5, promptTokens: 1, cachedTokens: 1 });
    }
    await tier.blocks.get(requests);
  }
}
