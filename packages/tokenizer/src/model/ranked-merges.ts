import { KvasirError } from '@kvasir/domain';
import { MergeTableBuilder } from './merge-table.ts';
import type { MergeTable } from './tokenizer-model.ts';

/**
 * @param merges by rank: `left right` with one space between, or a pair. A merge whose parts or result are no tokens, as in
 *   a file whose vocabulary was cut short, can never apply and is left out.
 * @throws KvasirError `file-corrupt` for a merge that is not two parts, or when most merges name no tokens
 */
export function buildRankedMerges(
  merges: readonly (string | readonly [string, string])[],
  idOf: ReadonlyMap<string, number>,
): MergeTable {
  const builder = new MergeTableBuilder(merges.length);
  let numAbsent = 0;
  let firstAbsent: string | undefined;
  for (const [rank, merge] of merges.entries()) {
    const [left, right] = typeof merge === 'string' ? splitMerge(merge, rank) : merge;
    const leftId = idOf.get(left);
    const rightId = idOf.get(right);
    const mergedId = idOf.get(left + right);
    if (leftId === undefined || rightId === undefined || mergedId === undefined) {
      numAbsent += 1;
      firstAbsent ??= [left, right, left + right].find((text) => !idOf.has(text));
      continue;
    }
    builder.add(leftId, rightId, mergedId);
  }
  if (numAbsent * 2 > merges.length) {
    throw new KvasirError(
      'file-corrupt',
      `merges: expected tokens of the vocabulary, found ${numAbsent} of ${merges.length} merges that name others, ` +
        `the first ${JSON.stringify(firstAbsent)}; the merges belong to another vocabulary`,
      { facts: { numAbsent, numMerges: merges.length } },
    );
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
