// Times BlockPool.allocate + release of 5 blocks against the size of the pool. See README.md.
// Usage: npx tsx experiments/EXP-002-block-allocation/run.mjs [--record]
import { execSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { fileURLToPath } from 'node:url';
import { BlockPool } from '../../packages/domain/src/index.ts';

const POOL_SIZES = [1e3, 1e4, 1e5, 1e6];
const BLOCKS_PER_OPERATION = 5;
const OPERATIONS_PER_BATCH = 64;
const BATCHES = 4_000;
const WARM_UP_BATCHES = 2_000;
const ROUNDS = 5;
const LIMIT_MICROSECONDS = 1;
const LIMIT_GROWTH = 1.5;

/** Deterministic: a run can be repeated. */
function random(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Half the pool is held by 5-block agents taken and returned in random order, so that free ids are scattered. */
function agedPool(numBlocks) {
  const pool = new BlockPool(numBlocks);
  const next = random(1);
  const held = [];
  const numHeld = Math.floor(numBlocks / 2 / BLOCKS_PER_OPERATION);
  for (let owner = 0; held.length < Math.floor((numBlocks * 0.9) / BLOCKS_PER_OPERATION); owner++) {
    held.push({ owner, blockIds: pool.allocate(BLOCKS_PER_OPERATION, owner) });
  }
  while (held.length > numHeld) {
    const index = next(held.length);
    const { owner, blockIds } = held[index];
    held[index] = held.at(-1);
    held.pop();
    for (const blockId of blockIds) pool.release(blockId, owner);
  }
  return { pool, held, next };
}

const WORKLOADS = {
  // A sequence takes 5 blocks and gives them back.
  'allocate-free': (aged) => {
    const { pool } = aged;
    return (operation) => {
      const owner = 1_000_000 + (operation & 1023);
      const blockIds = pool.allocate(BLOCKS_PER_OPERATION, owner);
      for (let index = 0; index < BLOCKS_PER_OPERATION; index++) pool.release(blockIds[index], owner);
    };
  },
  // One of many agents, anywhere in the pool, gives its 5 blocks back and takes 5: the pool's memory is cold.
  'churn-cold': (aged) => {
    const { pool, held, next } = aged;
    // Ids and the order are laid out flat beforehand, so that the caller's own memory costs as little as it can.
    const numAgents = held.length;
    const heldIds = new Int32Array(numAgents * BLOCKS_PER_OPERATION);
    for (const [agent, { owner, blockIds }] of held.entries()) {
      for (const blockId of blockIds) pool.release(blockId, owner);
      const retaken = pool.allocate(BLOCKS_PER_OPERATION, agent);
      heldIds.set(retaken, agent * BLOCKS_PER_OPERATION);
    }
    const order = Int32Array.from({ length: 1 << 16 }, () => next(numAgents));
    return (operation) => {
      const agent = order[operation & 0xffff];
      const first = agent * BLOCKS_PER_OPERATION;
      for (let index = 0; index < BLOCKS_PER_OPERATION; index++) pool.release(heldIds[first + index], agent);
      const blockIds = pool.allocate(BLOCKS_PER_OPERATION, agent);
      for (let index = 0; index < BLOCKS_PER_OPERATION; index++) heldIds[first + index] = blockIds[index];
    };
  },
  // 5 blocks are taken, shared with a second owner, and given back by both: 10 references.
  'allocate-share-free': (aged) => {
    const { pool } = aged;
    return (operation) => {
      const owner = 1_000_000 + (operation & 1023);
      const other = owner + 5_000;
      const blockIds = pool.allocate(BLOCKS_PER_OPERATION, owner);
      for (let index = 0; index < BLOCKS_PER_OPERATION; index++) pool.acquire(blockIds[index], other);
      for (let index = 0; index < BLOCKS_PER_OPERATION; index++) pool.release(blockIds[index], owner);
      for (let index = 0; index < BLOCKS_PER_OPERATION; index++) pool.release(blockIds[index], other);
    };
  },
};

function percentile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

/** Microseconds an operation: mean within a batch, then percentiles over batches. */
function timeBatches(operate) {
  const samples = new Float64Array(BATCHES);
  let operation = 0;
  for (let batch = -WARM_UP_BATCHES; batch < BATCHES; batch++) {
    const start = process.hrtime.bigint();
    for (let index = 0; index < OPERATIONS_PER_BATCH; index++) operate(operation++);
    const elapsed = Number(process.hrtime.bigint() - start);
    if (batch >= 0) samples[batch] = elapsed / 1000 / OPERATIONS_PER_BATCH;
  }
  return samples.sort();
}

/** Microseconds of single operations, the clock's own cost included. */
function timeSingles(operate) {
  const samples = new Float64Array(100_000);
  for (let operation = 0; operation < samples.length; operation++) {
    const start = process.hrtime.bigint();
    operate(operation);
    samples[operation] = Number(process.hrtime.bigint() - start) / 1000;
  }
  return samples.sort();
}

function measure(workload, numBlocks) {
  const aged = agedPool(numBlocks);
  const operate = WORKLOADS[workload](aged);
  const batches = timeBatches(operate);
  const singles = timeSingles(operate);
  aged.pool.checkIntegrity();
  return {
    workload,
    numBlocks,
    medianMicroseconds: percentile(batches, 0.5),
    p95Microseconds: percentile(batches, 0.95),
    p99Microseconds: percentile(batches, 0.99),
    singleP95Microseconds: percentile(singles, 0.95),
  };
}

/** The round with the median p95: a neighbour on the machine disturbs one round, not the middle one. */
function medianRound(rounds) {
  return rounds.sort((a, b) => a.p95Microseconds - b.p95Microseconds)[Math.floor(rounds.length / 2)];
}

function clockCost() {
  const samples = timeSingles(() => {});
  return { medianMicroseconds: percentile(samples, 0.5), p95Microseconds: percentile(samples, 0.95) };
}

const collected = new Map();
// Sizes and workloads take turns in every round, so that a slow minute cannot fall on one of them alone.
for (let round = 0; round < ROUNDS; round++) {
  for (const workload of Object.keys(WORKLOADS)) {
    for (const numBlocks of POOL_SIZES) {
      const key = `${workload}/${numBlocks}`;
      collected.set(key, [...(collected.get(key) ?? []), measure(workload, numBlocks)]);
    }
  }
}
const measurements = [...collected.values()].map(medianRound);
const growth = Object.fromEntries(
  Object.keys(WORKLOADS).map((workload) => {
    const p95 = measurements.filter((entry) => entry.workload === workload).map((entry) => entry.p95Microseconds);
    return [workload, Math.max(...p95) / p95[0]];
  }),
);
const judged = measurements.filter((entry) => entry.workload === 'allocate-free');
const isFast = judged.every((entry) => entry.p95Microseconds < LIMIT_MICROSECONDS);
const isFlat = growth['allocate-free'] <= LIMIT_GROWTH;

const git = (command) => execSync(`git ${command}`, { cwd: import.meta.dirname ?? '.', encoding: 'utf8' }).trim();
const result = {
  experiment: 'EXP-002',
  recordedAt: new Date().toISOString(),
  command: 'npx tsx experiments/EXP-002-block-allocation/run.mjs --record',
  commit: git('rev-parse HEAD'),
  uncommittedDomain: git('status --porcelain -- ../../packages/domain/src') !== '',
  hardware: { cpu: os.cpus()[0]?.model, cores: os.cpus().length, memoryGiB: Math.round(os.totalmem() / 2 ** 30) },
  load: os.loadavg(),
  node: process.version,
  v8: process.versions.v8,
  method: { BLOCKS_PER_OPERATION, OPERATIONS_PER_BATCH, BATCHES, WARM_UP_BATCHES, ROUNDS },
  clockCost: clockCost(),
  measurements,
  growthOfP95: growth,
  verdict: { isFast, isFlat },
};
const round3 = (value) => value.toFixed(3).padStart(8);
console.log('microseconds an operation      blocks   median      p95      p99   single p95');
for (const { workload, numBlocks, ...times } of measurements) {
  const { medianMicroseconds, p95Microseconds, p99Microseconds, singleP95Microseconds } = times;
  const columns = [medianMicroseconds, p95Microseconds, p99Microseconds, singleP95Microseconds].map(round3).join(' ');
  console.log(`${workload.padEnd(26)} ${String(numBlocks).padStart(9)} ${columns}`);
}
console.log('p95, largest over 1,000 blocks:', JSON.stringify(growth));
console.log(
  `clock: ${JSON.stringify(result.clockCost)}  load: ${result.load.map((value) => value.toFixed(1)).join(' ')}`,
);
console.log(`under ${LIMIT_MICROSECONDS} µs: ${isFast}; within ${LIMIT_GROWTH}×: ${isFlat}`);
if (process.argv.includes('--record')) {
  const path = fileURLToPath(new URL('result.json', import.meta.url));
  writeFileSync(path, `${JSON.stringify(result, null, 2)}\n`);
  console.log('recorded', JSON.parse(readFileSync(path, 'utf8')).measurements.length, 'measurements');
}
process.exitCode = isFast && isFlat ? 0 : 1;
