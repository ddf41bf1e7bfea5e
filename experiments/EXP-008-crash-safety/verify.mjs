// What a writer was told, against what the directory gives to the next process.
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { openColdTier } from '../../packages/block-store-fs/dist/index.js';
import { blockOf, leadingSlots, markOf, PAYLOAD_BYTES, tokensOf } from './workload.mjs';

/** What is known of a directory over the writers it has outlived. */
export class Ledger {
  /** owner → { states: token counts that may be found, isKnown, fate, blocks: Set } */
  agents = new Map();

  read(lines) {
    for (const line of lines) {
      const fact = JSON.parse(line);
      if ('asked' in fact) {
        const agent = this.agents.get(fact.asked) ?? { states: [], isKnown: false, fate: 'alive', blocks: new Set() };
        agent.states.push(fact.numTokens);
        agent.blocks = new Set([...agent.blocks].filter((number) => number * 16 + 16 <= fact.numTokens));
        this.agents.set(fact.asked, agent);
      } else if ('done' in fact) {
        const agent = this.agents.get(fact.done);
        agent.isKnown = true;
        agent.states = agent.states.slice(-1);
      } else if ('stored' in fact) this.agents.get(fact.stored[0]).blocks.add(fact.stored[1]);
      else if ('evicting' in fact) this.agents.get(fact.evicting[0]).blocks.delete(fact.evicting[1]);
      else if ('deleting' in fact) this.agents.get(fact.deleting).fate = 'going';
      else if ('deleted' in fact) this.agents.get(fact.deleted).fate = 'gone';
    }
  }

  /** Opens the directory, checks everything, and remembers what was found as the truth from now on. */
  async verify(directory) {
    const problems = [];
    const started = performance.now();
    const tier = await openColdTier({ directory });
    const openMs = performance.now() - started;
    const found = new Map();
    for await (const page of tier.agents.list()) {
      for (const summary of page) found.set(Number(summary.name.slice('agent '.length)), summary);
    }
    for (const [owner, agent] of this.agents) await this.#verifyAgent(tier, owner, agent, found.get(owner), problems);
    for (const owner of found.keys()) if (!this.agents.has(owner)) problems.push(`agent ${owner} was never created`);
    const usage = { agents: await tier.agents.usage(), blocks: await tier.blocks.usage() };
    if (usage.blocks.setAside > 0) problems.push(`${usage.blocks.setAside} blocks were damaged by a kill`);
    await tier.close();
    const gone = [...this.agents].filter(([, agent]) => agent.fate === 'gone').map(([owner]) => owner);
    problems.push(...leftovers(directory, gone));
    const left = [...this.agents].filter(([, agent]) => agent.fate === 'alive');
    const agents = left.map(([owner, agent]) => [
      owner,
      { id: found.get(owner)?.agentId, numTokens: agent.states[0], blocks: [...agent.blocks] },
    ]);
    const state = { agents, nextOwner: Math.max(0, ...this.agents.keys()) + 1 };
    return { problems, state, openMs, usage };
  }

  async #verifyAgent(tier, owner, agent, summary, problems) {
    if (summary === undefined) {
      if (agent.fate === 'alive' && agent.isKnown) problems.push(`agent ${owner} is lost`);
      agent.fate = 'gone';
      return;
    }
    if (agent.fate === 'gone') problems.push(`agent ${owner} has come back`);
    const manifest = await tier.agents.read(summary.agentId);
    const tokens = [...manifest.tokenIds];
    // A deletion that was asked for and not begun leaves the agent as it was.
    if (agent.fate === 'going') agent.fate = 'alive';
    if (!agent.states.includes(tokens.length))
      problems.push(`agent ${owner} has ${tokens.length} tokens, not ${agent.states}`);
    if (summary.numTokens !== tokens.length) problems.push(`the summary of agent ${owner} is another state's`);
    if (String(tokens) !== String(tokensOf(owner, 0, tokens.length))) problems.push(`agent ${owner} has other tokens`);
    agent.states = [tokens.length];
    agent.isKnown = true;
    const numbers = Array.from({ length: Math.floor(tokens.length / 16) }, (_, number) => number);
    const blocks = numbers.map((number) => blockOf(owner, number, true));
    const requests = blocks.map(({ key, identity, tokenIds, shape }) => ({
      key,
      identity,
      tokenIds,
      shape,
      into: new Uint8Array(new SharedArrayBuffer(PAYLOAD_BYTES)),
    }));
    const loads = await tier.blocks.get(requests);
    for (const [number, load] of loads.entries()) {
      if (load.isHit) {
        const isRight = leadingSlots(requests[number].into, 16).equals(leadingSlots(blocks[number].payload, 16));
        if (!isRight) problems.push(`block ${number} of agent ${owner} is served wrong`);
      } else if (load.reason !== 'absent') problems.push(`block ${number} of agent ${owner} is ${load.reason}`);
      else if (agent.blocks.has(number)) problems.push(`block ${number} of agent ${owner} is lost`);
    }
    const referred = new Set((manifest.blocks[0] ?? []).map(({ hash }) => hash));
    agent.blocks = new Set(numbers.filter((number) => loads[number].isHit && referred.has(blocks[number].key.hash)));
  }
}

/** Files that still hold tokens of agents that are gone. */
function leftovers(directory, owners) {
  const marks = owners.map((owner) => ({ owner, mark: Buffer.from(Int32Array.of(markOf(owner)).buffer) }));
  const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return files.flatMap((entry) => {
    const file = path.join(entry.parentPath, entry.name);
    const bytes = readFileSync(file);
    return marks
      .filter(({ mark }) => holds(bytes, mark))
      .map(({ owner }) => `tokens of agent ${owner} are left in ${file}`);
  });
}

/** A mark alone may be chance in random payloads and checksums; the next but one token's, eight bytes on, is not. */
function holds(bytes, mark) {
  for (let at = bytes.indexOf(mark); at >= 0; at = bytes.indexOf(mark, at + 1)) {
    if (bytes.subarray(at + 8, at + 12).equals(mark)) return true;
  }
  return false;
}
