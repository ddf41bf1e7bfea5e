// EXP-009: many agents, little memory. See README.md.
// Usage: node experiments/EXP-009-pressure/run.mjs [--requests 5000] [--trace kv-cache-tester.rle.jsonl.gz] [--record]
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { parseArgs } from 'node:util';
import { circumstances, record, table } from '../support/report.mjs';
import { joined } from '../support/engines.mjs';
import { sessions } from './shape.mjs';
import { cacheFigures, freshTokens, randomFrom, SEEDED, Trial } from './trial.mjs';

const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '5000' },
    trace: { type: 'string' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string', default: 'cold,warm,preamble,two,tenfold' },
    record: { type: 'boolean', default: false },
  },
});
setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');
const wanted = new Set(values.only.split(','));
const requests = Number(values.requests);
const AGENTS = 64;
const AT_ONCE = 8;
const MAX_TOKENS = 1200;
const PREAMBLE_TOKENS = 270;
const SAMPLES = 20;
const result = {
  ...circumstances('EXP-009, pressure'),
  shape: values.trace === undefined ? 'synthetic' : 'kv-cache-tester, 1 token for each of its blocks of 64',
};
let numProblems = 0;

// The pool holds six agents of the mean size: about 570 tokens.
if (wanted.has('cold')) result.cold = await press({ numBlocks: 13 });
if (wanted.has('warm')) result.warm = await press({ numBlocks: 13, warmBytes: 8 << 20, keptBytes: 16 << 20 });
if (wanted.has('preamble')) result.preamble = await preamble();
if (wanted.has('two')) result.two = await takingTurns({ numAgents: 2, blocksEach: 14, rounds: 12, atOnce: 2 });
if (wanted.has('tenfold')) result.tenfold = await takingTurns({ numAgents: 20, blocksEach: 12, rounds: 4, atOnce: 4 });
if (values.record) record(import.meta.dirname, 'result.json', result);
process.exit(numProblems === 0 ? 0 : 1);

/** 64 agents in random order; a session that ends is deleted and another begins in its place. */
async function press(options) {
  const started = Date.now();
  const random = randomFrom(Number(values.seed));
  const trial = await Trial.open(options);
  const { vocabularySize } = trial;
  const shared = freshTokens(PREAMBLE_TOKENS, random, vocabularySize);
  const all = sessions({ trace: values.trace, random, maxTokens: MAX_TOKENS, preambleTokens: PREAMBLE_TOKENS });
  let numBorn = 0;
  const begin = async () => {
    const name = `agent-${numBorn++}`;
    return { agent: await trial.bear(name), turns: all[Math.floor(random() * all.length)], turn: 0, prompt: shared };
  };
  const seats = [];
  for (let seat = 0; seat < AGENTS; seat++) seats.push(await begin());
  const replacing = new Set();
  const memory = [];
  let started_ = 0;
  let longest = 0;
  let meanTokens = 0;
  while (trial.numFinished < requests) {
    let numBusy = seats.filter((seat) => seat.agent.isBusy).length;
    while (started_ < requests && numBusy < AT_ONCE) {
      const idle = seats.filter((seat) => !seat.agent.isBusy && !seat.isReplaced);
      if (idle.length === 0) break;
      const seat = idle[Math.floor(random() * idle.length)];
      const { keep, fresh, answer } = seat.turns[seat.turn++];
      const base = keep === null ? seat.agent.known : seat.prompt.subarray(0, keep);
      seat.prompt = joined(base, freshTokens(fresh, random, vocabularySize));
      longest = Math.max(longest, seat.prompt.length);
      const sampling = random() < 0.5 ? undefined : { ...SEEDED, seed: BigInt(started_) };
      const turn = trial.begin(seat.agent, seat.prompt, {
        answer,
        ...(sampling === undefined ? {} : { sampling }),
        ...(random() < 0.04 ? { abortAfter: 1 + Math.floor(random() * 4) } : {}),
      });
      started_++;
      numBusy++;
      if (seat.turn >= seat.turns.length || seat.prompt.length + 60 > MAX_TOKENS) {
        seat.isReplaced = true;
        const replacing_ = turn.then(async () => {
          await trial.kill(seat.agent);
          Object.assign(seat, await begin(), { isReplaced: false });
        });
        replacing.add(replacing_);
        replacing_.finally(() => replacing.delete(replacing_));
      }
    }
    const before = trial.numFinished;
    if (numBusy === 0 && replacing.size > 0) await Promise.race(replacing);
    else await trial.step();
    const every = Math.ceil(requests / SAMPLES);
    if (Math.floor(trial.numFinished / every) > Math.floor(before / every)) {
      meanTokens = seats.reduce((sum, seat) => sum + seat.agent.known.length, 0) / AGENTS;
      memory.push(memoryNow(trial));
      progress(`${trial.numFinished} of ${requests}`, trial);
    }
  }
  await Promise.all(replacing);
  const figures = cacheFigures(trial.engine);
  await trial.close();
  const half = memory.slice(memory.length >> 1);
  const rest = memory.slice(memory.length >> 2, memory.length >> 1);
  const mean = (samples) => samples.reduce((sum, { residentMegabytes }) => sum + residentMegabytes, 0) / samples.length;
  const outcome = {
    ...options,
    requests,
    agentsBorn: numBorn,
    seconds: Math.round((Date.now() - started) / 1000),
    integrityChecks: trial.numSteps,
    wrongAnswers: trial.problems.length,
    abortedRequests: trial.numAborted,
    meanTokensOfAnAgent: Math.round(meanTokens),
    longestPrompt: longest,
    poolHoldsAgents: Number(((options.numBlocks * 256) / meanTokens).toFixed(1)),
    ...figures,
    warnings: Object.fromEntries(trial.warnings),
    residentGrowth: Number((mean(half) / mean(rest) - 1).toFixed(4)),
    memory,
  };
  conclude(
    `64 agents, ${options.warmBytes === undefined ? 'cold tier' : 'warm tier and a small cold one'}`,
    outcome,
    trial,
  );
  return outcome;
}

