import { KvasirError } from '@kvasir/domain';
import { MergeTableBuilder } from './merge-table.ts';
import type { MergeTable } from './tokenizer-model.ts';

/** @param merges by rank: `left right` with one space between, or a pair */
export function buildRankedMerges(
  merges: readonly (string | readonly [string, string])[],
  idOf: ReadonlyMap<string, number>,
): MergeTable {
  const builder = new MergeTableBuilder(merges.length);
  for (const [rank, merge] of merges.entries()) {
    const [left, right] = typeof merge === 'string' ? splitMerge(merge, rank) : merge;
    const leftId = idOf.get(left);
    const rightId = idOf.get(right);
    const mergedId = idOf.get(left + right);
    if (leftId === undefined || rightId === undefined || mergedId === undefined) {
      const missing = [left, right, left + right].find((text) => !idOf.has(text)) ?? '';
      throw new KvasirError(
        'file-corrupt',
        `merge ${rank} (${JSON.stringify(left)} ${JSON.stringify(right)}): expected tokens of the vocabulary, ` +
          `found ${JSON.stringify(missing)}, which is none`,
        { facts: { rank, missing } },
      );
    }
    builder.add(leftId, rightId, mergedId);
  }
  return builder.build();
}

function splitMerge(merge: string, rank: number): readonly [string, string] {
  // The left side may itself begin with a space where the vocabulary is not spelled in the byte alphabet.
  const space = merge.indexOf(' ', 1);
  if (space < 0 || space === merge.length - 1) {
    throw new KvasirError(
      'file-corrupt',
      `merge ${rank}: expected two tokens with a space between, found ${JSON.stringify(merge)}`,
      { facts: { rank } },
    );
  }
  return [merge.slice(0, space), merge.slice(space + 1)];
}
