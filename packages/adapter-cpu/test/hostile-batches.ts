import { GREEDY, ROW_FLAGS } from '@kvasir/domain';
import type { SamplerAdmission, SamplingParams, StepBatch, StepGroup } from '@kvasir/domain';

/** Two sequences from their beginnings: five tokens in block 3, and one token in block 1 that is sampled in slot 0. */
export function goodBatch(blockTokens: number): StepBatch {
  return {
    tokenIds: Int32Array.of(1, 2, 3, 4, 5, 6),
    positions: Int32Array.of(0, 1, 2, 3, 4, 0),
    cuSeqlensQ: Int32Array.of(0, 5, 6),
    contextLengths: Int32Array.of(5, 1),
    groups: [
      {
        blockTables: Int32Array.of(3, 1),
        blockTableWidth: 1,
        slotMapping: Int32Array.of(...[0, 1, 2, 3, 4].map((at) => 3 * blockTokens + at), blockTokens),
      },
    ],
    inputRows: Int32Array.of(-1, -1),
    samplerSlots: Int32Array.of(-1, 0),
    outputIndexes: Int32Array.of(0, 0),
    rowFlags: Uint8Array.of(0, ROW_FLAGS.sample | ROW_FLAGS.hash),
    admissions: [sampler()],
  };
}

function sampler(more: Partial<SamplerAdmission> = {}, params: Partial<SamplingParams> = {}): SamplerAdmission {
  return {
    slot: 0,
    params: { ...GREEDY, ...params },
    history: Int32Array.of(1, 2),
    numPromptTokens: 2,
    stopIds: new Int32Array(),
    maxOutputs: 0,
    ...more,
  };
}

export interface Mutation {
  readonly name: string;
  readonly apply: (good: StepBatch) => StepBatch;
}

type ArrayField =
  | 'tokenIds'
  | 'positions'
  | 'cuSeqlensQ'
  | 'contextLengths'
  | 'inputRows'
  | 'samplerSlots'
  | 'outputIndexes';

function put(name: string, field: ArrayField, index: number, value: number): Mutation {
  return { name, apply: (good) => ({ ...good, [field]: good[field].with(index, value) }) };
}

function inGroup(name: string, change: (group: StepGroup) => Partial<StepGroup>): Mutation {
  return {
    name,
    apply: (good) => ({ ...good, groups: good.groups.map((group) => ({ ...group, ...change(group) })) }),
  };
}

function admitted(name: string, more: Partial<SamplerAdmission>, params: Partial<SamplingParams> = {}): Mutation {
  return { name, apply: (good) => ({ ...good, admissions: [sampler(more, params)] }) };
}

const INT32_MAX = 0x7fff_ffff;
const INT32_MIN = -0x8000_0000;

/** Batches whose arrays fit each other and whose numbers lie: only the backend can tell. */
export const HOSTILE_BATCHES: readonly Mutation[] = [
  put('a token id past the vocabulary', 'tokenIds', 2, 1_000_000),
  put('a negative token id', 'tokenIds', 0, -1),
  put('a position that is not consecutive', 'positions', 3, 7),
  put('a negative position', 'positions', 5, INT32_MIN),
  put('a position past every limit', 'positions', 5, INT32_MAX),
  put('prefix sums that do not begin at 0', 'cuSeqlensQ', 0, 1),
  put('prefix sums that fall', 'cuSeqlensQ', 1, -3),
  put('an empty sequence', 'cuSeqlensQ', 1, 6),
  put('prefix sums that end past the tokens', 'cuSeqlensQ', 2, 600),
  put('a context shorter than its last position', 'contextLengths', 0, 3),
  put('a context longer than its last position', 'contextLengths', 1, INT32_MAX),
  put('an input row that was not sampled', 'inputRows', 0, 12),
  put('an input row below -1', 'inputRows', 0, -2),
  put('a sampler slot that does not exist', 'samplerSlots', 1, 10_000),
  put('sampling without a slot', 'samplerSlots', 1, -1),
  put('a negative output index', 'outputIndexes', 1, -5),
  inGroup('a block past the pool', () => ({ blockTables: Int32Array.of(3, 1_000_000) })),
  inGroup('a missing block inside the context', () => ({ blockTables: Int32Array.of(-1, 1) })),
  inGroup('a block table of no width', () => ({ blockTables: new Int32Array(), blockTableWidth: 0 })),
  inGroup('a slot past the pool', ({ slotMapping }) => ({ slotMapping: slotMapping.with(5, INT32_MAX) })),
  inGroup('a slot below -1', ({ slotMapping }) => ({ slotMapping: slotMapping.with(5, INT32_MIN) })),
  inGroup('one slot for two tokens', ({ slotMapping }) => ({ slotMapping: slotMapping.with(1, slotMapping[0] ?? 0) })),
  admitted('an admission to a slot that does not exist', { slot: 10_000 }),
  admitted('a temperature below zero', {}, { temperature: -1 }),
  admitted('a temperature that is no number', {}, { temperature: Number.NaN }),
  admitted('a top-p above one', {}, { topP: 1.5 }),
  admitted('a bias on no token', {}, { logitBias: new Map([[-7, 1]]) }),
  admitted('more prompt than history', { numPromptTokens: 9 }),
  admitted('a history of unknown tokens', { history: Int32Array.of(1, 99_999_999) }),
];