/** 200 agents with a short prompt of their own behind a preamble that is shorter than a block. */
async function preamble() {
  const trial = await Trial.open({ numBlocks: 420 });
  const random = randomFrom(7);
  const shared = freshTokens(200, random, trial.vocabularySize);
  const agents = [];
  for (let index = 0; index < 200; index++) agents.push(await trial.bear(`agent-${index}`));
  const ask = async (promptOf) => {
    for (const agent of agents) {
      trial.begin(agent, promptOf(agent), { answer: 4 });
      if (agents.indexOf(agent) % AT_ONCE === AT_ONCE - 1) await trial.drain();
    }
    await trial.drain();
    await trial.engine.agentMemory.flush();
  };
  await ask(() => joined(shared, freshTokens(100, random, trial.vocabularySize)));
  const first = cacheFigures(trial.engine);
  const usage = await trial.store.usage();
  const { cache, blocks } = trial.engine.stats();
  const tokens = agents.reduce((sum, agent) => sum + agent.known.length - 1, 0);
  await ask((agent) => joined(agent.known, freshTokens(20, random, trial.vocabularySize)));
  const second = trial.engine.stats().cache;
  const outcome = {
    agents: 200,
    tokensOfAgents: tokens,
    kvBytesPerToken: trial.blockBytes / 256,
    coldFiles: usage.blocks,
    coldBytesPerToken: Number((usage.bytes / tokens).toFixed(1)),
    poolBlocks: cache.hotBlocks,
    poolBytesPerToken: Number(((cache.hotBlocks * trial.blockBytes) / tokens).toFixed(1)),
    poolBlocksUsed: blocks[0].total - blocks[0].free,
    hitRateOfFirstPrompts: first.hitRate,
    hitRateOfSecondPrompts: Number(
      (
        (second.reusedTokens.hot + second.reusedTokens.cold - first.hitRate * first.promptTokens) /
        (second.promptTokens - first.promptTokens)
      ).toFixed(4),
    ),
    slotCopies: second.slotCopies,
    wrongAnswers: trial.problems.length,
  };
  await trial.close();
  conclude('200 agents behind a preamble', outcome, trial);
  return outcome;
}

/** Agents that do not fit beside each other, one turn each in every round, in random order. */
async function takingTurns({ numAgents, blocksEach, rounds, atOnce }) {
  const numBlocks = 24;
  const started = Date.now();
  const trial = await Trial.open({ numBlocks });
  const random = randomFrom(11);
  const agents = [];
  for (let index = 0; index < numAgents; index++) agents.push(await trial.bear(`agent-${index}`));
  for (let round = 0; round < rounds; round++) {
    const order = agents.toSorted(() => random() - 0.5);
    for (let first = 0; first < order.length; first += atOnce) {
      for (const agent of order.slice(first, first + atOnce)) {
        const count = agent.known.length === 0 ? blocksEach * 256 - 200 : 6;
        const promptIds = joined(agent.known, freshTokens(count, random, trial.vocabularySize));
        const sampling = random() < 0.5 ? {} : { sampling: { ...SEEDED, seed: 5n } };
        trial.begin(agent, promptIds, { answer: 6, ...sampling });
      }
      await trial.drain();
    }
  }
  const outcome = {
    numBlocks,
    numAgents,
    blocksEach,
    timesThePool: Number(((numAgents * blocksEach) / numBlocks).toFixed(1)),
    requests: trial.numFinished,
    seconds: Math.round((Date.now() - started) / 1000),
    integrityChecks: trial.numSteps,
    wrongAnswers: trial.problems.length,
    ...cacheFigures(trial.engine),
    warnings: Object.fromEntries(trial.warnings),
  };
  await trial.close();
  conclude(`${numAgents} agents of ${blocksEach} blocks on a pool of ${numBlocks}`, outcome, trial);
  return outcome;
}

function memoryNow(trial) {
  collectGarbage();
  const { rss, heapUsed, arrayBuffers } = process.memoryUsage();
  const megabytes = (bytes) => Number((bytes / 1e6).toFixed(1));
  return {
    requests: trial.numFinished,
    residentMegabytes: megabytes(rss),
    heapMegabytes: megabytes(heapUsed),
    arrayBufferMegabytes: megabytes(arrayBuffers),
    nodes: trial.engine.stats().cache.nodes,
  };
}

function progress(text, trial) {
  console.error(`${text}; ${trial.problems.length} wrong; ${JSON.stringify(memoryNow(trial))}`);
}

function conclude(title, outcome, trial) {
  numProblems += trial.problems.length;
  for (const problem of trial.problems.slice(0, 3)) console.error(JSON.stringify(problem));
  const rows = Object.entries(outcome)
    .filter(([name]) => name !== 'memory')
    .map(([name, value]) => [name, typeof value === 'object' ? JSON.stringify(value) : value]);
  console.log(`${title}\n\n${table(['', ''], rows)}\n`);
}
