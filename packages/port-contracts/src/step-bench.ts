import {
  GREEDY,
  ROW_FLAGS,
  type ModelRunner,
  type SamplerAdmission,
  type SamplingParams,
  type StepBatch,
  type StepHandle,
  type StepResult,
} from '@kvasir/domain';

/** One row of a hand-made batch. */
export interface Row {
  /** Tokens this step carries; with `inputRow` the first one is unknown and its value is ignored. */
  readonly tokenIds: ArrayLike<number>;
  /** Position of the first of them. */
  readonly position: number;
  /** Block ids in logical order, the same in every layer group. */
  readonly table: readonly number[];
  readonly flags?: number;
  readonly samplerSlot?: number;
  readonly outputIndex?: number;
  readonly inputRow?: number;
  /** Do not write KV: it is there already. */
  readonly isRead?: boolean;
  readonly targetIds?: readonly number[];
}

/** Lays rows out as a batch, the way an engine would. */
export function batchOf(
  runner: ModelRunner,
  rows: readonly Row[],
  admissions: readonly SamplerAdmission[] = [],
): StepBatch {
  const { blockTokens, groups } = runner.info.cacheSpec;
  const positions = rows.flatMap((row) => Array.from(row.tokenIds, (_, index) => row.position + index));
  const width = Math.max(...rows.map((row) => row.table.length));
  const cuSeqlensQ = new Int32Array(rows.length + 1);
  for (const [index, row] of rows.entries())
    cuSeqlensQ[index + 1] = (cuSeqlensQ[index] as number) + row.tokenIds.length;
  const blockTables = Int32Array.from(rows.flatMap((row) => padded(row.table, width)));
  const slotMapping = Int32Array.from(
    rows.flatMap((row) => Array.from(row.tokenIds, (_, index) => slotOf(row, row.position + index, blockTokens))),
  );
  const hasTargets = rows.some((row) => row.targetIds !== undefined);
  return {
    tokenIds: Int32Array.from(rows.flatMap((row) => Array.from(row.tokenIds))),
    positions: Int32Array.from(positions),
    cuSeqlensQ,
    contextLengths: Int32Array.from(rows, (row) => row.position + row.tokenIds.length),
    groups: groups.map(() => ({ blockTables, blockTableWidth: width, slotMapping })),
    inputRows: Int32Array.from(rows, (row) => row.inputRow ?? -1),
    samplerSlots: Int32Array.from(rows, (row) => row.samplerSlot ?? -1),
    outputIndexes: Int32Array.from(rows, (row) => row.outputIndex ?? 0),
    rowFlags: Uint8Array.from(rows, (row) => row.flags ?? ROW_FLAGS.hash),
    ...(hasTargets
      ? { targetIds: Int32Array.from(rows.flatMap((row) => row.targetIds ?? Array.from(row.tokenIds, () => -1))) }
      : {}),
    admissions,
  };
}

export function submitRows(
  runner: ModelRunner,
  rows: readonly Row[],
  admissions: readonly SamplerAdmission[] = [],
): StepHandle {
  return runner.submit(batchOf(runner, rows, admissions));
}

export function stepRows(
  runner: ModelRunner,
  rows: readonly Row[],
  admissions: readonly SamplerAdmission[] = [],
): Promise<StepResult> {
  return submitRows(runner, rows, admissions).result;
}

export function admissionOf(
  slot: number,
  history: Int32Array,
  overrides: Partial<Omit<SamplerAdmission, 'params'>> & { readonly params?: Partial<SamplingParams> } = {},
): SamplerAdmission {
  const { params, ...rest } = overrides;
  return {
    slot,
    history,
    numPromptTokens: history.length,
    stopIds: new Int32Array(0),
    maxOutputs: 1_000,
    ...rest,
    params: { ...GREEDY, ...params },
  };
}

/** A prompt in chunks of at most `chunkTokens`; the last step has `flags`. @returns the last step's result */
export async function prefill(
  runner: ModelRunner,
  promptIds: Int32Array,
  table: readonly number[],
  options: {
    readonly chunkTokens?: number;
    readonly flags?: number;
    readonly samplerSlot?: number;
    readonly admissions?: readonly SamplerAdmission[];
  } = {},
): Promise<StepResult> {
  const chunkTokens = Math.min(options.chunkTokens ?? runner.info.maxBatchTokens, runner.info.maxBatchTokens);
  for (let position = 0; ; position += chunkTokens) {
    const tokenIds = promptIds.subarray(position, position + chunkTokens);
    const isLast = position + chunkTokens >= promptIds.length;
    const row: Row = {
      tokenIds,
      position,
      table,
      flags: isLast ? (options.flags ?? ROW_FLAGS.hash) : 0,
      ...(isLast && options.samplerSlot !== undefined ? { samplerSlot: options.samplerSlot } : {}),
    };
    const result = await stepRows(runner, [row], isLast ? (options.admissions ?? []) : []);
    if (isLast) return result;
  }
}

/** `count` token ids of the runner's vocabulary that depend on `seed`. */
export function tokensOf(runner: ModelRunner, count: number, seed: number): Int32Array {
  let state = seed * 2654435761 + 1;
  return Int32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * runner.info.vocabularySize);
  });
}

function padded(table: readonly number[], width: number): number[] {
  return [...table, ...Array.from({ length: width - table.length }, () => -1)];
}

function slotOf(row: Row, position: number, blockTokens: number): number {
  if (row.isRead === true) return -1;
  return (row.table[Math.floor(position / blockTokens)] ?? -1) * blockTokens + (position % blockTokens);
}
