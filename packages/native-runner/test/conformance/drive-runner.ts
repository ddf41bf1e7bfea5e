import { createHash } from 'node:crypto';
import { ROW_FLAGS, type ModelRunner, type StepBatch, type StepResult } from '@kvasir/domain';

/** One sequence's share of a batch: consecutive tokens at consecutive positions. */
export interface Row {
  readonly ids: ArrayLike<number>;
  /** Position of the first token. */
  readonly position: number;
  /** Block ids in logical order; covers every position up to the last of `ids`. */
  readonly blocks: ArrayLike<number>;
  readonly flags?: number;
}

/** A batch without sampling out of rows. */
export function batchOf(runner: ModelRunner, rows: readonly Row[]): StepBatch {
  const { blockTokens } = runner.info.cacheSpec;
  const T = rows.reduce((sum, row) => sum + row.ids.length, 0);
  const width = Math.max(...rows.map((row) => Math.ceil((row.position + row.ids.length) / blockTokens)));
  const batch = {
    tokenIds: new Int32Array(T),
    positions: new Int32Array(T),
    cuSeqlensQ: new Int32Array(rows.length + 1),
    contextLengths: new Int32Array(rows.length),
    inputRows: new Int32Array(rows.length).fill(-1),
    samplerSlots: new Int32Array(rows.length).fill(-1),
    outputIndexes: new Int32Array(rows.length),
    rowFlags: Uint8Array.from(rows, (row) => row.flags ?? 0),
    admissions: [],
  };
  const blockTables = new Int32Array(rows.length * width).fill(-1);
  const slotMapping = new Int32Array(T);
  let at = 0;
  for (const [s, row] of rows.entries()) {
    const end = row.position + row.ids.length;
    for (let i = 0; i < Math.ceil(end / blockTokens); i++) blockTables[s * width + i] = row.blocks[i] as number;
    for (let i = 0; i < row.ids.length; i++, at++) {
      const position = row.position + i;
      batch.tokenIds[at] = row.ids[i] as number;
      batch.positions[at] = position;
      slotMapping[at] =
        (row.blocks[Math.floor(position / blockTokens)] as number) * blockTokens + (position % blockTokens);
    }
    batch.cuSeqlensQ[s + 1] = at;
    batch.contextLengths[s] = end;
  }
  return { ...batch, groups: [{ blockTables, blockTableWidth: width, slotMapping }] };
}

export function step(runner: ModelRunner, rows: readonly Row[]): Promise<StepResult> {
  return runner.submit(batchOf(runner, rows)).result;
}

/**
 * Logits (T, V) of every token of a sequence, fed in chunks.
 * @param chunks sizes, repeated until the sequence is through
 * @param beside rows of strangers for the step that starts at a position; default: alone
 */
export async function logitsOf(
  runner: ModelRunner,
  ids: ArrayLike<number>,
  blocks: ArrayLike<number>,
  chunks: readonly number[],
  beside: (stepIndex: number) => readonly Row[] = () => [],
): Promise<Float32Array> {
  const { vocabularySize } = runner.info;
  const all = Array.from(ids);
  const logits = new Float32Array(all.length * vocabularySize);
  for (let position = 0, n = 0; position < all.length; n++) {
    const size = Math.min(chunks[n % chunks.length] as number, all.length - position);
    const strangers = beside(n);
    // The sequence stands in the middle of its batch, so that neither end is special.
    const before = strangers.slice(0, strangers.length >> 1);
    const own = { ids: all.slice(position, position + size), position, blocks, flags: ROW_FLAGS.logitsAll };
    const result = await step(runner, [...before, own, ...strangers.slice(before.length)]);
    logits.set(result.logits, position * vocabularySize);
    position += size;
  }
  return logits;
}

/** Blocks in an order that is neither ascending nor contiguous, some skipped, as after a long life. */
export function fragmentedBlocks(numBlocks: number, wanted: number, seed: number): Int32Array {
  const ids = Array.from({ length: numBlocks }, (_, id) => id);
  let state = seed;
  for (let i = ids.length - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = state % (i + 1);
    [ids[i], ids[j]] = [ids[j] as number, ids[i] as number];
  }
  return Int32Array.from(ids.slice(0, wanted));
}

/** A hash of the logits' bits: equal hashes mean equal answers. */
export function hashOf(logits: Float32Array): string {
  return createHash('sha256')
    .update(new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength))
    .digest('hex');
}
