// What one step costs in crossings: submit and result through the binding and this package, over a backend that
// computes almost nothing. `pnpm --filter @kvasir/native-runner run bench:crossing`
import { cpus } from 'node:os';
import { performance } from 'node:perf_hooks';
import { ROW_FLAGS } from '@kvasir/domain';
import type { StepBatch } from '@kvasir/domain';
import { createNativeModelLoader } from '../src/index.ts';
import { FAKE_MODEL, fakeOptions, openFakeAddon } from '../test/fake-addon.ts';

const WARM_UP_STEPS = 2_000;
const STEPS = 20_000;
const BLOCKS_PER_SEQUENCE = 16;

/** S sequences that each decode one token, with block tables of a 4K context. */
function decodeStep(numSequences: number): StepBatch {
  const perSequence = (value: number): Int32Array => new Int32Array(numSequences).fill(value);
  return {
    tokenIds: perSequence(1),
    positions: perSequence(7),
    cuSeqlensQ: Int32Array.from({ length: numSequences + 1 }, (_, i) => i),
    contextLengths: perSequence(8),
    groups: [
      {
        blockTables: new Int32Array(numSequences * BLOCKS_PER_SEQUENCE),
        blockTableWidth: BLOCKS_PER_SEQUENCE,
        slotMapping: perSequence(-1),
      },
    ],
    inputRows: perSequence(-1),
    samplerSlots: perSequence(0),
    outputIndexes: perSequence(0),
    rowFlags: new Uint8Array(numSequences).fill(ROW_FLAGS.sample),
    admissions: [],
  };
}

const loader = createNativeModelLoader(await openFakeAddon());
for (const numSequences of [1, 8, 64]) {
  const runner = await loader.load(FAKE_MODEL, fakeOptions());
  const batch = decodeStep(numSequences);
  const roundTripsUs: number[] = [];
  const submitsUs: number[] = [];
  for (let step = -WARM_UP_STEPS; step < STEPS; step += 1) {
    const started = performance.now();
    const { result } = runner.submit(batch);
    const submitted = performance.now();
    const { executeMs } = await result;
    if (step < 0) continue;
    roundTripsUs.push((performance.now() - started - executeMs) * 1e3);
    submitsUs.push((submitted - started) * 1e3);
  }
  const pipelinedStarted = performance.now();
  let previous = runner.submit(batch).result;
  for (let step = 1; step < STEPS; step += 1) {
    const next = runner.submit(batch).result;
    await previous;
    previous = next;
  }
  await previous;
  const pipelinedUs = ((performance.now() - pipelinedStarted) * 1e3) / STEPS;
  console.log(
    JSON.stringify({
      sequences: numSequences,
      submitUs: summary(submitsUs),
      roundTripUs: summary(roundTripsUs),
      pipelinedPerStepUs: round(pipelinedUs),
    }),
  );
  await runner.dispose();
}
console.log(JSON.stringify({ node: process.version, processor: cpus()[0]?.model, steps: STEPS }));

function summary(values: number[]): { median: number; p95: number } {
  values.sort((a, b) => a - b);
  const at = (share: number): number => round(values[Math.floor(values.length * share)] ?? Number.NaN);
  return { median: at(0.5), p95: at(0.95) };
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
