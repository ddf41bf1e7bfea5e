import { KvasirError, ROW_FLAGS, type StepBatch, type StepResult } from '@kvasir/domain';
import { fakeLogits, hashBits, logSoftmax } from './fake-distribution.ts';
import type { FakeKvPool } from './fake-kv-pool.ts';
import type { FakeSampler } from './fake-sampler.ts';

interface FakeDevice {
  readonly pools: readonly FakeKvPool[];
  readonly samplers: ReadonlyMap<number, FakeSampler>;
  /** (S) what the batch before sampled; null when it failed. */
  readonly previousIds: Int32Array | null;
  readonly vocabularySize: number;
}

/** Writes a batch's tokens to their slots, then reads every row's context back through its block table. */
export function runFakeStep(batch: StepBatch, device: FakeDevice): Omit<StepResult, 'executeMs'> {
  const numSequences = batch.rowFlags.length;
  const maxLogprobs = widestLogprobs(batch, device);
  const sampledIds = new Int32Array(numSequences).fill(-1);
  const sampledLogprobs = new Float32Array(numSequences).fill(Number.NaN);
  const stops = new Uint8Array(numSequences);
  const topIds = new Int32Array(numSequences * maxLogprobs).fill(-1);
  const topLogprobs = new Float32Array(numSequences * maxLogprobs).fill(Number.NaN);
  const hashes = new BigUint64Array(numSequences);
  const logitsRows: Float32Array[] = [];
  const logitsTokens: number[] = [];
  const hasTargets = batch.rowFlags.some((flags) => (flags & ROW_FLAGS.targets) !== 0);
  const targetLogprobs = new Float32Array(hasTargets ? batch.tokenIds.length : 0).fill(Number.NaN);

  for (let row = 0; row < numSequences; row++) writeRow(batch, row, device);
  for (let row = 0; row < numSequences; row++) {
    const flags = batch.rowFlags[row] as number;
    const first = batch.cuSeqlensQ[row] as number;
    const last = (batch.cuSeqlensQ[row + 1] as number) - 1;
    walkContext(batch, row, device, (position, contextHash) => {
      const token = first + position - (batch.positions[first] as number);
      if (token < first) return;
      const target = (flags & ROW_FLAGS.targets) === 0 ? -1 : (batch.targetIds?.[token] ?? -1);
      if (token < last && target < 0 && (flags & ROW_FLAGS.logitsAll) === 0) return;
      const logits = fakeLogits(contextHash, device.vocabularySize);
      if (target >= 0) targetLogprobs[token] = logSoftmax(logits)[target] as number;
      if ((flags & ROW_FLAGS.logitsAll) !== 0 || (token === last && (flags & ROW_FLAGS.logitsLast) !== 0)) {
        logitsRows.push(logits);
        logitsTokens.push(token);
      }
      if (token < last) return;
      if ((flags & ROW_FLAGS.hash) !== 0) hashes[row] = hashBits(logits);
      if ((flags & ROW_FLAGS.sample) === 0) return;
      const sampler = samplerOf(batch, row, device);
      const outputIndex = batch.outputIndexes[row] as number;
      const tokenId = sampler.sample(logits, outputIndex);
      sampledIds[row] = tokenId;
      stops[row] = sampler.stopOf(tokenId, outputIndex);
      const numLogprobs = sampler.admission.params.logprobs;
      if (numLogprobs === null) return;
      const logprobs = logSoftmax(logits);
      sampledLogprobs[row] = logprobs[tokenId] as number;
      const likeliest = [...logprobs.keys()].sort((a, b) => (logprobs[b] as number) - (logprobs[a] as number) || a - b);
      for (const [index, id] of likeliest.slice(0, numLogprobs).entries()) {
        topIds[row * maxLogprobs + index] = id;
        topLogprobs[row * maxLogprobs + index] = logprobs[id] as number;
      }
    });
  }
  const logits = new Float32Array(logitsRows.length * device.vocabularySize);
  for (const [index, values] of logitsRows.entries()) logits.set(values, index * device.vocabularySize);
  return {
    sampledIds,
    stops,
    sampledLogprobs,
    topIds,
    topLogprobs,
    maxLogprobs,
    logits,
    logitsTokens: Uint32Array.from(logitsTokens),
    hashes,
    targetLogprobs,
  };
}

function writeRow(batch: StepBatch, row: number, device: FakeDevice): void {
  const first = batch.cuSeqlensQ[row] as number;
  const inputRow = batch.inputRows[row] as number;
  for (let token = first; token < (batch.cuSeqlensQ[row + 1] as number); token++) {
    let tokenId = batch.tokenIds[token] as number;
    if (token === first && inputRow >= 0) {
      tokenId = device.previousIds?.[inputRow] ?? -1;
      if (tokenId < 0) {
        throw new KvasirError(
          'internal',
          `input row ${inputRow}: expected a token sampled by the batch before, found none`,
        );
      }
    }
    for (const [group, pool] of device.pools.entries()) {
      const slot = batch.groups[group]?.slotMapping[token] as number;
      if (slot >= 0) pool.write(slot, tokenId, batch.positions[token] as number);
    }
  }
}

/** Calls `visit` for every position of a row's context with the hash of what its slots hold up to there. */
function walkContext(
  batch: StepBatch,
  row: number,
  { pools }: FakeDevice,
  visit: (position: number, contextHash: number) => void,
): void {
  let contextHash = 0;
  for (let position = 0; position < (batch.contextLengths[row] as number); position++) {
    for (const [group, pool] of pools.entries()) {
      const { blockTables, blockTableWidth } = batch.groups[group] as StepBatch['groups'][number];
      const blockIndex = Math.floor(position / pool.blockTokens);
      const blockId = blockTables[row * blockTableWidth + blockIndex] as number;
      contextHash = pool.fold(contextHash, blockId * pool.blockTokens + (position % pool.blockTokens));
    }
    visit(position, contextHash);
  }
}

function samplerOf(batch: StepBatch, row: number, { samplers }: FakeDevice): FakeSampler {
  const slot = batch.samplerSlots[row] as number;
  const sampler = samplers.get(slot);
  if (sampler === undefined) {
    throw new KvasirError('invalid-argument', `sampler slot ${slot}: expected an admitted sampler, found none`);
  }
  return sampler;
}

function widestLogprobs(batch: StepBatch, { samplers }: FakeDevice): number {
  let widest = 0;
  for (const slot of batch.samplerSlots) {
    widest = Math.max(widest, slot < 0 ? 0 : (samplers.get(slot)?.admission.params.logprobs ?? 0));
  }
  return widest;
}
