// Agents on an engine under pressure, and the same requests on an engine that keeps nothing: every answer is compared.
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { openColdTier } from '../../packages/block-store-fs/dist/index.js';
import { clock, generatedModel, GREEDY, identityOf, loadRunner, makeEngine } from '../support/engines.mjs';

export const SEEDED = {
  ...GREEDY,
  temperature: 0.9,
  topP: 0.95,
  topK: 50,
  repetitionPenalty: 1.1,
  frequencyPenalty: 0.2,
  presencePenalty: 0.1,
};
const SHAPE = { family: 'qwen3', hiddenSize: 128, numHeads: 2, numKvHeads: 1, headDim: 64, feedForwardSize: 128 };

export class Trial {
  engine;
  problems = [];
  warnings = new Map();
  numFinished = 0;
  numSteps = 0;
  numAborted = 0;
  directory;
  #cold;
  #main;
  #other;
  #reference;
  #follow = new Set();
  #numGenerating = 0;
  #aborts = [];
  #atMs = 1;

  static async open({ numBlocks, warmBytes = 0, keptBytes, referenceBlocks = 40 }) {
    const trial = new Trial();
    const file = generatedModel(SHAPE);
    const main = await loadRunner(file, numBlocks, { poisonPool: true });
    const other = await loadRunner(file, referenceBlocks);
    trial.#main = main.runner;
    trial.#other = other.runner;
    trial.directory = await mkdtemp(path.join(os.tmpdir(), 'kvasir-exp-009-'));
    trial.#cold = await openColdTier({ directory: trial.directory, ...(keptBytes === undefined ? {} : { keptBytes }) });
    trial.#cold.startReaders();
    const narrator = {
      narrate: ({ level, name, facts }) => {
        if (level !== 'warn' && level !== 'error') return;
        const text = facts.message === undefined ? name : `${name}: ${facts.message}`;
        trial.warnings.set(text, (trial.warnings.get(text) ?? 0) + 1);
      },
    };
    const { blocks, agents } = trial.#cold;
    trial.engine = makeEngine(main.runner, main.contextLength, { cold: { blocks, agents }, warmBytes }, { narrator });
    trial.#reference = makeEngine(other.runner, main.contextLength, null);
    trial.#reference.start();
    return trial;
  }

  get vocabularySize() {
    return this.#main.info.vocabularySize;
  }

  get blockBytes() {
    return this.#main.info.cacheSpec.bytesPerBlock(0);
  }

  get store() {
    return this.#cold.blocks;
  }

  async bear(name) {
    const identity = identityOf(this.#main);
    const { agentId } = await this.#cold.agents.create({ tenant: 'default', name, identity, atMs: this.#atMs++ });
    this.engine.agentMemory.adopt(await this.#cold.agents.read(agentId));
    return { name, agentId, known: new Int32Array(0), isBusy: false };
  }

  /** As the service deletes one: nothing of it is saved any more, then files, then the upper tiers. */
  async kill(agent) {
    await this.engine.agentMemory.quiesce(agent.agentId);
    await this.#cold.agents.delete(agent.agentId);
    this.engine.agentMemory.forget(agent.agentId);
  }

  /**
   * Submits one turn to both engines; the agent is busy until it has been compared and committed.
   * @param abortAfter steps until its caller goes away; what had come by then is compared
   */
  begin(agent, promptIds, { answer, sampling = GREEDY, abortAfter }) {
    agent.isBusy = true;
    this.#numGenerating++;
    const request = { promptIds, sampling, maxTokens: answer, stopIds: [], reportHashes: true };
    const resumed = this.engine.submit({ ...request, owner: agent.agentId });
    const fresh = this.#reference.submit(request);
    if (abortAfter !== undefined) this.#aborts.push({ atStep: this.numSteps + abortAfter, generation: resumed });
    const turn = this.#conclude(agent, promptIds, resumed, fresh).finally(() => {
      agent.isBusy = false;
      this.numFinished++;
      this.#follow.delete(turn);
    });
    this.#follow.add(turn);
    return turn;
  }

