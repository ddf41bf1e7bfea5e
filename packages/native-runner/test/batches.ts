import { GREEDY, ROW_FLAGS } from '@kvasir/domain';
import type { SamplerAdmission, SamplingParams, StepBatch } from '@kvasir/domain';

/** One sequence of `tokenIds` from position 0, in block `block`, sampled greedily in sampler slot 0. */
export function prefillBatch(tokenIds: readonly number[], block = 0, blockTokens = 256): StepBatch {
  return {
    tokenIds: Int32Array.from(tokenIds),
    positions: Int32Array.from(tokenIds.keys()),
    cuSeqlensQ: Int32Array.of(0, tokenIds.length),
    contextLengths: Int32Array.of(tokenIds.length),
    groups: [
      {
        blockTables: Int32Array.of(block),
        blockTableWidth: 1,
        slotMapping: Int32Array.from(tokenIds.keys(), (position) => block * blockTokens + position),
      },
    ],
    inputRows: Int32Array.of(-1),
    samplerSlots: Int32Array.of(0),
    outputIndexes: Int32Array.of(0),
    rowFlags: Uint8Array.of(ROW_FLAGS.sample | ROW_FLAGS.hash),
    admissions: [admission({ history: Int32Array.from(tokenIds), numPromptTokens: tokenIds.length })],
  };
}

/** The token sampled by row 0 of the batch before, at `position`. */
export function decodeBatch(position: number, outputIndex: number, block = 0, blockTokens = 256): StepBatch {
  return {
    ...prefillBatch([0], block, blockTokens),
    positions: Int32Array.of(position),
    contextLengths: Int32Array.of(position + 1),
    groups: [
      {
        blockTables: Int32Array.of(block),
        blockTableWidth: 1,
        slotMapping: Int32Array.of(block * blockTokens + position),
      },
    ],
    inputRows: Int32Array.of(0),
    outputIndexes: Int32Array.of(outputIndex),
    admissions: [],
  };
}

export function admission(
  more: Partial<SamplerAdmission> = {},
  params: Partial<SamplingParams> = {},
): SamplerAdmission {
  return {
    slot: 0,
    params: { ...GREEDY, ...params },
    history: new Int32Array(),
    numPromptTokens: 0,
    stopIds: new Int32Array(),
    maxOutputs: 0,
    ...more,
  };
}

export interface HostileBatch {
  readonly name: string;
  readonly batch: (good: StepBatch) => StepBatch;
}

/** Batches the binding itself refuses: their arrays do not fit each other or are of another type. */
export const MALFORMED_BATCHES: readonly HostileBatch[] = [
  { name: 'no tokens', batch: (good) => ({ ...good, tokenIds: new Int32Array() }) },
  { name: 'positions short by one', batch: (good) => ({ ...good, positions: good.positions.subarray(1) }) },
  { name: 'cu_seqlens without its last', batch: (good) => ({ ...good, cuSeqlensQ: good.cuSeqlensQ.subarray(1) }) },
  { name: 'more sequences than tokens', batch: (good) => ({ ...good, contextLengths: new Int32Array(1000) }) },
  { name: 'row flags for nobody', batch: (good) => ({ ...good, rowFlags: new Uint8Array() }) },
  { name: 'sampler slots for two', batch: (good) => ({ ...good, samplerSlots: new Int32Array(2) }) },
  { name: 'output indexes for two', batch: (good) => ({ ...good, outputIndexes: new Int32Array(2) }) },
  { name: 'input rows for two', batch: (good) => ({ ...good, inputRows: new Int32Array(2) }) },
  { name: 'targets for fewer tokens', batch: (good) => ({ ...good, targetIds: new Int32Array(1) }) },
  { name: 'no groups', batch: (good) => ({ ...good, groups: [] }) },
  { name: 'five groups', batch: (good) => ({ ...good, groups: Array.from({ length: 5 }, () => good.groups[0]!) }) },
  {
    name: 'a block table narrower than its width',
    batch: (good) => ({ ...good, groups: [{ ...good.groups[0]!, blockTableWidth: 9 }] }),
  },
  {
    name: 'a slot mapping short by one',
    batch: (good) => ({ ...good, groups: [{ ...good.groups[0]!, slotMapping: new Int32Array(1) }] }),
  },
  {
    name: 'token ids of another type',
    batch: (good) => ({ ...good, tokenIds: Float32Array.from(good.tokenIds) as unknown as Int32Array }),
  },
  { name: 'token ids as a list', batch: (good) => ({ ...good, tokenIds: [1, 2, 3] as unknown as Int32Array }) },
  {
    name: 'a negative seed',
    batch: (good) => ({ ...good, admissions: [admission({}, { seed: -1n })] }),
  },
  {
    name: 'a seed of 65 bits',
    batch: (good) => ({ ...good, admissions: [admission({}, { seed: 2n ** 64n })] }),
  },
  {
    name: 'a fractional top-k',
    batch: (good) => ({ ...good, admissions: [admission({}, { topK: 1.5 })] }),
  },
  {
    name: 'a slot that is no number',
    batch: (good) => ({ ...good, admissions: [admission({ slot: Number.NaN })] }),
  },
];