  async #conclude(agent, promptIds, resumed, fresh) {
    const output = await read(resumed).finally(() => this.#numGenerating--);
    // At once, as a server does: what nobody has is not saved when its block is needed.
    await this.#commit(agent, Int32Array.from([...promptIds, ...output.tokenIds]));
    const expected = await fresh.collect();
    const isAborted = output.finish.reason === 'abort';
    if (isAborted) this.numAborted++;
    const text = ({ tokens, finish }) =>
      JSON.stringify([
        isAborted ? '' : finish.reason,
        tokens.slice(0, output.tokens.length).map((token) => [token.tokenId, String(token.logitsHash)]),
      ]);
    if (text(output) !== text(expected)) {
      this.problems.push({
        agent: agent.name,
        promptTokens: promptIds.length,
        reuse: resumed.reuse,
        found: text(output).slice(0, 300),
        expected: text(expected).slice(0, 300),
      });
    }
    return resumed.reuse;
  }

  async #commit(agent, known) {
    const { agents } = this.#cold;
    const before = agent.known;
    let common = 0;
    while (common < before.length && before[common] === known[common]) common++;
    const atMs = this.#atMs++;
    if (common < before.length) await agents.commit(agent.agentId, { kind: 'rewind', numTokens: common, atMs });
    const tokenIds = known.slice(common);
    await agents.commit(agent.agentId, { kind: 'turn', startTokens: common, tokenIds, segments: '[]', atMs });
    agent.known = known;
    this.engine.agentMemory.follow({ agentId: agent.agentId, tenant: 'default' }, known);
  }

  /** One step and the books after it; without work, until a turn has been committed. */
  async step() {
    if (this.#numGenerating === 0) {
      await Promise.race(this.#follow);
      return;
    }
    for (const { generation } of this.#aborts.filter(({ atStep }) => atStep <= this.numSteps)) generation.abort();
    this.#aborts = this.#aborts.filter(({ atStep }) => atStep > this.numSteps);
    const report = await this.engine.step();
    this.engine.checkIntegrity();
    this.numSteps++;
    if (report.kind === 'failed') throw report.error;
    // Sockets and files get their turn, as in a server.
    await clock.turn();
  }

  async drain() {
    while (this.#follow.size > 0) await this.step();
  }

  async close() {
    await this.engine.agentMemory.flush();
    await this.engine.dispose();
    await this.#reference.dispose();
    await this.#cold.close();
    await this.#main.dispose();
    await this.#other.dispose();
    await rm(this.directory, { recursive: true });
  }
}

/** All that came, also when its caller went away in between. */
async function read(generation) {
  const tokens = [];
  let finish = null;
  for await (const batch of generation) {
    tokens.push(...batch.tokens);
    finish = batch.finish;
  }
  if (finish.reason === 'error') throw finish.error;
  return { tokens, finish, tokenIds: tokens.map(({ tokenId }) => tokenId) };
}

/** Token ids below the vocabulary that nobody else draws. */
export function freshTokens(count, random, vocabularySize) {
  return Int32Array.from({ length: count }, () => 3 + Math.floor(random() * (vocabularySize - 3)));
}

export function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function cacheFigures(engine) {
  const { cache, steps, preemptions, prefillTokens } = engine.stats();
  const { promptTokens, reusedTokens, evictions, losses, movedBytes, slotCopies, nodes, saves, savesRefused } = cache;
  const { saveFailures, loads, loadFailures, loadMisses, warmBlocks } = cache;
  const share = (tokens) => Number((tokens / promptTokens).toFixed(4));
  return {
    steps,
    preemptions,
    prefillTokens,
    promptTokens,
    hitRate: share(reusedTokens.hot + reusedTokens.warm + reusedTokens.cold),
    hitRateByTier: Object.fromEntries(Object.entries(reusedTokens).map(([tier, tokens]) => [tier, share(tokens)])),
    evictions,
    losses,
    slotCopies,
    movedMegabytes: Object.fromEntries(
      Object.entries(movedBytes).map(([way, bytes]) => [way, Number((bytes / 1e6).toFixed(1))]),
    ),
    saves,
    savesRefused,
    saveFailures,
    loads,
    loadFailures,
    loadMisses,
    warmBlocks,
    nodes,
  };
}
